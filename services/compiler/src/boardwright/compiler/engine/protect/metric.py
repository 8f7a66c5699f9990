"""The task metric that budgets speak of: against labels where there are some, else FP32's own answers.

Pseudo labels are what the FP32 model decodes to: its class, or its detections of at least 0.25. A drop
against them is a loss of agreement, not of accuracy, and is called that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.quality import CONFIDENT
from boardwright.model import Classification, InputSpec, OutputSpec

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.evaluate import Sample

_POINTS = 100.0


class TaskMetric:
    """Points (0 to 100) of models on the same samples: mAP50-95 of a detector, top-1 of a classifier.

    ``samples`` is called once per model and gives the same samples each time. ``labelled`` says whether their
    own labels are used; all of them must have one, else FP32's answers are used for all.
    """

    def __init__(
        self,
        baseline: onnx.ModelProto,
        samples: Callable[[], Iterable[Sample]],
        input_spec: InputSpec,
        output_spec: OutputSpec,
        *,
        threads: int = 0,
    ) -> None:
        self._samples = samples
        self._specs = input_spec, output_spec
        self._threads = threads
        self._baseline = baseline
        self.labelled = all(_has_label(sample) for sample in samples())
        self._answers = [] if self.labelled else list(self._answer())
        self.reference = self.measure(baseline)

    @property
    def name(self) -> str:
        """Return the metric's name, and what it compares with."""
        figure = "top-1" if self._specs[1].task == "classification" else "mAP50-95"
        return figure if self.labelled else f"{figure} against FP32's own answers"

    def measure(self, model: onnx.ModelProto) -> float:
        """Return a model's points.

        Raises:
            DatasetUnfit: EVALUATION_EMPTY, LABELS_DO_NOT_FIT.
        """
        from boardwright.compiler.engine.evaluate import evaluate

        found = evaluate(model, self._given(), *self._specs, threads=self._threads)
        key = "top1" if self._specs[1].task == "classification" else "map50_95"
        if key not in found.accuracy:
            raise DatasetUnfit(
                "METRIC_UNKNOWN",
                f"The samples give no {key}: give a budget in latency alone, or samples of the model's task.",
            )
        return _POINTS * found.accuracy[key]

    def drop(self, model: onnx.ModelProto) -> float:
        """Return how many points a model loses against FP32; negative where it gains."""
        return self.reference - self.measure(model)

    def _given(self) -> Iterator[Sample]:
        if self.labelled:
            yield from self._samples()
            return
        for sample, answer in zip(self._samples(), self._answers, strict=True):
            yield replace(sample, class_index=answer.class_index, boxes=answer.boxes, classes=answer.classes)

    def _answer(self) -> Iterator[Sample]:
        """Yield, without the images, what the FP32 model says of each sample."""
        from boardwright.compiler.engine.evaluate import Runner, Sample

        runner = Runner(self._baseline, *self._specs, threads=self._threads)
        for sample in self._samples():
            tensor, placement = runner.prepare(sample.image)
            answer = runner.read(runner.run(tensor), placement)
            if isinstance(answer, Classification):
                yield Sample(sample.name, None, class_index=int(answer.top(1)[0]))
                continue
            sure = answer.scores >= CONFIDENT
            yield Sample(sample.name, None, boxes=answer.boxes[sure], classes=answer.classes[sure])


def _has_label(sample: Sample) -> bool:
    return sample.class_index is not None or sample.boxes is not None
