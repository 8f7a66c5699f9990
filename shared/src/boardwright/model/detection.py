"""Mean average precision by COCO's rules, in NumPy.

The algorithm is pycocotools' ``COCOeval`` for boxes over all areas with at most 100 detections per image and
class: detections matched greedily by falling score to the unmatched truth of highest overlap, precision made
monotonic, then sampled at 101 recalls. The tests hold it to the original's figures.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.model.boxes import iou_matrix
from boardwright.model.decoding import Detections

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """``map50`` and ``map50_95`` in percent over the classes that occur, and by class index."""

    map50: float
    map50_95: float
    images: int
    truths: int
    per_class: dict[int, tuple[float, float]]


@dataclass(slots=True)
class _ClassRecord:
    truths: int = 0
    scores: list[npt.NDArray[np.float64]] = field(default_factory=list)
    matched: list[npt.NDArray[np.bool_]] = field(default_factory=list)


class DetectionMeter:
    """Collects detections image by image and scores them at the end.

    It keeps a score and ten bits per detection, not the boxes.
    """

    def __init__(self, iou_thresholds: npt.NDArray[Any] = IOU_THRESHOLDS) -> None:
        self._thresholds = iou_thresholds
        self._records: defaultdict[int, _ClassRecord] = defaultdict(_ClassRecord)
        self._images = 0

    def update(
        self, detections: Detections, truth_boxes: npt.NDArray[Any], truth_classes: npt.NDArray[Any]
    ) -> None:
        """Add one image.

        Args:
            detections: what was found, in pixels of the image.
            truth_boxes: (M, 4) xyxy in the same pixels.
            truth_classes: (M,) class indices.
        """
        self._images += 1
        truth_boxes = np.asarray(truth_boxes, np.float64).reshape(-1, 4)
        truth_classes = np.asarray(truth_classes).reshape(-1)
        for index in np.union1d(detections.classes, truth_classes):
            truths = truth_boxes[truth_classes == index]
            mine = np.flatnonzero(detections.classes == index)
            order = mine[np.argsort(-detections.scores[mine], kind="stable")][:MAX_DETECTIONS]
            record = self._records[int(index)]
            record.truths += len(truths)
            record.scores.append(detections.scores[order].astype(np.float64))
            record.matched.append(self._match(detections.boxes[order].astype(np.float64), truths))

    def _match(self, found: npt.NDArray[Any], truths: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """(T, D): whether detection d has a truth of its own at threshold t."""
        matched = np.zeros((len(self._thresholds), len(found)), np.bool_)
        if not len(found) or not len(truths):
            return matched
        overlaps = iou_matrix(found, truths)
        for row, threshold in enumerate(self._thresholds):
            free = np.ones(len(truths), np.bool_)
            for index in range(len(found)):
                candidates = np.where(free, overlaps[index], -1.0)
                # COCOeval takes the last of equally good truths.
                best = len(candidates) - 1 - int(candidates[::-1].argmax())
                if candidates[best] >= min(threshold, 1 - 1e-10):
                    matched[row, index] = True
                    free[best] = False
        return matched

    def scores(self) -> DetectionScores:
        """The figures over everything added so far; 0 where no class has a truth."""
        per_class: dict[int, tuple[float, float]] = {}
        for index, record in sorted(self._records.items()):
            if record.truths:
                precisions = self._average_precision(record)
                per_class[index] = (100 * float(precisions[0]), 100 * float(precisions.mean()))
        figures = np.array(list(per_class.values()), np.float64).reshape(-1, 2)
        means = figures.mean(axis=0) if len(figures) else np.zeros(2)
        return DetectionScores(
            map50=float(means[0]),
            map50_95=float(means[1]),
            images=self._images,
            truths=sum(record.truths for record in self._records.values()),
            per_class=per_class,
        )

    def _average_precision(self, record: _ClassRecord) -> npt.NDArray[np.float64]:
        """(T,) average precision per threshold."""
        scores = np.concatenate(record.scores)
        matched = np.concatenate(record.matched, axis=1)[:, np.argsort(-scores, kind="stable")]
        averages = np.zeros(len(self._thresholds))
        for row, hits in enumerate(matched):
            true_positives = np.cumsum(hits)
            precision = true_positives / np.arange(1, len(hits) + 1)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            positions = np.searchsorted(true_positives / record.truths, RECALLS, side="left")
            sampled = np.where(
                positions < len(precision),
                np.append(precision, 0.0)[np.minimum(positions, len(precision))],
                0.0,
            )
            averages[row] = sampled.mean()
        return averages
