"""One session over one set of input shapes, and what it has counted so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe.histogram import FloatHistogram, codes_of
from boardwright.compiler.engine.observe.probes import HIGH, LOW, MEAN, PHASE, SAMPLE, Probes, Segment
from boardwright.compiler.engine.observe.record import CalibrationRecord, TensorRange, TensorStatistics
from boardwright.compiler.engine.observe.setup import assemble, set_up

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_BUFFERED_CODES = 1 << 23  # 16 MiB of samples wait to be counted together
_BUFFERED_SAMPLES = 64
_GOLDEN = 0.6180339887498949  # its multiples fill an interval evenly


class Watch:
    """Counts what a graph's tensors take for inputs of one shape.

    ``tensors`` are the activations to know, ``shapes`` the inputs' shapes. ``values_per_sample`` None reads
    every value.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        values_per_sample: int | None,
        threads: int,
    ) -> None:
        self._setup, self._probes = set_up(model, tensors, shapes, values_per_sample)
        try:
            self._session = _open(self._probes, threads)
        except EngineError:
            # The runtime does not read every optimised graph back that it wrote: branches get names twice.
            self._setup, self._probes = set_up(model, tensors, shapes, values_per_sample, optimised=False)
            self._session = _open(self._probes, threads)
        self._outputs = self._probes.outputs
        given = {value.name for value in self._probes.model.graph.input}
        self._phased = PHASE in given
        self._given = given - {PHASE} - {tensor.name for tensor in self._probes.model.graph.initializer}
        self._order = {name: index for index, name in enumerate(tensors)}
        # The graph is in the session now; its weights need not be held twice.
        self._probes.model = type(self._probes.model)()
        self.samples = 0
        self._start_counting()

    def _start_counting(self) -> None:
        import numpy as np

        columns = self._probes.ranges[-1].stop if self._probes.ranges else 0
        self._low = np.full(columns, np.inf, np.float32)
        self._high = np.full(columns, -np.inf, np.float32)
        self._sums = np.zeros(self._probes.means[-1].stop if self._probes.means else 0, np.float64)
        codes = self._probes.samples[-1].stop if self._probes.samples else 0
        rows = max(1, min(_BUFFERED_SAMPLES, _BUFFERED_CODES // max(codes, 1)))
        self._buffer = np.zeros((rows, codes), np.uint16)
        self._filled = 0
        self._histograms: dict[str, FloatHistogram] = {}
        self._loose: dict[str, TensorRange] = {}

    def add(self, feed: Mapping[str, Array], number: int) -> None:
        """Count one sample; ``number`` is its place among all.

        Raises:
            EngineError: CALIBRATION_NOT_FINITE, OBSERVATION_FAILED.
        """
        import numpy as np

        given: dict[str, Any] = {name: feed[name] for name in self._given}
        if self._phased:
            given[PHASE] = np.array(int((number * _GOLDEN) % 1.0 * (1 << 31)), np.int64)
        try:
            found = dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise EngineError(
                "OBSERVATION_FAILED",
                f"The graph cannot be run on sample {number}: {str(error).strip()[:300]}. If memory ran out, "
                "observe with a smaller batch or input; the samples before this one are not lost.",
            ) from error
        whole = {
            name: found.get(output, feed.get(output)) for name, (output, _) in self._probes.whole.items()
        }
        self._check(found, whole, number)
        if LOW in found:
            np.minimum(self._low, found[LOW], out=self._low)
            np.maximum(self._high, found[HIGH], out=self._high)
        if MEAN in found:
            self._sums += found[MEAN]
        for name, array in whole.items():
            self._count_whole(name, np.asarray(array))
        if SAMPLE in found:
            self._buffer[self._filled] = codes_of(found[SAMPLE])
            self._filled += 1
            if self._filled == len(self._buffer):
                self._flush()
        self.samples += 1

    def _check(self, found: Mapping[str, Array], whole: Mapping[str, Any], number: int) -> None:
        import numpy as np

        bad: set[str] = set()
        for output, segments in (
            (LOW, self._probes.ranges),
            (HIGH, self._probes.ranges),
            (MEAN, self._probes.means),
            (SAMPLE, self._probes.samples),
        ):
            if output in found and not np.isfinite(found[output]).all():
                bad |= {s.tensor for s in segments if not np.isfinite(s.of(found[output])).all()}
        bad |= {name for name, array in whole.items() if not np.isfinite(array).all()}
        if bad:
            first = min(bad, key=lambda name: self._order.get(name, len(self._order)))
            raise EngineError(
                "CALIBRATION_NOT_FINITE",
                f"Sample {number} drives the activation {first!r} to NaN or infinity. "
                "Check the weights for NaN (import notes them) and the input spec's scaling.",
            )

    def _count_whole(self, name: str, array: Array) -> None:
        view = self._probes.whole[name][1]
        if view is not None:
            array = view.values(array.reshape(view.outer, view.positions, view.lanes))
        elif array.size:
            found = TensorRange(float(array.min()), float(array.max()))
            self._loose[name] = self._loose[name].merge(found) if name in self._loose else found
        self._merge(name, FloatHistogram.from_codes(codes_of(array)))

    def _flush(self) -> None:
        filled = self._buffer[: self._filled]
        for segment in self._probes.samples:
            view = segment.view
            codes = segment.of(filled).reshape(-1, view.outer, segment.taken, view.lanes)
            self._merge(segment.tensor, FloatHistogram.from_codes(view.values(codes)))
        self._filled = 0

    def _merge(self, name: str, found: FloatHistogram) -> None:
        self._histograms[name] = self._histograms[name].merge(found) if name in self._histograms else found

    def record(self, method: str, percentile: float, sampling: str) -> CalibrationRecord:
        """Return what was counted so far; counting can go on."""
        self._flush()
        statistics = assemble(self._setup, self._measured())
        means = {
            segment.tensor: tuple(self._mean(segment).tolist())
            for segment in self._probes.means
            if segment.tensor in self._setup.averaged
        }
        ranges = {name: TensorRange(found.low, found.high) for name, found in statistics.items()}
        record = CalibrationRecord("min-max", self.samples, ranges, means, statistics, sampling, percentile)
        return record if method == "min-max" else record.with_method(method)

    def _mean(self, segment: Segment) -> Array:
        mean: Array = segment.view.per_channel(segment.of(self._sums) / max(self.samples, 1)).mean(axis=0)
        return mean

    def _measured(self) -> dict[str, TensorStatistics]:
        known: dict[str, TensorStatistics] = {}
        for segment in self._probes.ranges:
            name, view = segment.tensor, segment.view
            low, high = segment.of(self._low), segment.of(self._high)
            known[name] = TensorStatistics(
                float(view.per_channel(low).min()),
                float(view.per_channel(high).max()),
                self._histograms.get(name, FloatHistogram.empty()),
                channels=view.channel_statistics(low, high),
                values=self.samples * view.batch * view.channels * view.positions,
            )
        for name in self._setup.plan.measured:
            if name not in known:  # of unknown shape, or empty
                found = self._loose.get(name, TensorRange(0.0, 0.0))
                histogram = self._histograms.get(name, FloatHistogram.empty())
                known[name] = TensorStatistics(found.low, found.high, histogram)
        for name in self._setup.plan.joined:
            known[name] = TensorStatistics(
                0.0, 0.0, self._histograms.get(name, FloatHistogram.empty()), "joined"
            )
        return known


def _open(probes: Probes, threads: int) -> Any:
    return open_session(probes.model, threads=threads, level="none", in_order=True)
