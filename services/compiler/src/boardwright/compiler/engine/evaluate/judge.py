"""The pass itself: samples in, one at a time; figures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.evaluate.classifying import Classifying
from boardwright.compiler.engine.evaluate.detecting import Detecting
from boardwright.compiler.engine.evaluate.record import Evaluation, Figures
from boardwright.compiler.engine.evaluate.runner import Answers, Runner
from boardwright.compiler.engine.evaluate.views import Augmentation, Views, plan_views
from boardwright.compiler.engine.quality import InformationMeter
from boardwright.compiler.engine.sqnr import SqnrMeter
from boardwright.model import InputSpec, ModelError, OutputSpec

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.evaluate.samples import Sample

_PLAIN = Augmentation()
_ORDER_IS_NOISE = frozenset({"yolo-end2end", "postprocessed", "detr"})
"""Heads whose rows are sorted by score: two that changed places are no noise."""


def evaluate(
    model: onnx.ModelProto | Runner,
    samples: Iterable[Sample],
    input_spec: InputSpec,
    output_spec: OutputSpec,
    *,
    baseline: onnx.ModelProto | Runner | None = None,
    augmentation: Augmentation = _PLAIN,
    scales: Sequence[float] = (),
    threads: int = 0,
    on_sample: Callable[[int], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Judge ``model`` on ``samples``, and beside ``baseline`` where one is given.

    Samples are read once, one at a time, so that their number does not matter for memory. ``augmentation``
    are views whose answers are merged into one, of the model and of its baseline alike. ``scales``, relative
    to the input size, are judged each by itself beside the headline. ``on_stage`` hears what is done after
    the last sample: intervals over thousands of images take seconds. A ``Runner`` is asked as it is, with the
    threads and axes that it was made with.

    Raises:
        DatasetUnfit: EVALUATION_EMPTY without samples; LABELS_DO_NOT_FIT when labels are of another task or
            beyond the classes of the OutputSpec; OUTPUTS_DO_NOT_FIT.
        EngineError: SCALES_INVALID; MODEL_FAILED when the graph does not run at a scale.
    """
    views = plan_views(input_spec, augmentation, scales)

    def runner_of(asked: onnx.ModelProto | Runner) -> Runner:
        if isinstance(asked, Runner):
            return asked
        return Runner(asked, input_spec, output_spec, threads=threads, free_axes=views.need_free_axes)

    runner = runner_of(model)
    other = None if baseline is None else runner_of(baseline)
    judging = _Judging(output_spec, views, other is not None)
    count = 0
    for sample in samples:
        try:
            prepared = [(view, *view.prepare(sample.image)) for view in views.views]
            answers = runner.answer(prepared, views, augmentation.merge)
            reference = other.answer(prepared, views, augmentation.merge) if other is not None else None
            judging.add(sample, answers, reference)
        except ModelError as error:
            raise DatasetUnfit(
                error.reason, f"Sample {sample.name!r}: {error.message}. Correct the dataset or the specs."
            ) from error
        count += 1
        on_sample(count)
    if not count:
        raise DatasetUnfit(
            "EVALUATION_EMPTY", "There is no sample to evaluate with: add samples to the dataset and seal it."
        )
    on_stage("figures and their intervals")
    told = {} if augmentation.is_plain else _told(views, augmentation)
    return judging.evaluation(count, told)


class _Judging:
    """All meters of one evaluation."""

    def __init__(self, spec: OutputSpec, views: Views, compares: bool) -> None:
        self._spec = spec
        self._meter = _task_meter(spec)
        self._by_scale = {scale: _task_meter(spec) for scale in views.by_scale}
        self._signal = SqnrMeter()
        self._information = InformationMeter(spec.task)
        self._reference = InformationMeter(spec.task) if compares else None

    def add(self, sample: Sample, answers: Answers, reference: Answers | None) -> None:
        self._meter.judge(sample, answers.answer, reference.answer if reference else None)
        for scale, meter in self._by_scale.items():
            meter.judge(sample, answers.by_scale[scale], None)
        _note(self._information, answers)
        if reference is not None and self._reference is not None:
            self._signal.add(answers.outputs, reference.outputs)
            _note(self._reference, reference)

    def evaluation(self, count: int, augmentation: dict[str, Any]) -> Evaluation:
        found = self._meter.figures()
        parity, details = dict(found.parity), dict(found.details)
        ratios = self._signal.sqnr_db()
        if self._reference is not None and ratios and self._spec.head not in _ORDER_IS_NOISE:
            parity["sqnr_db"] = min(ratios.values())
            details["sqnr_db_by_output"] = ratios
        by_scale: dict[str, Figures] = {f"{s:g}": meter.accuracy() for s, meter in self._by_scale.items()}
        return Evaluation(
            samples=count,
            labelled=self._meter.labelled,
            accuracy=found.accuracy,
            parity=parity,
            per_class=found.per_class,
            information=self._information.verdict(self._reference, self._meter.truths),
            intervals=found.intervals,
            baseline_accuracy=found.baseline_accuracy,
            by_scale=by_scale,
            augmentation=augmentation,
            details=details,
        )


def _task_meter(spec: OutputSpec) -> Classifying | Detecting:
    return Classifying(spec) if spec.task == "classification" else Detecting(spec)


def _note(meter: InformationMeter, answers: Answers) -> None:
    if answers.is_finite:
        meter.add(answers.answer)
    else:
        meter.add_not_finite()


def _told(views: Views, augmentation: Augmentation) -> dict[str, Any]:
    merged = [views.views[index] for index in views.merged]
    return {
        "merge": augmentation.merge,
        "views": [
            {
                "scale": v.scale,
                "flipped": v.flipped,
                "height": v.input_spec.height,
                "width": v.input_spec.width,
            }
            for v in merged
        ],
    }
