"""Wrong clocks, old metadata and false keys."""

from __future__ import annotations

from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner

DAY = 86_400.0
HOUR = 3_600.0


def test_expired_metadata(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    fleet.release(2, scale=3.0, validity_days=-1)
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "METADATA_EXPIRED")
    assert "has ended" in said["message"] and "delivery service" in said["message"]
    assert enrolled.run_model() == 2.0
    assert fleet.server.reports[-1]["refusal"]["reason"] == "METADATA_EXPIRED"


def test_clock_ahead_is_said_to_be_the_clock(enrolled, fleet) -> None:
    """To a device whose clock is 30 days ahead, everything looks 30 days old."""
    fleet.server.fault.clock_offset_seconds = -30 * DAY
    fleet.server.repository.now -= timedelta(days=30)
    fleet.release(1)
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "CLOCK_WRONG") and "set the clock" in said["message"]
    report = fleet.server.reports[-1]  # heard in spite of its clock
    assert report["refusal"]["reason"] == "CLOCK_WRONG"
    assert abs(report["clock_behind_seconds"] + 30 * DAY) < 5


def test_clock_far_behind_the_servers(enrolled, fleet) -> None:
    fleet.server.fault.clock_offset_seconds = 400 * DAY
    fleet.release(1)
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "CLOCK_WRONG")
    assert fleet.server.reports[-1]["refusal"]["reason"] == "CLOCK_WRONG"


def test_clock_that_went_backwards(enrolled, fleet) -> None:
    from boardwright.agent.home import Home

    fleet.release(1)
    enrolled("once")
    home = Home(enrolled.home)
    home.save_state(clock_floor_us=home.state().clock_floor_us + int(90 * DAY * 1e6))
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "CLOCK_WRONG") and "already seen" in said["message"]


def test_a_clock_that_ran_ahead_may_be_set(enrolled, fleet) -> None:
    """To the device the server is three days behind: what the server showed binds it, not its own clock."""
    from boardwright.agent.home import Home

    fleet.release(1)
    fleet.server.fault.clock_offset_seconds = -3 * DAY
    assert enrolled("once")[1]["result"] == "installed"
    assert abs(Home(enrolled.home).state().clock_floor_us / 1e6 - fleet.server.now) < HOUR


def test_a_small_skew_does_not_matter(enrolled, fleet) -> None:
    fleet.server.fault.clock_offset_seconds = 3600
    fleet.release(1)
    assert enrolled("once")[1]["result"] == "installed"
    assert fleet.server.reports[-1]["kind"] == "installed"


def test_rolled_back_metadata(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    old = fleet.server.state()
    fleet.release(2, scale=3.0)
    assert enrolled("once")[1]["result"] == "installed"
    fleet.server.repository.files = old
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "METADATA_ROLLED_BACK") and "older metadata" in said["message"]
    assert enrolled.run_model() == 3.0


def test_metadata_signed_by_other_keys(enrolled, fleet) -> None:
    fleet.server.repository.signers["timestamp"] = CryptoSigner.generate_ed25519()
    fleet.release(1)
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "METADATA_UNSIGNED") and "enrol the device again" in said["message"]


@pytest.mark.parametrize("lost", [True, False])
def test_a_root_of_trust_that_the_disk_damaged(enrolled, fleet, lost: bool) -> None:
    (enrolled.home / "root.json").write_bytes(b"{")
    if lost:
        (enrolled.home / "root.json").unlink()
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "HOME_DAMAGED") and "--again" in said["message"]


def test_metadata_that_is_no_metadata(enrolled, fleet) -> None:
    fleet.server.repository.files["metadata/timestamp.json"] = b"<html>captive portal</html>"
    assert enrolled("once")[0] == 3
    fleet.server.repository.files["metadata/timestamp.json"] = b"x" * (1 << 20)
    assert enrolled("once")[1]["reason"] == "METADATA_CHANGED"  # longer than any: nobody reads to its end
    fleet.server.repository.files.clear()
    code, said = enrolled("once")
    assert (code, said["reason"]) == (4, "REPOSITORY_MISSING")


def test_server_gone(enrolled, fleet) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    fleet.server.__exit__()
    code, said = enrolled("once")
    assert (code, said["reason"]) == (4, "SERVER_UNREACHABLE") and "check the network" in said["message"]
    assert enrolled.run_model() == 2.0
    fleet.server.__init__()
    fleet.server.__enter__()
