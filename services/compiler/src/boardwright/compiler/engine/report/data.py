"""What a report is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IMPORT, QUANTIZE = "compile/import", "compile/quantize"
QUANTIZE_DYNAMIC, QUANTIZE_WEIGHTS = "compile/quantize-dynamic", "compile/quantize-weights"
CONVERT_FLOAT16 = "compile/convert-float16"
PRUNE = "compile/prune"
RECOVERED_MODEL, CALIBRATION_RECORD = "recovered.onnx", "calibration-record.json"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a variant costs as one artifact on one board.

    ``latencies_ms`` is keyed by the number of threads (0: the runtime's default) and holds ``p50_ms``,
    ``p95_ms`` and, where it was measured beside the baseline, ``speedup``. ``measured_on`` is empty where
    nothing was measured; ``warnings`` are what the runs that measured it had to say.
    """

    board: str
    toolchain: str = ""
    size_bytes: float | None = None
    memory_bytes: float | None = None
    latencies_ms: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    measured_on: str = ""
    warnings: Sequence[str] = ()

    def figure(self, name: str, threads: int = 1) -> float | None:
        """A latency figure; None where it was not measured."""
        return self.latencies_ms.get(threads, {}).get(name)


@dataclass(frozen=True, slots=True)
class MadeVariant:
    """A graph, how it was made, and what is known of it.

    ``kind`` is the step kind that made it of the variant ``source`` (its digest), with ``parameters``;
    ``values`` is what that step said, ``given`` which files of earlier passes it took (``recovered.onnx``).
    ``documents`` are the JSON files of that step and of the passes that looked at this graph:
    ``quantization.json``, ``calibration-record.json``, ``protection.json``, ``profile.json``. Accuracy and
    parity are fractions of 1 on the report's dataset; ``intervals`` holds the 95 % of those that have one.
    """

    name: str
    digest: str
    kind: str
    source: str = ""
    recipe: str = ""
    profile: str = ""
    size_bytes: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)
    parity: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    given: Sequence[str] = ()
    costs: Sequence[Cost] = ()
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportData:
    """All variants of a version, the baseline first, and the documents that speak of no single variant.

    ``board`` is the one that speeds are told of; ``version`` is shorthand ("digits@3"), for commands too.
    """

    version: str
    task: str = ""
    dataset: str = ""
    samples: int = 0
    board: str = ""
    variants: Sequence[MadeVariant] = ()
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def baseline(self) -> MadeVariant | None:
        """The model as it was imported."""
        return next((variant for variant in self.variants if variant.kind == IMPORT), None)

    @property
    def metric(self) -> str:
        """The name of the figure that accuracy is told by: "top1" or "map50_95"."""
        told = {name for variant in self.variants for name in variant.accuracy}
        return next((name for name in ("top1", "map50_95") if name in told), "")

    def accuracy(self, variant: MadeVariant) -> float | None:
        """A variant's accuracy in percent."""
        value = variant.accuracy.get(self.metric)
        return None if value is None else 100 * value

    def lost(self, variant: MadeVariant) -> float | None:
        """Points lost against the baseline; negative where it became better."""
        if self.baseline is None:
            return None
        ours, theirs = self.accuracy(variant), self.accuracy(self.baseline)
        return None if ours is None or theirs is None else theirs - ours

    def lost_interval(self, variant: MadeVariant) -> tuple[float, float] | None:
        """The 95 % interval of the points lost, over pairs of answers to the same samples."""
        held = variant.intervals.get(f"{self.metric}_difference")
        return None if held is None or len(held) != 2 else (-100 * held[1], -100 * held[0])

    def cost(self, variant: MadeVariant) -> Cost | None:
        """What a variant costs on the report's board."""
        return next((cost for cost in variant.costs if cost.board == self.board), None)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able values; ``from_json`` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ReportData:
        """Read a report's data back."""
        variants = [
            MadeVariant(
                **{
                    **held,
                    "costs": tuple(_cost(cost) for cost in held["costs"]),
                    "given": tuple(held.get("given", ())),
                }
            )
            for held in values["variants"]
        ]
        return cls(**{**values, "variants": tuple(variants)})


def _cost(values: Mapping[str, Any]) -> Cost:
    latencies = {int(threads): dict(held) for threads, held in values["latencies_ms"].items()}
    warnings = tuple(values.get("warnings", ()))
    return Cost(**{**values, "latencies_ms": latencies, "warnings": warnings})
