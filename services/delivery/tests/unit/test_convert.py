"""Resources as messages."""

from __future__ import annotations

from dataclasses import replace

from boardwright.delivery.domain.resources import Device, DeviceKey, DeviceState, FleetKey, Installed
from boardwright.delivery.rpc.convert import to_device


def test_when_something_was_installed_is_told_only_where_it_is_known() -> None:
    """Reports are kept for a while, so the one that told it may be gone where a database is older."""
    key = DeviceKey(FleetKey("default", "cameras"), "cam-1")
    installed = Installed("releases/1", "sha256:1", "rollouts/1", "a")
    device = Device(key, DeviceState.HEALTHY, "", "", {}, "", 1, 1, installed=installed)
    assert not to_device(device).HasField("install_time")
    assert to_device(replace(device, install_us=2_000_000)).install_time.seconds == 2
