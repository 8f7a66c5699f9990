"""Pass ``evaluate``: quality on labelled samples, and parity with the FP32 baseline as a figure of its own.

Accuracy says how good a model is; parity says how far it is from the model it was made of. A model may
keep its accuracy while it answers differently, and only parity tells. All figures are fractions of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.quality import InformationMeter, Verdict
from boardwright.model import (
    Classification,
    ClassificationMeter,
    DetectionMeter,
    Detections,
    InputSpec,
    ModelError,
    OutputSpec,
    Placement,
    decode,
    preprocess,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """An image with what is known of it.

    ``image`` is (H, W, C) uint8 or a Pillow image. ``class_index`` labels a classification sample. ``boxes``
    (M, 4) xyxy in pixels of the image with ``classes`` (M,) label a detection sample; M may be 0. None
    where there is no label.
    """

    name: str
    image: Any
    class_index: int | None = None
    boxes: Array | None = None
    classes: Array | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by name. ``accuracy`` is empty without labels, ``parity`` without a baseline."""

    samples: int
    labelled: int
    accuracy: dict[str, float] = field(default_factory=dict)
    parity: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    information: Verdict = field(default_factory=Verdict)

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "samples": self.samples,
            "labelled": self.labelled,
            "accuracy": self.accuracy,
            "parity": self.parity,
            "per_class": self.per_class,
            "information": self.information.describe(),
        }


class Runner:
    """A model as a function from an image to its decoded answer."""

    def __init__(
        self, model: onnx.ModelProto, input_spec: InputSpec, output_spec: OutputSpec, *, threads: int = 0
    ) -> None:
        self.input_spec = input_spec
        self.output_spec = output_spec.for_evaluation()
        self._session = open_session(model, threads=threads)
        self._names = [value.name for value in self._session.get_outputs()]
        axis = next(v.shape[0] for v in self._session.get_inputs() if v.name == input_spec.name)
        self._batch = axis if isinstance(axis, int) else 1

    def prepare(self, image: Any) -> tuple[Array, Placement]:
        """Return the tensor of one image, repeated to the graph's batch, and where the image lies in it."""
        import numpy as np

        tensor, placement = preprocess(image, self.input_spec)
        return (np.repeat(tensor, self._batch, axis=0) if self._batch > 1 else tensor), placement

    def run(self, tensor: Array) -> dict[str, Array]:
        """Return the graph's outputs for a prepared tensor, first of the batch only."""
        outputs = self._session.run(None, {self.input_spec.name: tensor})
        return {name: out[:1] for name, out in zip(self._names, outputs, strict=True)}

    def read(self, outputs: dict[str, Array], placement: Placement) -> Classification | Detections:
        """Decode outputs that ``run`` gave."""
        return decode(outputs, self.output_spec, placement, self.input_spec)

    def raw(self, outputs: dict[str, Array]) -> Array:
        """Return the one output that the OutputSpec speaks of."""
        return outputs[self.output_spec.name or self._names[0]]


def evaluate(
    model: onnx.ModelProto,
    samples: Iterable[Sample],
    input_spec: InputSpec,
    output_spec: OutputSpec,
    *,
    baseline: onnx.ModelProto | None = None,
    threads: int = 0,
    on_sample: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Judge ``model`` on ``samples``, and beside ``baseline`` where one is given.

    Samples are read once, one at a time, so that their number does not matter for memory.

    Raises:
        DatasetUnfit: EVALUATION_EMPTY without samples; LABELS_DO_NOT_FIT when labels are of another task or
            beyond the classes of the OutputSpec.
    """
    runner = Runner(model, input_spec, output_spec, threads=threads)
    other = Runner(baseline, input_spec, output_spec, threads=threads) if baseline is not None else None
    meter: _Classifying | _Detecting
    meter = _Classifying(output_spec) if output_spec.task == "classification" else _Detecting(output_spec)
    information = InformationMeter(output_spec.task)
    reference_information = InformationMeter(output_spec.task)
    count = 0
    for sample in samples:
        try:
            tensor, placement = runner.prepare(sample.image)
            outputs = runner.run(tensor)
            answer = runner.read(outputs, placement)
            meter.judge(sample, answer)
            information.add(answer)
            if other is not None:
                reference_outputs = other.run(tensor)
                reference = other.read(reference_outputs, placement)
                meter.compare(answer, reference)
                meter.add_signal(runner.raw(outputs), other.raw(reference_outputs))
                reference_information.add(reference)
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
    return Evaluation(
        samples=count,
        labelled=meter.labelled,
        accuracy=meter.accuracy(),
        parity=meter.parity() if other is not None else {},
        per_class=meter.per_class(),
        information=information.verdict(reference_information if other is not None else None),
    )


class _Parity:
    """Signal and noise of a model's raw outputs against its baseline's."""

    def __init__(self) -> None:
        self._signal = 0.0
        self._noise = 0.0

    def add_signal(self, ours: Array, theirs: Array) -> None:
        """Add the raw outputs of one sample."""
        import numpy as np

        reference = theirs.astype(np.float64)
        self._signal += float(np.square(reference).sum())
        self._noise += float(np.square(ours.astype(np.float64) - reference).sum())

    def sqnr_db(self) -> float:
        """Signal to quantization noise in decibels, at most 120 (equal outputs)."""
        import math

        if self._noise <= 0 or self._signal <= 0:
            return 120.0 if self._noise <= 0 else 0.0
        return min(120.0, 10 * math.log10(self._signal / self._noise))


class _Classifying(_Parity):
    def __init__(self, spec: OutputSpec) -> None:
        super().__init__()
        self._spec = spec
        self._meter = ClassificationMeter(spec.num_classes)
        self._agreed = self._compared = 0

    @property
    def labelled(self) -> int:
        return self._meter.count

    def judge(self, sample: Sample, answer: Classification | Detections) -> None:
        import numpy as np

        if sample.boxes is not None:
            raise ModelError("LABELS_DO_NOT_FIT", "it is labelled with boxes, and the model is a classifier")
        if sample.class_index is None or not isinstance(answer, Classification):
            return
        self._meter.update(answer.scores[np.newaxis], np.array([sample.class_index]))

    def compare(self, answer: Classification | Detections, reference: Classification | Detections) -> None:
        if isinstance(answer, Classification) and isinstance(reference, Classification):
            self._compared += 1
            self._agreed += int(answer.top(1)[0] == reference.top(1)[0])

    def accuracy(self) -> dict[str, float]:
        if not self.labelled:
            return {}
        return {"top1": self._meter.top1 / 100, "top5": self._meter.top5 / 100}

    def parity(self) -> dict[str, float]:
        return {"top1_agreement": self._agreed / self._compared, "sqnr_db": self.sqnr_db()}

    def per_class(self) -> dict[str, dict[str, float]]:
        return {
            self._spec.label(index): {"top1": float(hits / total), "samples": float(total)}
            for index, (hits, total) in enumerate(self._meter.per_class)
            if total
        }


class _Detecting(_Parity):
    """mAP against the labels; parity is the mAP with the baseline's confident answers as the truth."""

    _CONFIDENT = 0.25

    def __init__(self, spec: OutputSpec) -> None:
        super().__init__()
        self._spec = spec
        self._meter = DetectionMeter()
        self._against_baseline = DetectionMeter()
        self.labelled = 0

    def judge(self, sample: Sample, answer: Classification | Detections) -> None:
        if sample.class_index is not None and sample.boxes is None:
            raise ModelError("LABELS_DO_NOT_FIT", "it is labelled with a class, and the model is a detector")
        if sample.boxes is None or sample.classes is None or not isinstance(answer, Detections):
            return
        if len(sample.classes) and int(sample.classes.max()) >= self._spec.num_classes:
            raise ModelError(
                "LABELS_DO_NOT_FIT",
                f"it has class {int(sample.classes.max())}, and the model knows 0 to "
                f"{self._spec.num_classes - 1}",
            )
        self._meter.update(answer, sample.boxes, sample.classes)
        self.labelled += 1

    def compare(self, answer: Classification | Detections, reference: Classification | Detections) -> None:
        if isinstance(answer, Detections) and isinstance(reference, Detections):
            sure = reference.scores >= self._CONFIDENT
            self._against_baseline.update(answer, reference.boxes[sure], reference.classes[sure])

    def accuracy(self) -> dict[str, float]:
        if not self.labelled:
            return {}
        scores = self._meter.scores()
        return {"map50": scores.map50 / 100, "map50_95": scores.map50_95 / 100}

    def parity(self) -> dict[str, float]:
        scores = self._against_baseline.scores()
        figures = {
            "map50_against_baseline": scores.map50 / 100,
            "map50_95_against_baseline": scores.map50_95 / 100,
        }
        if self._spec.head != "yolo-end2end":  # its rows are sorted by score: a swap is no noise
            figures["sqnr_db"] = self.sqnr_db()
        return figures

    def per_class(self) -> dict[str, dict[str, float]]:
        if not self.labelled:
            return {}
        return {
            self._spec.label(index): {"map50": figures[0] / 100, "map50_95": figures[1] / 100}
            for index, figures in self._meter.scores().per_class.items()
        }


def label_note(evaluation: Evaluation) -> str:
    """Return a sentence when samples had no label, so that nobody takes a missing figure for a good one."""
    if evaluation.labelled == evaluation.samples:
        return ""
    if evaluation.labelled:
        return (
            f"Accuracy is over the {evaluation.labelled} of {evaluation.samples} samples that have a label."
        )
    beside = "only parity with the baseline is" if evaluation.parity else "nothing is"
    return f"None of the {evaluation.samples} samples has a label: accuracy is not measured, {beside}."
