"""Whether any device of a fleet could run any bundle of a release."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardwright.model.host import Host


PIN_FIELDS = (
    "board",
    "architecture",
    "cpu_features",
    "accelerator",
    "runtime",
    "runtime_version",
    "bsp",
    "driver",
)
_LONGEST_FACT = 200
_MOST_FEATURES = 500


def host_facts(said: Any) -> dict[str, Any]:
    """What a device said of its machine, in the fields of a HardwarePin and nothing else.

    One device's odd description must not break the views and rollouts of its whole fleet.

    Raises:
        TypeError, ValueError: it is not what a HardwarePin holds.
    """
    if not isinstance(said, dict):
        raise TypeError("the host must be an object")
    facts = {name: said[name] for name in PIN_FIELDS if said.get(name)}
    features = facts.get("cpu_features", [])
    if not isinstance(features, list) or len(features) > _MOST_FEATURES:
        raise TypeError(f"cpu_features must be a list of at most {_MOST_FEATURES}")
    for text in (*features, *(value for name, value in facts.items() if name != "cpu_features")):
        if not isinstance(text, str) or len(text) > _LONGEST_FACT or "\0" in text:
            raise TypeError(f"the facts of a host are texts of at most {_LONGEST_FACT} characters")
        text.encode()
    return facts


def host_of(facts: Mapping[str, Any]) -> Host:
    """The machine that a device said it is, from `host_facts`."""
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

    # A fleet's machines are mostly alike, and this runs where every other change waits.
    machines = [
        host_of(json.loads(facts)) for facts in {json.dumps(facts, sort_keys=True) for facts in hosts}
    ]
    reasons = [mismatches(HardwarePin.from_json(pin), machine) for pin in pins for machine in machines]
    nearest = min(sorted(reasons), key=len)
    return "; ".join(nearest)
