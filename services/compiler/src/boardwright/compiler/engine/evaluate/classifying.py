"""Figures of a classifier: top-1, top-5, per class, confusion; agreement with the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.evaluate.intervals import mcnemar, paired_difference, wilson
from boardwright.compiler.engine.evaluate.record import Figures, TaskFigures
from boardwright.model import Classification, ClassificationMeter, Detections, ModelError, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from boardwright.compiler.engine.evaluate.samples import Sample

    Array = np.ndarray[Any, Any]
    Answer = Classification | Detections

_FIVE = 5
"""Classes up to which the five best are all of them, and top-5 tells nothing."""


class Classifying:
    """Counts of one model's answers, and of pairs with its baseline's."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._meter = ClassificationMeter(spec.num_classes)
        self._baseline = ClassificationMeter(spec.num_classes)
        self._agreed = self._compared = 0
        self._pairs = {(ours, theirs): 0 for ours in (True, False) for theirs in (True, False)}

    @property
    def labelled(self) -> int:
        """How many samples had a label."""
        return self._meter.count

    @property
    def truths(self) -> int:
        """How many objects the labels name; a class is none."""
        return 0

    def judge(self, sample: Sample, answer: Answer, reference: Answer | None) -> None:
        """Count an answer, and the baseline's to the same image.

        Raises:
            ModelError: LABELS_DO_NOT_FIT.
        """
        import numpy as np

        if sample.boxes is not None:
            raise ModelError("LABELS_DO_NOT_FIT", "it is labelled with boxes, and the model is a classifier")
        if not isinstance(answer, Classification):
            return
        label = None if sample.class_index is None else np.array([sample.class_index])
        if label is not None:
            self._meter.update(answer.scores[np.newaxis], label)
        if not isinstance(reference, Classification):
            return
        ours, theirs = _best(answer), _best(reference)
        self._compared += 1
        self._agreed += ours == theirs and ours >= 0
        if label is not None:
            self._baseline.update(reference.scores[np.newaxis], label)
            self._pairs[ours == int(label[0]), theirs == int(label[0])] += 1

    def accuracy(self) -> Figures:
        """Top-1, and top-5 where there are more classes than five; nothing without labels."""
        return _accuracy(self._meter)

    def figures(self) -> TaskFigures:
        """Everything at the end."""
        accuracy = self.accuracy()
        parity: Figures = {}
        intervals = {}
        if accuracy:
            intervals["top1"] = wilson(self._meter.hits1, self.labelled)
            if "top5" in accuracy:
                intervals["top5"] = wilson(self._meter.hits5, self.labelled)
        if self._compared:
            parity["top1_agreement"] = self._agreed / self._compared
            intervals["top1_agreement"] = wilson(self._agreed, self._compared)
        if self._compared and accuracy:
            both, ours = self._pairs[True, True], self._pairs[True, False]
            theirs, neither = self._pairs[False, True], self._pairs[False, False]
            parity["top1_difference"] = (ours - theirs) / self._baseline.count
            parity["mcnemar_p"] = mcnemar(ours, theirs)
            intervals["top1_difference"] = paired_difference(both, ours, theirs, neither)
        details = {"confusion": [list(triple) for triple in self._meter.triples()]} if accuracy else {}
        return TaskFigures(accuracy, parity, self._per_class(), intervals, _accuracy(self._baseline), details)

    def _per_class(self) -> dict[str, Figures]:
        answered = self._meter.answered()
        found = {}
        for index, (hits, total) in enumerate(self._meter.per_class.tolist()):
            if total:
                figures = {"top1": hits / total, "samples": float(total)}
                if answered[index]:
                    figures["precision"] = hits / int(answered[index])
                found[class_name(self._spec, index)] = figures
        return found


def class_name(spec: OutputSpec, index: int) -> str:
    """The label of a class, with its number where another class has the same."""
    label = spec.label(index)
    return f"{label} ({index})" if spec.labels.count(label) > 1 else label


def _accuracy(meter: ClassificationMeter) -> Figures:
    if not meter.count:
        return {}
    five = {"top5": meter.top5 / 100} if meter.num_classes > _FIVE else {}
    return {"top1": meter.top1 / 100, **five}


def _best(answer: Classification) -> int:
    """The best class; -1 where a score is no number, which agrees with nothing."""
    import numpy as np

    return -1 if np.isnan(answer.scores).any() else int(answer.scores.argmax())
