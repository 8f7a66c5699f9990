"""The calibration record: what was seen of every activation, from which every method's ranges follow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError

if TYPE_CHECKING:
    from boardwright.compiler.engine.observe.histogram import FloatHistogram
    from boardwright.compiler.engine.scheme import QuantizationScheme

SCHEMA = "boardwright.calibration-record.v2"
_SCHEMA_V1 = "boardwright.calibration-record.v1"

METHODS = ("min-max", "percentile", "entropy", "mse")
DEFAULT_PERCENTILE = 99.99

_TAKEN_OVER = ("same", "clipped")


@dataclass(frozen=True, slots=True)
class TensorRange:
    """A range of values: the smallest and largest that a tensor took, or that a method kept of it."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))

    def merge(self, other: TensorRange) -> TensorRange:
        """Return the range that covers both."""
        return TensorRange(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """The smallest and largest value of each channel; ``low`` and ``high`` have one entry per channel."""

    axis: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def merge(self, other: ChannelStatistics) -> ChannelStatistics | None:
        """Return what covers both; None where they do not have the same channels."""
        if (self.axis, len(self.low)) != (other.axis, len(other.low)):
            return None
        low = tuple(map(min, self.low, other.low))
        return ChannelStatistics(self.axis, low, tuple(map(max, self.high, other.high)))


@dataclass(frozen=True, slots=True)
class TensorStatistics:
    """What was seen of one tensor.

    ``low`` and ``high`` are over every value, of which there were ``values`` (0: not known); ``histogram`` is
    over every value or a sample of them, as the record says. ``source`` says where it comes from:
    ``measured``; ``joined``, the range of a Concat from its inputs'; ``derived``, by the graph's own
    elementwise functions from the tensor ``of``; ``same``, the values of the tensor ``of`` moved;
    ``clipped``, as far as the Relu or Clip behind it lets values through, which is the tensor ``of``.
    """

    low: float
    high: float
    histogram: FloatHistogram
    source: str = "measured"
    of: tuple[str, ...] = ()
    channels: ChannelStatistics | None = None
    values: int = 0

    def merge(self, other: TensorStatistics) -> TensorStatistics:
        """Return the statistics of both."""
        channels = self.channels.merge(other.channels) if self.channels and other.channels else None
        return TensorStatistics(
            min(self.low, other.low),
            max(self.high, other.high),
            self.histogram.merge(other.histogram),
            self.source,
            self.of,
            channels,
            self.values + other.values if self.values and other.values else 0,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as JSON-able values."""
        values: dict[str, Any] = {"source": self.source}
        if self.of:
            values["of"] = list(self.of)
        if self.source in _TAKEN_OVER:
            return values
        values |= {"low": self.low, "high": self.high, "histogram": self.histogram.to_json()}
        if self.values:
            values["values"] = self.values
        if self.channels:
            values["channels"] = {
                "axis": self.channels.axis,
                "low": list(self.channels.low),
                "high": list(self.channels.high),
            }
        return values


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """Ranges by tensor name, the method that chose them, and how many samples they come from.

    ``means`` holds, for each tensor that a layer reads, the mean of each of its channels (axis 1), over every
    value. ``statistics`` holds what all methods' ranges follow from: ``with_method`` gives another method's
    without running a sample again. ``sampling`` says whether histograms are ``exact`` or ``sampled``; ranges
    of values and means are exact in both. Records of parts ``merge``.
    """

    method: str
    samples: int
    ranges: Mapping[str, TensorRange]
    means: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    statistics: Mapping[str, TensorStatistics] = field(default_factory=dict)
    sampling: str = "exact"
    percentile: float = DEFAULT_PERCENTILE

    def ranges_for(
        self, method: str, scheme: QuantizationScheme | None = None, *, percentile: float | None = None
    ) -> dict[str, TensorRange]:
        """Return the ranges that ``method`` chooses for activations of ``scheme`` (default: asymmetric).

        Raises:
            EngineError: METHOD_UNKNOWN; RECORD_WITHOUT_STATISTICS, when the record holds ranges alone.
        """
        from boardwright.compiler.engine.observe.methods import choose_range

        check_method(method)
        if not self.statistics:
            if method == self.method:
                return dict(self.ranges)
            raise EngineError(
                "RECORD_WITHOUT_STATISTICS",
                f"This record holds {self.method} ranges and no histograms, so {method} ranges cannot be "
                "taken from it: observe again.",
            )
        symmetric = scheme is not None and scheme.activation_symmetric
        power_of_two = scheme is not None and scheme.power_of_two
        share = self.percentile if percentile is None else percentile
        chosen: dict[str, TensorRange] = {}
        taken_over = [name for name, found in self.statistics.items() if found.source in _TAKEN_OVER]
        for name, found in self.statistics.items():
            if found.source not in _TAKEN_OVER:
                chosen[name] = choose_range(
                    found, method, symmetric=symmetric, percentile=share, power_of_two=power_of_two
                )
        for name in taken_over:
            chosen[name] = chosen[self.statistics[name].of[0]]
        return {name: chosen[name] for name in self.statistics}

    def with_method(self, method: str, scheme: QuantizationScheme | None = None) -> CalibrationRecord:
        """Return the record with the ranges of another method, see ``ranges_for``."""
        return replace(self, method=method, ranges=self.ranges_for(method, scheme))

    def require(self, tensors: Iterable[str]) -> None:
        """Check that the record is of the graph that has these activations.

        Raises:
            EngineError: RECORD_UNFIT.
        """
        missing = [name for name in tensors if name not in self.ranges]
        if missing:
            more = f" (and {len(missing) - 1} more tensors of this graph)" if len(missing) > 1 else ""
            raise EngineError(
                "RECORD_UNFIT",
                f"The calibration record knows nothing of {missing[0]!r}{more}: it was made from another "
                "graph. Observe this one, as prepare_graph returns it.",
            )

    def sources(self) -> dict[str, int]:
        """Return how many tensors are known in which way, see ``TensorStatistics``."""
        return dict(sorted(Counter(found.source for found in self.statistics.values()).items()))

    def constant_tensors(self) -> list[str]:
        """Return the tensors that took a single value."""
        return [name for name, found in self.statistics.items() if found.low == found.high]

    def without_channels(self) -> CalibrationRecord:
        """Return the record without statistics per channel."""
        statistics = {name: replace(found, channels=None) for name, found in self.statistics.items()}
        return replace(self, statistics=statistics)

    def merge(self, other: CalibrationRecord) -> CalibrationRecord:
        """Return the record of both parts' samples, by this record's method.

        Raises:
            EngineError: RECORD_UNFIT, when they are of different graphs; RECORD_WITHOUT_STATISTICS, when one
                holds ranges alone and the method is not min-max.
        """
        self.require(other.ranges)
        other.require(self.ranges)
        total = self.samples + other.samples
        means = {
            name: tuple(
                (mine * self.samples + theirs * other.samples) / total
                for mine, theirs in zip(self.means[name], other.means[name], strict=True)
            )
            for name in self.means
            if len(self.means[name]) == len(other.means.get(name, ()))
        }
        sampling = "exact" if self.sampling == other.sampling == "exact" else "sampled"
        if self.statistics and other.statistics:
            statistics = {name: mine.merge(other.statistics[name]) for name, mine in self.statistics.items()}
            merged = CalibrationRecord(
                self.method, total, self.ranges, means, statistics, sampling, self.percentile
            )
            return merged.with_method(self.method)
        if self.method == other.method == "min-max":
            ranges = {name: mine.merge(other.ranges[name]) for name, mine in self.ranges.items()}
            return CalibrationRecord("min-max", total, ranges, means, {}, sampling, self.percentile)
        raise EngineError(
            "RECORD_WITHOUT_STATISTICS",
            "One of the records holds ranges and no histograms: only min-max ranges of such records merge. "
            "Observe again.",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values; ``from_json`` reads them back."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "samples": self.samples,
            "sampling": self.sampling,
            "percentile": self.percentile,
            "ranges": {name: [found.low, found.high] for name, found in sorted(self.ranges.items())},
            "means": {name: list(values) for name, values in sorted(self.means.items())},
            "statistics": {name: found.to_json() for name, found in sorted(self.statistics.items())},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CalibrationRecord:
        """Read a record back, also one of the first schema, which held ranges and means alone.

        Raises:
            EngineError: RECORD_UNKNOWN, when it is of another schema or damaged.
        """
        schema = values.get("schema")
        if schema not in (SCHEMA, _SCHEMA_V1):
            raise EngineError(
                "RECORD_UNKNOWN", f"This is no calibration record of schema {SCHEMA}: observe again."
            )
        try:
            ranges = {
                name: TensorRange(float(low), float(high)) for name, (low, high) in values["ranges"].items()
            }
            means = {name: tuple(map(float, found)) for name, found in values["means"].items()}
            record = cls(str(values["method"]), int(values["samples"]), ranges, means)
            if schema == _SCHEMA_V1:
                return record
            return replace(
                record,
                statistics=_read_statistics(values["statistics"]),
                sampling=str(values["sampling"]),
                percentile=float(values["percentile"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(
                "RECORD_UNKNOWN", f"The calibration record is damaged ({error}): observe again."
            ) from error

    def to_bytes(self) -> bytes:
        """Return the record as canonical JSON."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> CalibrationRecord:
        """Read a record's file back.

        Raises:
            EngineError: RECORD_UNKNOWN.
        """
        try:
            values = json.loads(data)
        except ValueError as error:
            raise EngineError("RECORD_UNKNOWN", f"The calibration record is no JSON: {error}.") from error
        return cls.from_json(values if isinstance(values, dict) else {})


def check_method(method: str) -> None:
    """Refuse a method that does not exist.

    Raises:
        EngineError: METHOD_UNKNOWN.
    """
    if method not in METHODS:
        raise EngineError(
            "METHOD_UNKNOWN",
            f"There is no calibration method {method!r}; the methods are {', '.join(METHODS)}.",
        )


def _read_statistics(values: Mapping[str, Any]) -> dict[str, TensorStatistics]:
    from boardwright.compiler.engine.observe.histogram import FloatHistogram

    found = {
        name: TensorStatistics(
            float(entry["low"]),
            float(entry["high"]),
            FloatHistogram.from_json(entry["histogram"]),
            str(entry["source"]),
            tuple(entry.get("of", ())),
            _read_channels(entry.get("channels")),
            int(entry.get("values", 0)),
        )
        for name, entry in values.items()
        if entry["source"] not in _TAKEN_OVER
    }
    taken_over = {
        name: taken_over_from(entry["source"], entry["of"][0], found[entry["of"][0]])
        for name, entry in values.items()
        if entry["source"] in _TAKEN_OVER
    }
    return found | taken_over


def taken_over_from(source: str, name: str, found: TensorStatistics) -> TensorStatistics:
    """Return the statistics of a tensor that has those of the tensor ``name``."""
    channels = found.channels if source == "clipped" else None
    return replace(found, source=source, of=(name,), channels=channels)


def _read_channels(values: Mapping[str, Any] | None) -> ChannelStatistics | None:
    if values is None:
        return None
    return ChannelStatistics(
        int(values["axis"]), tuple(map(float, values["low"])), tuple(map(float, values["high"]))
    )
