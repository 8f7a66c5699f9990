"""Pass ``observe``: run samples through a graph and keep what every calibration method needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.inspect import graph_inputs
from boardwright.compiler.engine.graph.prepare import raise_opset
from boardwright.compiler.engine.observe.graph_values import float_activations
from boardwright.compiler.engine.observe.record import DEFAULT_PERCENTILE, CalibrationRecord, check_method
from boardwright.compiler.engine.observe.watch import Watch

if TYPE_CHECKING:
    import onnx

SAMPLINGS = ("sampled", "exact")
VALUES_PER_SAMPLE = 2048
"""How many values of a tensor go into its histogram per sample, about. Its range is always that of all."""

_OPEN_SHAPES = 4  # sessions kept where samples differ in shape


class Observer:
    """Watches a graph's float activations while samples run through it.

    What was seen can be had at any time, also after a sample failed or the samples broke off:

    >>> observer = Observer(model)  # doctest: +SKIP
    >>> for feed in feeds:  # doctest: +SKIP
    ...     observer.add(feed)
    >>> record = observer.record()  # doctest: +SKIP

    Memory does not grow with the number of samples. ``sampling`` is ``sampled`` or ``exact``, for
    histograms; ranges and means are over every value in both. ``resume`` goes on from an earlier record of
    the same graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        method: str = "min-max",
        sampling: str = "sampled",
        percentile: float = DEFAULT_PERCENTILE,
        threads: int = 0,
        resume: CalibrationRecord | None = None,
    ) -> None:
        import onnx

        check_method(method)
        if sampling not in SAMPLINGS:
            raise EngineError(
                "SAMPLING_UNKNOWN", f"There is no sampling {sampling!r}; it is one of {', '.join(SAMPLINGS)}."
            )
        if not 50 < percentile <= 100:
            raise EngineError(
                "PERCENTILE_UNFIT",
                f"A percentile of {percentile} keeps too little: it lies above 50, up to 100.",
            )
        self._model = onnx.shape_inference.infer_shapes(raise_opset(model))
        self._tensors = float_activations(self._model)
        self._inputs = graph_inputs(self._model)
        self._method, self._percentile, self._sampling = method, percentile, sampling
        self._threads = threads
        self._done = resume
        self._watches: dict[tuple[tuple[int, ...], ...], Watch] = {}

    @property
    def samples(self) -> int:
        """How many samples were counted."""
        done = self._done.samples if self._done else 0
        return done + sum(watch.samples for watch in self._watches.values())

    def add(self, feed: Feed) -> None:
        """Run one sample. A sample that fails is not counted; those before it are kept.

        Raises:
            DatasetUnfit: CALIBRATION_INPUT_UNFIT, when an input is missing or has another shape or type.
            EngineError: CALIBRATION_NOT_FINITE, when an activation becomes NaN or infinite;
                OBSERVATION_FAILED, when the graph does not run; RUNTIME_REFUSED.
        """
        number = self.samples
        shapes = {name: self._check_input(name, feed, number) for name in self._inputs}
        key = tuple(shapes.values())
        if key not in self._watches:
            if len(self._watches) >= _OPEN_SHAPES:
                self._close_oldest()
            values = VALUES_PER_SAMPLE if self._sampling == "sampled" else None
            self._watches[key] = Watch(self._model, self._tensors, shapes, values, self._threads)
        self._watches[key].add(feed, number)

    def record(self) -> CalibrationRecord:
        """Return the record of all samples so far; more can be added afterwards.

        Raises:
            DatasetUnfit: CALIBRATION_EMPTY, when there was none.
        """
        parts = [self._done] if self._done else []
        parts += [self._part(watch) for watch in self._watches.values() if watch.samples]
        if not parts:
            raise DatasetUnfit(
                "CALIBRATION_EMPTY",
                "There is no sample to calibrate with: add samples to the dataset and seal it.",
            )
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.merge(part)
        return whole if whole.method == self._method else whole.with_method(self._method)

    def _part(self, watch: Watch) -> CalibrationRecord:
        return watch.record(self._method, self._percentile, self._sampling)

    def _close_oldest(self) -> None:
        watch = self._watches.pop(next(iter(self._watches)))
        if watch.samples:
            part = self._part(watch)
            self._done = self._done.merge(part) if self._done else part

    def _check_input(self, name: str, feed: Feed, number: int) -> tuple[int, ...]:
        import numpy as np

        declared, dtype = self._inputs[name]
        given = feed.get(name)
        if not isinstance(given, np.ndarray):
            raise _unfit(
                number, f"has no array for the input {name!r} (it has {', '.join(feed) or 'nothing'})"
            )
        if str(given.dtype) != dtype:
            raise _unfit(number, f"gives {given.dtype} to the input {name!r}, which takes {dtype}")
        fits = len(declared) == given.ndim and all(
            not isinstance(axis, int) or axis == length
            for axis, length in zip(declared, given.shape, strict=True)
        )
        if not fits:
            wanted = "x".join("?" if axis is None else str(axis) for axis in declared)
            shape = "x".join(map(str, given.shape))
            raise _unfit(number, f"has the shape {shape} for the input {name!r}, which takes {wanted}")
        return tuple(given.shape)


def observe(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    *,
    method: str = "min-max",
    sampling: str = "sampled",
    percentile: float = DEFAULT_PERCENTILE,
    threads: int = 0,
    resume: CalibrationRecord | None = None,
    on_sample: Callable[[int], None] = lambda _: None,
) -> CalibrationRecord:
    """Run every feed through ``model``; return what was seen of each float activation, and channel means.

    Each feed maps input names to arrays of the inputs' shapes and types; other entries are not looked at. Use
    an ``Observer`` to keep what was seen when the feeds break off.

    Raises:
        DatasetUnfit: CALIBRATION_EMPTY, when there is no feed; CALIBRATION_INPUT_UNFIT.
        EngineError: CALIBRATION_NOT_FINITE, OBSERVATION_FAILED, METHOD_UNKNOWN, see ``Observer``.
    """
    observer = Observer(
        model, method=method, sampling=sampling, percentile=percentile, threads=threads, resume=resume
    )
    for count, feed in enumerate(feeds, 1):
        observer.add(feed)
        on_sample(count)
    return observer.record()


def _unfit(number: int, problem: str) -> DatasetUnfit:
    return DatasetUnfit(
        "CALIBRATION_INPUT_UNFIT",
        f"Sample {number} {problem}. Check the input spec: calibration samples are preprocessed by it.",
    )
