"""Whether any device of a fleet could run any bundle of a release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardwright.model.host import Host


def host_of(facts: Mapping[str, Any]) -> Host:
    """The machine that a device said it is, in the fields of a HardwarePin."""
    from boardwright.model.host import Host  # loads NumPy, which an idle service does without

    runtime = str(facts.get("runtime", ""))
    accelerator = str(facts.get("accelerator", ""))
    return Host(
        architecture=str(facts.get("architecture", "")),
        board=str(facts.get("board", "")),
        cpu_features=frozenset(str(feature) for feature in facts.get("cpu_features", ())),
        accelerators=(accelerator,) if accelerator else (),
        runtimes={runtime: str(facts.get("runtime_version", ""))} if runtime else {},
        bsp=str(facts.get("bsp", "")),
        driver=str(facts.get("driver", "")),
    )


def nearest_misfit(pins: Sequence[Mapping[str, Any]], hosts: Sequence[Mapping[str, Any]]) -> str:
    """Why no host can run anything, told of the pair that fits best; "" when one can, or there is no host."""
    if not hosts:
        return ""
    if not pins:
        return "the release has no bundle"
    from boardwright.model.pins import HardwarePin, mismatches

    reasons = [mismatches(HardwarePin.from_json(pin), host_of(facts)) for pin in pins for facts in hosts]
    nearest = min(reasons, key=len)
    return "; ".join(nearest)
