"""Figures of a detector: COCO's over the labels, by size and per class; parity with its baseline.

Parity takes the baseline's sure detections as the truth: mAP over all of the model's, and F1 of the model's
own sure ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.evaluate.classifying import class_name
from boardwright.compiler.engine.evaluate.intervals import (
    corrected_percentiles,
    resample_weights,
    resampled_f1,
    resampled_map,
)
from boardwright.compiler.engine.evaluate.record import Figures, TaskFigures
from boardwright.compiler.engine.quality import CONFIDENT
from boardwright.model import (
    Classification,
    ClassScores,
    DetectionMeter,
    Detections,
    DetectionScores,
    ModelError,
    OutputSpec,
)

if TYPE_CHECKING:
    import numpy as np

    from boardwright.compiler.engine.evaluate.samples import Sample

    Array = np.ndarray[Any, Any]
    Answer = Classification | Detections

_SAME_OBJECT = 0.5


class Detecting:
    """A model's detections beside the labels and beside its baseline's."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._meter = DetectionMeter()
        self._baseline = DetectionMeter()
        self._against_baseline = DetectionMeter()
        self._counts: list[tuple[int, int, int]] = []

    @property
    def labelled(self) -> int:
        """How many images had labels, an empty list of boxes among them."""
        return self._meter.images

    @property
    def truths(self) -> int:
        """How many objects the labels name."""
        return self._meter.truths

    def judge(self, sample: Sample, answer: Answer, reference: Answer | None) -> None:
        """Add the detections in an image, and the baseline's.

        Raises:
            ModelError: LABELS_DO_NOT_FIT.
        """
        if sample.class_index is not None and sample.boxes is None:
            raise ModelError("LABELS_DO_NOT_FIT", "it is labelled with a class, and the model is a detector")
        if not isinstance(answer, Detections):
            return
        truths = self._truths(sample)
        if truths is not None:
            self._meter.update(answer, *truths)
        if not isinstance(reference, Detections):
            return
        if truths is not None:
            self._baseline.update(reference, *truths)
        sure = reference.scores >= CONFIDENT
        self._against_baseline.update(answer, reference.boxes[sure], reference.classes[sure])
        self._counts.append(_agreement(answer, reference))

    def _truths(self, sample: Sample) -> tuple[Array, Array, Array, Array | None] | None:
        """(boxes, classes, crowd, areas) of a labelled sample."""
        import numpy as np

        if sample.boxes is None or sample.classes is None:
            return None
        boxes, classes = np.asarray(sample.boxes, np.float64).reshape(-1, 4), np.asarray(sample.classes)
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < self._spec.num_classes:
            wrong = int(classes.min()) if int(classes.min()) < 0 else int(classes.max())
            raise ModelError(
                "LABELS_DO_NOT_FIT",
                f"it has class {wrong}, and the model knows 0 to {self._spec.num_classes - 1}",
            )
        if len(boxes) != len(classes) or not np.isfinite(boxes).all():
            raise ModelError(
                "LABELS_DO_NOT_FIT",
                f"it has {len(boxes)} boxes with {len(classes)} classes, or a corner that is not finite",
            )
        crowd = np.zeros(len(boxes), np.bool_)
        areas = sample.areas
        if sample.crowd_boxes is not None and sample.crowd_classes is not None and len(sample.crowd_boxes):
            groups = np.asarray(sample.crowd_boxes, np.float64).reshape(-1, 4)
            boxes = np.concatenate([boxes, groups])
            classes = np.concatenate([classes, np.asarray(sample.crowd_classes)])
            crowd = np.concatenate([crowd, np.ones(len(groups), np.bool_)])
            if areas is not None:
                areas = np.concatenate([areas, (groups[:, 2:] - groups[:, :2]).prod(axis=1)])
        return boxes, classes, crowd, areas

    def accuracy(self) -> Figures:
        """Mean average precisions; nothing without labels."""
        return _accuracy(self._meter.scores()) if self.labelled else {}

    def figures(self) -> TaskFigures:
        """Everything at the end."""
        scores = self._meter.scores()
        accuracy = _accuracy(scores) if self.labelled else {}
        parity: Figures = {}
        intervals = {}
        baseline: Figures = {}
        if self._counts:
            import numpy as np

            against = self._against_baseline.scores()
            counts = np.array(self._counts)
            hits, extra, missed = counts.sum(axis=0).tolist()
            parity = {
                "map50_against_baseline": against.map50 / 100,
                "map50_95_against_baseline": against.map50_95 / 100,
                # Where neither sees anything, they agree.
                "f1_against_baseline": 2 * hits / (2 * hits + extra + missed)
                if extra + missed + hits
                else 1.0,
            }
            if hits + extra + missed:
                intervals["f1_against_baseline"] = resampled_f1(counts)
        if self._counts and self.labelled and self.truths:
            baseline = _accuracy(self._baseline.scores())
            parity["map50_95_difference"] = accuracy["map50_95"] - baseline["map50_95"]
            weights = resample_weights(self.labelled)
            ours = resampled_map(self._meter.curves(), weights)
            theirs = resampled_map(self._baseline.curves(), weights)
            intervals["map50_95"] = corrected_percentiles(ours, accuracy["map50_95"])
            intervals["map50_95_difference"] = corrected_percentiles(
                ours - theirs, parity["map50_95_difference"]
            )
        per_class = {
            class_name(self._spec, index): _of_class(entry) for index, entry in scores.classes.items()
        }
        details = {"detections": self._meter.detections, "objects": self.truths} if self.labelled else {}
        return TaskFigures(accuracy, parity, per_class, intervals, baseline, details)


def _accuracy(scores: DetectionScores) -> Figures:
    figures = {"map50": scores.map50 / 100, "map50_95": scores.map50_95 / 100, "map75": scores.map75 / 100}
    figures |= {f"map50_95_{size}": v / 100 for size, v in scores.by_size.items() if v is not None}
    return figures | {f"recall_{limit}": value / 100 for limit, value in scores.recall.items()}


def _of_class(entry: ClassScores) -> Figures:
    figures = {
        "map50": entry.map50 / 100,
        "map50_95": entry.map50_95 / 100,
        "recall": entry.recall / 100,
        "objects": float(entry.truths),
        "detections": float(entry.detections),
    }
    return figures | {f"map50_95_{size}": v / 100 for size, v in entry.by_size.items() if v is not None}


def _agreement(answer: Detections, reference: Detections) -> tuple[int, int, int]:
    """Sure detections of both models that are the same object; only ours; only the baseline's."""
    import numpy as np

    from boardwright.model.boxes import iou_matrix

    ours = np.flatnonzero(answer.scores >= CONFIDENT)
    theirs = np.flatnonzero(reference.scores >= CONFIDENT)
    ours = ours[np.argsort(-answer.scores[ours], kind="stable")]
    if not len(ours) or not len(theirs):
        return 0, len(ours), len(theirs)
    overlaps = iou_matrix(answer.boxes[ours].astype(np.float64), reference.boxes[theirs].astype(np.float64))
    overlaps[answer.classes[ours][:, np.newaxis] != reference.classes[theirs]] = 0.0
    hits = 0
    for row in overlaps:
        best = int(row.argmax())
        if row[best] >= _SAME_OBJECT:
            hits += 1
            overlaps[:, best] = 0.0
    return hits, len(ours) - hits, len(theirs) - hits
