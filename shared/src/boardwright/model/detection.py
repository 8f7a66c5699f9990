"""Mean average precision by COCO's rules, in NumPy.

The algorithm is pycocotools' ``COCOeval`` for boxes: detections matched greedily by falling score to the
unmatched truth of highest overlap, precision made monotonic, then sampled at 101 recalls. Truths outside of a
range of areas, and crowds, count neither for nor against; a crowd may take many detections, and overlaps by
the share of the detection that lies in it. The tests hold all figures to the original's.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.model.boxes import iou_matrix
from boardwright.model.decoding import Detections

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = 100
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Ranges of an object's area in pixels of its image."""
RECALL_LIMITS = (1, 10, 100)

_ALL = 0  # the row of "all"; the sizes follow


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One class, in percent: average precisions, by size (None where no object has it), and mean recall."""

    map50: float
    map50_95: float
    by_size: dict[str, float | None]
    recall: float
    truths: int
    detections: int


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """Figures in percent over the classes that occur, and by class index.

    ``by_size`` is map50_95 of small, medium and large objects, None where there are none. ``recall`` is the
    mean with at most 1, 10, 100 detections per image and class.
    """

    map50: float
    map50_95: float
    images: int
    truths: int
    map75: float = 0.0
    by_size: dict[str, float | None] = field(default_factory=dict)
    recall: dict[int, float] = field(default_factory=dict)
    classes: dict[int, ClassScores] = field(default_factory=dict)


@dataclass(slots=True)
class _ClassRecord:
    truths: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(AREAS), np.int64))
    truth_images: list[int] = field(default_factory=list)
    images: list[npt.NDArray[np.int32]] = field(default_factory=list)
    ranks: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    scores: list[npt.NDArray[np.float32]] = field(default_factory=list)
    matched: list[npt.NDArray[np.uint16]] = field(default_factory=list)
    ignored: list[npt.NDArray[np.uint16]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class ClassCurve:
    """One class's detections over all areas by falling score: what a bootstrap over images needs.

    ``images`` (D,) of the detections, ``matched`` and ``counted`` (T, D); ``truth_images`` (M,).
    """

    images: npt.NDArray[np.int32]
    matched: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    truth_images: npt.NDArray[np.int64]


class DetectionMeter:
    """Collects detections image by image and scores them at the end.

    It keeps 25 bytes per detection (score, image, rank; per range of areas a bit per threshold), no boxes.
    """

    def __init__(self) -> None:
        self._records: defaultdict[int, _ClassRecord] = defaultdict(_ClassRecord)
        self._images = 0
        self.detections = 0

    @property
    def images(self) -> int:
        """How many images were added."""
        return self._images

    @property
    def truths(self) -> int:
        """How many objects count."""
        return int(sum(record.truths[_ALL] for record in self._records.values()))

    def update(
        self,
        detections: Detections,
        truth_boxes: npt.NDArray[Any],
        truth_classes: npt.NDArray[Any],
        crowd: npt.NDArray[Any] | None = None,
        truth_areas: npt.NDArray[Any] | None = None,
    ) -> None:
        """Add one image.

        Args:
            detections: what was found, in pixels of the image.
            truth_boxes: (M, 4) xyxy in the same pixels.
            truth_classes: (M,) class indices.
            crowd: (M,) bool, whether a box is a group that counts neither for nor against.
            truth_areas: (M,) of the objects (COCO's is their mask's); None takes the boxes'.
        """
        truth_boxes = np.asarray(truth_boxes, np.float64).reshape(-1, 4)
        truth_classes = np.asarray(truth_classes).reshape(-1)
        crowd = np.zeros(len(truth_boxes), np.bool_) if crowd is None else np.asarray(crowd, np.bool_)
        if truth_areas is None:
            truth_areas = (truth_boxes[:, 2:] - truth_boxes[:, :2]).prod(axis=1)
        truth_areas = np.asarray(truth_areas, np.float64)
        image, self._images = self._images, self._images + 1
        self.detections += len(detections)
        order = np.lexsort((-detections.scores, detections.classes))
        classes = detections.classes[order]
        present = np.unique(np.concatenate([classes, truth_classes]))
        first = np.searchsorted(classes, present, side="left")
        last = np.searchsorted(classes, present, side="right")
        for index, start, end in zip(present, first, np.minimum(last, first + MAX_DETECTIONS), strict=True):
            mine = order[start:end]
            theirs = np.flatnonzero(truth_classes == index)
            self._add(
                self._records[int(index)], image, detections.boxes[mine].astype(np.float64),
                detections.scores[mine], truth_boxes[theirs], truth_areas[theirs], crowd[theirs],
            )  # fmt: skip

    def _add(
        self, record: _ClassRecord, image: int, found: npt.NDArray[Any], scores: npt.NDArray[Any],
        truths: npt.NDArray[Any], areas: npt.NDArray[Any], crowd: npt.NDArray[Any],
    ) -> None:  # fmt: skip
        uncounted = np.stack([crowd | (areas < low) | (areas > high) for low, high in AREAS.values()])
        record.truths += (~uncounted).sum(axis=1)
        record.truth_images.extend([image] * int((~uncounted[_ALL]).sum()))
        if not len(found):
            return
        matched, ignored = self._match(found, truths, uncounted, crowd)
        extent = (found[:, 2:] - found[:, :2]).prod(axis=1)
        for row, (low, high) in enumerate(AREAS.values()):
            outside = (extent < low) | (extent > high)
            ignored[row] |= ~matched[row] & outside
        record.images.append(np.full(len(found), image, np.int32))
        record.ranks.append(np.arange(len(found), dtype=np.uint8))
        record.scores.append(np.asarray(scores, np.float32))
        record.matched.append(_packed(matched))
        record.ignored.append(_packed(ignored))

    def _match(
        self, found: npt.NDArray[Any], truths: npt.NDArray[Any], uncounted: npt.NDArray[np.bool_],
        crowd: npt.NDArray[np.bool_],
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:  # fmt: skip
        """(A, T, D): whether detection d takes a truth at threshold t, and whether that is one to ignore."""
        shape = (len(AREAS), len(IOU_THRESHOLDS), len(found))
        matched, ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        if not len(truths):
            return matched, ignored
        overlaps = iou_matrix(found, truths)
        if crowd.any():
            overlaps[:, crowd] = _share_inside(found, truths[crowd])
        limits = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
        taken = np.zeros((*shape[:2], len(truths)), np.bool_)
        unlike = uncounted[:, np.newaxis, :]
        last = len(truths) - 1
        for index in np.flatnonzero(overlaps.max(axis=1) >= limits.min()):
            row = overlaps[index]
            near = (row >= limits[:, np.newaxis])[np.newaxis] & (~taken | crowd)
            # A truth that counts goes before one that does not, whatever their overlaps.
            value = np.where(near, row + np.where(unlike, 0.0, 2.0), -1.0)
            best = last - value[:, :, ::-1].argmax(axis=2)  # COCOeval takes the last of equally good truths
            hit = np.take_along_axis(value, best[:, :, np.newaxis], axis=2)[:, :, 0] >= 0
            area, threshold = np.nonzero(hit)
            chosen = best[area, threshold]
            matched[area, threshold, index] = True
            ignored[area, threshold, index] = uncounted[area, chosen]
            taken[area, threshold, chosen] = True
        return matched, ignored

    def scores(self) -> DetectionScores:
        """The figures over everything added so far; 0 where no class has a truth."""
        classes, recalls = {}, []
        precisions: list[npt.NDArray[np.float64]] = []
        for index, record in sorted(self._records.items()):
            if not record.truths.any():
                continue
            precision, recall, count = self._score(record)
            precisions.append(precision)
            recalls.append(recall)
            if record.truths[_ALL]:
                sizes = dict(zip(AREAS, _means(precision), strict=True))
                del sizes["all"]
                classes[index] = ClassScores(
                    map50=100 * float(precision[_ALL, 0]),
                    map50_95=100 * float(precision[_ALL].mean()),
                    by_size=sizes,
                    recall=100 * float(recall[-1]),
                    truths=int(record.truths[_ALL]),
                    detections=count,
                )
        stacked = np.array(precisions).reshape(-1, len(AREAS), len(IOU_THRESHOLDS))
        overall = [_mean(stacked[:, row]) for row in range(len(AREAS))]
        at75 = int(np.abs(IOU_THRESHOLDS - 0.75).argmin())
        means = np.array(recalls).reshape(-1, len(RECALL_LIMITS))
        return DetectionScores(
            map50=_mean(stacked[:, _ALL, 0]) or 0.0,
            map50_95=overall[_ALL] or 0.0,
            images=self._images,
            truths=self.truths,
            map75=_mean(stacked[:, _ALL, at75]) or 0.0,
            by_size=dict(zip(list(AREAS)[1:], overall[1:], strict=True)),
            recall={limit: _mean(means[:, row]) or 0.0 for row, limit in enumerate(RECALL_LIMITS)},
            classes=classes,
        )

    def _score(self, record: _ClassRecord) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
        """(A, T) average precisions (NaN where no truth counts), recall by limit, number of detections."""
        precision = np.full((len(AREAS), len(IOU_THRESHOLDS)), np.nan)
        recall = np.full(len(RECALL_LIMITS), np.nan)
        if not record.scores:
            precision[record.truths > 0] = 0.0
            recall[:] = 0.0 if record.truths[_ALL] else np.nan
            return precision, recall, 0
        scores = np.concatenate(record.scores)
        order = np.argsort(-scores, kind="stable")
        matched = np.concatenate(record.matched, axis=1)
        ignored = np.concatenate(record.ignored, axis=1)
        for area, truths in enumerate(record.truths):
            if not truths:
                continue
            for threshold in range(len(IOU_THRESHOLDS)):
                counted = (ignored[area, order] >> threshold & 1) == 0
                hits = (matched[area, order] >> threshold & 1)[counted]
                precision[area, threshold] = average_precision(hits, float(truths))
        if record.truths[_ALL]:
            ranks = np.concatenate(record.ranks)
            bits = np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)[:, np.newaxis]
            good = (matched[_ALL] & ~ignored[_ALL]) >> bits & 1
            for row, limit in enumerate(RECALL_LIMITS):
                recall[row] = (good[:, ranks < limit].sum(axis=1) / record.truths[_ALL]).mean()
        return precision, recall, len(scores)

    def curves(self) -> dict[int, ClassCurve]:
        """Each class with a truth, for a bootstrap over the images."""
        found = {}
        bits = np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)[:, np.newaxis]
        for index, record in sorted(self._records.items()):
            if not record.truths[_ALL]:
                continue
            joined = record.scores or [np.zeros(0, np.float32)]
            order = np.argsort(-np.concatenate(joined), kind="stable")
            empty = np.zeros((len(AREAS), 0), np.uint16)
            matched = np.concatenate(record.matched or [empty], axis=1)[_ALL, order]
            ignored = np.concatenate(record.ignored or [empty], axis=1)[_ALL, order]
            images = np.concatenate(record.images or [np.zeros(0, np.int32)])[order]
            found[index] = ClassCurve(
                images,
                (matched >> bits & 1).astype(np.bool_),
                (ignored >> bits & 1) == 0,
                np.array(record.truth_images, np.int64),
            )
        return found


def average_precision(hits: npt.NDArray[Any], truths: float) -> float:
    """Precision made monotonic and sampled at 101 recalls.

    Args:
        hits: (D,) whether each detection, by falling score, found a truth.
        truths: how many there are.
    """
    if not len(hits):
        return 0.0
    true_positives = np.cumsum(hits, dtype=np.float64)
    precision = true_positives / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    positions = np.searchsorted(true_positives / truths, RECALLS, side="left")
    # Summed over the samples that a curve reaches; the others are 0.
    return float(precision[positions[positions < len(precision)]].sum() / len(RECALLS))


def _share_inside(boxes: npt.NDArray[Any], crowds: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, M): how much of each box's area lies in each crowd."""
    top_left = np.maximum(boxes[:, np.newaxis, :2], crowds[np.newaxis, :, :2])
    bottom_right = np.minimum(boxes[:, np.newaxis, 2:], crowds[np.newaxis, :, 2:])
    inner = np.clip(bottom_right - top_left, 0, None).prod(axis=2)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)[:, np.newaxis]
    share: npt.NDArray[Any] = np.divide(inner, areas, out=np.zeros_like(inner), where=areas > 0)
    return share


def _packed(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """(A, T, D) of bool to (A, D) with threshold t at bit t."""
    weights = (1 << np.arange(bits.shape[1])).astype(np.uint16)
    packed: npt.NDArray[np.uint16] = np.einsum("atd,t->ad", bits.astype(np.uint16), weights)
    return packed


def _mean(values: npt.NDArray[Any]) -> float | None:
    """Percent; None where every value is NaN: nothing of the kind was there to be found."""
    known = values[~np.isnan(values)]
    return 100 * float(known.mean()) if len(known) else None


def _means(rows: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> list[float | None]:
    return [_mean(row) for row in rows]
