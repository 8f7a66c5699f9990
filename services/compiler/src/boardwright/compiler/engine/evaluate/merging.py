"""Several answers to one image into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from boardwright.model import Classification, Detections, OutputSpec

if TYPE_CHECKING:
    import numpy as np

    from boardwright.compiler.engine.evaluate.views import Merge

    Array = np.ndarray[Any, Any]

_FUSED_OVERLAP = 0.55
"""The paper's own threshold."""


def merge(
    answers: Sequence[Classification | Detections], spec: OutputSpec, how: Merge
) -> Classification | Detections:
    """Average probabilities; suppress or fuse boxes. One answer stays as it is."""
    import numpy as np

    if len(answers) == 1:
        return answers[0]
    detections = [answer for answer in answers if isinstance(answer, Detections)]
    if not detections:
        stacked = np.stack([answer.scores for answer in answers if isinstance(answer, Classification)])
        return Classification(stacked.mean(axis=0, dtype=np.float64).astype(np.float32))
    if how == "weighted":
        return fuse(detections, spec.max_detections)
    from boardwright.model.boxes import suppress

    boxes = np.concatenate([found.boxes for found in detections])
    scores = np.concatenate([found.scores for found in detections])
    classes = np.concatenate([found.classes for found in detections])
    kept = suppress(boxes, scores, classes, spec.iou_threshold, spec.max_detections)
    return Detections(boxes[kept], scores[kept], classes[kept])


def fuse(answers: Sequence[Detections], limit: int) -> Detections:
    """Weighted boxes fusion (Solovyev, Wang, Gabruseva, 2019).

    Boxes of a class that overlap become one, at the mean of their corners weighted by score. Its score is
    their mean, lowered in the proportion of the views that did not see it.
    """
    import numpy as np

    boxes = np.concatenate([found.boxes for found in answers]).astype(np.float64)
    scores = np.concatenate([found.scores for found in answers]).astype(np.float64)
    classes = np.concatenate([found.classes for found in answers])
    fused: list[tuple[Array, float, int]] = []
    for index in np.unique(classes):
        mine = np.flatnonzero(classes == index)
        mine = mine[np.argsort(-scores[mine], kind="stable")]
        for box, total, count in _clusters(boxes[mine], scores[mine]):
            score = total / count * min(count, len(answers)) / len(answers)
            fused.append((box, score, int(index)))
    order = sorted(range(len(fused)), key=lambda position: -fused[position][1])[:limit]
    return Detections(
        np.array([fused[position][0] for position in order], np.float32).reshape(-1, 4),
        np.array([fused[position][1] for position in order], np.float32),
        np.array([fused[position][2] for position in order], np.intp),
    )


def _clusters(boxes: Array, scores: Array) -> list[tuple[Array, float, int]]:
    """Boxes of one class by falling score to (fused box, sum of scores, number) of each cluster."""
    import numpy as np

    centres, areas = np.zeros((len(boxes), 4)), np.zeros(len(boxes))
    weights, counts, used = np.zeros(len(boxes)), np.zeros(len(boxes), np.int64), 0
    for box, score in zip(boxes, scores, strict=True):
        area = max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
        near = -1
        if used:
            known = centres[:used]
            inner = np.minimum(box[2:], known[:, 2:]) - np.maximum(box[:2], known[:, :2])
            inner = np.clip(inner, 0, None).prod(axis=1)
            ratio = inner / np.maximum(area + areas[:used] - inner, 1e-12)
            near = int(ratio.argmax()) if ratio.max() > _FUSED_OVERLAP else -1
        if near < 0:
            near, used = used, used + 1
        total = weights[near] + score
        if total > 0:
            centres[near] += (box - centres[near]) * (score / total)
        areas[near] = np.clip(centres[near, 2:] - centres[near, :2], 0, None).prod()
        weights[near], counts[near] = total, counts[near] + 1
    return [(centres[n], float(weights[n]), int(counts[n])) for n in range(used)]
