"""What a layer costs on integers and in floating point: measured where times are given, else by its MACs.

Times come from a runtime's profile (milliseconds by node name, one table per precision). Without them the
model counts multiplications and assumes that integers take half of a float's time; it says so, and its
figures are shares of the FP32 model, never milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from boardwright.compiler.engine.protect.structure import Subject

_ASSUMED_INTEGER_SHARE = 0.5
MILLISECONDS, SHARE = "ms", "share of FP32"


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Measured milliseconds by node name; ``source`` says on what machine and with which runtime."""

    float_ms: Mapping[str, float]
    integer_ms: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Cost of each layer by name in floating point and on integers, and the unit they are in."""

    float_cost: Mapping[str, float]
    integer_cost: Mapping[str, float]
    unit: str
    basis: str

    def total(self, in_float: Collection[str]) -> float:
        """Return the cost of the graph when these nodes run in floating point and all others on integers."""
        kept = set(in_float)
        return sum(
            cost if name in kept else self.integer_cost.get(name, cost)
            for name, cost in self.float_cost.items()
        )

    def surcharge(self, name: str) -> float:
        """Return what it costs more to keep a node in floating point; never negative."""
        cost = self.float_cost.get(name, 0.0)
        return max(cost - self.integer_cost.get(name, cost), 0.0)


def latency_model(subject: Subject, times: LayerTimes | None = None) -> LatencyModel:
    """Return the cost model of a prepared graph.

    With FP32 times alone, integers are assumed to take half of them.
    """
    if times is not None and times.float_ms:
        integers = times.integer_ms or {
            name: value * _ASSUMED_INTEGER_SHARE for name, value in times.float_ms.items()
        }
        told = "" if times.integer_ms else ", integers assumed to take half of the float's time"
        basis = f"per-layer times measured {times.source or 'elsewhere'}{told}"
        return LatencyModel(dict(times.float_ms), dict(integers), MILLISECONDS, basis)
    macs = {subject.nodes[index].name: count for index, count in subject.macs.items()}
    total = max(sum(macs.values()), 1)
    shares = {name: count / total for name, count in macs.items()}
    halves = {name: value * _ASSUMED_INTEGER_SHARE for name, value in shares.items()}
    return LatencyModel(
        shares, halves, SHARE, "multiplications alone, integers assumed to take half of the float's time"
    )
