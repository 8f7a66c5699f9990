"""Detection heads with outputs of their own kind: one function per head, from arrays to raw detections.

Each takes one image's output arrays by name (without the batch axis, float32 where they are numbers of the
network), the OutputSpec and the tensor's (width, height), and gives boxes in pixels of the tensor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.model.boxes import xywh_to_xyxy
from boardwright.model.errors import ModelError
from boardwright.model.output_spec import OutputSpec
from boardwright.model.priors import cells, prior_boxes

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
Arrays = Mapping[str, npt.NDArray[Any]]
Size = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """What a head gives for one image, before thresholds and suppression.

    Attributes:
        scores: (N, C), or (N,) with ``classes``.
        boxes: (N, 4) xyxy in pixels of the tensor; or a function from the wanted rows (M,) to their (M, 4),
            where decoding all of them would be a waste.
        classes: (N,) class indices, where each row has one only.
        suppressed: the graph did non-maximum suppression itself, or needs none.
        one_class: report a row for its best class only, whatever the spec says.
    """

    scores: FloatArray
    boxes: FloatArray | Callable[[IndexArray], FloatArray]
    classes: IndexArray | None = None
    suppressed: bool = False
    one_class: bool = False

    def boxes_of(self, rows: IndexArray) -> FloatArray:
        """(M, 4) boxes of the wanted rows."""
        if callable(self.boxes):
            return self.boxes(rows)
        return self.boxes[rows]


Head = Callable[[Arrays, OutputSpec, Size | None], RawDetections]


def does_not_fit(what: str) -> ModelError:
    """The error for outputs that contradict their spec."""
    return ModelError("OUTPUTS_DO_NOT_FIT", f"the outputs do not fit the output spec: {what}")


def yolov5(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Boxes, objectness, class scores; most candidates have no object, and go before anything is computed."""
    matrix = _single(arrays, spec, spec.num_classes + 5)
    matrix = matrix[matrix[:, 4] > spec.score_threshold]
    boxes = matrix[:, :4]
    return RawDetections(matrix[:, 5:] * matrix[:, 4:5], lambda rows: to_corners(boxes[rows], spec, size))


def yolov8(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Boxes and class scores, either way round."""
    matrix = _single(arrays, spec, spec.num_classes + 4)
    return RawDetections(matrix[:, 4:], lambda rows: to_corners(matrix[rows, :4], spec, size))


def yolo_end_to_end(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Box, score, class: one row per detection."""
    row = next(iter(arrays.values()))
    if row.ndim != 2 or row.shape[1] != 6:
        raise does_not_fit(f"head yolo-end2end gives 6 values per detection, this one has shape {row.shape}")
    matrix = row.astype(np.float32, copy=False)
    boxes = to_corners(matrix[:, :4], spec, size)
    return RawDetections(matrix[:, 4], boxes, class_indices(matrix[:, 5]), suppressed=True)


def yolox(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Ge et al., YOLOX (2021): offsets within a cell and exponential sizes, in strides."""
    matrix = _single(arrays, spec, spec.num_classes + 5)
    corner, stride = cells(_known(size, spec), spec.strides)
    _check_count(len(matrix), len(corner), spec)
    kept = np.flatnonzero(matrix[:, 4] > spec.score_threshold)
    matrix, corner, stride = matrix[kept], corner[kept], stride[kept, np.newaxis]

    def boxes(rows: IndexArray) -> FloatArray:
        centre = (matrix[rows, :2] + corner[rows]) * stride[rows]
        with np.errstate(over="ignore"):
            extent = np.exp(matrix[rows, 2:4]) * stride[rows]
        return _float(xywh_to_xyxy(np.concatenate([centre, extent], axis=1)))

    return RawDetections(matrix[:, 5:] * matrix[:, 4:5], boxes)


def gfl(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Li et al., Generalized Focal Loss (2020): a distribution over bins for each of a box's four sides."""
    scores, bins = _scores_and_bins(arrays, spec)
    corner, stride = cells(_known(size, spec), spec.strides)
    _check_count(len(scores), len(corner), spec)
    count = bins.shape[1] // 4

    def boxes(rows: IndexArray) -> FloatArray:
        sides = bins[rows]
        if count > 1:
            weight = _softmax(sides.reshape(len(rows), 4, count))
            sides = weight @ np.arange(count, dtype=np.float32)
        step = stride[rows, np.newaxis]
        centre = (corner[rows] + spec.cell_offset) * step
        return _float(np.concatenate([centre - sides[:, :2] * step, centre + sides[:, 2:] * step], axis=1))

    return RawDetections(_activated(scores, spec), boxes)


def ssd(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Liu et al., SSD (2016): offsets to prior boxes, times variances."""
    width, height = _known(size, spec)
    if spec.prior_output:
        priors = _float(arrays[spec.prior_output].reshape(-1, 4)) * np.array([width, height] * 2, np.float32)
        arrays = {name: array for name, array in arrays.items() if name != spec.prior_output}
    else:
        priors = prior_boxes(spec.priors)
    offsets, scores = _boxes_and_scores(arrays, spec)
    if len(offsets) != len(priors):
        raise does_not_fit(f"{len(offsets)} boxes for {len(priors)} prior boxes")
    if spec.box_format == "yxyx":  # TensorFlow's box coder: ty, tx, th, tw
        offsets = offsets[:, [1, 0, 3, 2]]
    at_centre, at_size = spec.variances

    def boxes(rows: IndexArray) -> FloatArray:
        prior = priors[rows]
        centre = prior[:, :2] + offsets[rows, :2] * at_centre * prior[:, 2:]
        with np.errstate(over="ignore"):
            extent = prior[:, 2:] * np.exp(offsets[rows, 2:] * at_size)
        return _float(xywh_to_xyxy(np.concatenate([centre, extent], axis=1)))

    return RawDetections(_activated(scores, spec), boxes)


def dense(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Decoded boxes and their class scores, in outputs of their own."""
    boxes, scores = _boxes_and_scores(arrays, spec)
    return RawDetections(_activated(scores, spec), lambda rows: to_corners(boxes[rows], spec, size))


def detr(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Carion et al., DETR (2020), and its successors: a set of queries, none of which repeats another."""
    if len(arrays) == 1 and not spec.score_outputs:
        return _joined_queries(next(iter(arrays.values())), spec, size)
    found = dense(arrays, spec, size)
    return RawDetections(
        found.scores, found.boxes, suppressed=True, one_class=spec.score_activation == "softmax"
    )


def _joined_queries(rows: npt.NDArray[Any], spec: OutputSpec, size: Size | None) -> RawDetections:
    """Queries in one output: box, score, class index (Q, 6); or box and class scores (Q, 4 + C)."""
    width = _score_width(spec)
    if rows.ndim != 2 or rows.shape[1] not in (6, 4 + width):
        raise does_not_fit(
            f"head detr in one output has 6 values per query (box, score, class) or {4 + width} (box, class "
            f"scores), the output of one image has shape {rows.shape}"
        )
    matrix = _float(rows)
    boxes = to_corners(matrix[:, :4], spec, size)
    # Of two classes both have six values; only a class index is always a whole number.
    last = matrix[:, -1]
    if rows.shape[1] == 6 and (width != 2 or bool((last == np.rint(last)).all())):
        return RawDetections(matrix[:, 4], boxes, class_indices(last), suppressed=True)
    scores = _activated(matrix[:, 4:], spec)
    return RawDetections(scores, boxes, suppressed=True, one_class=spec.score_activation == "softmax")


def postprocessed(arrays: Arrays, spec: OutputSpec, size: Size | None) -> RawDetections:
    """Boxes, scores and class indices after the graph's own suppression."""
    boxes_name, scores_name, classes_name = _triple(arrays, spec)
    boxes = _float(arrays[boxes_name].reshape(-1, 4))
    scores = _float(arrays[scores_name].reshape(-1))
    classes = class_indices(arrays[classes_name].reshape(-1)) - spec.class_offset
    if not len(boxes) == len(scores) == len(classes):
        raise does_not_fit(f"{len(boxes)} boxes, {len(scores)} scores and {len(classes)} class indices")
    if spec.count_output:
        valid = arrays[spec.count_output].reshape(-1)
        count = int(valid[0]) if len(valid) and np.isfinite(valid[0]) else 0
        boxes, scores, classes = boxes[:count], scores[:count], classes[:count]
    return RawDetections(scores, to_corners(boxes, spec, size), classes, suppressed=True)


HEADS: Mapping[str, Head] = {
    "yolov5": yolov5,
    "yolov8": yolov8,
    "yolo-end2end": yolo_end_to_end,
    "yolox": yolox,
    "gfl": gfl,
    "ssd": ssd,
    "dense": dense,
    "detr": detr,
    "postprocessed": postprocessed,
}


def to_corners(boxes: npt.NDArray[Any], spec: OutputSpec, size: Size | None) -> FloatArray:
    """(M, 4) boxes in the spec's format to xyxy in pixels of the tensor."""
    if spec.box_format == "xywh":
        boxes = xywh_to_xyxy(boxes)
    elif spec.box_format == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    if spec.boxes_normalized:
        if size is None:
            raise ModelError("OUTPUTS_DO_NOT_FIT", "normalised boxes need the input spec to be decoded")
        boxes = boxes * np.array([*size, *size], np.float32)
    return _float(boxes)


def _float(array: npt.NDArray[Any]) -> FloatArray:
    return array.astype(np.float32, copy=False)


def _single(arrays: Arrays, spec: OutputSpec, width: int) -> FloatArray:
    """The one output as (N, width), either way round."""
    return _rows(next(iter(arrays.values())), width, spec)


def _rows(array: npt.NDArray[Any], width: int, spec: OutputSpec) -> FloatArray:
    if array.ndim == 2 and array.shape[0] == width and (array.shape[1] != width or spec.head == "yolov8"):
        array = array.T
    if array.ndim != 2 or array.shape[1] != width:
        raise does_not_fit(
            f"head {spec.head} with {spec.num_classes} classes has {width} values per candidate, "
            f"the output of one image has shape {array.shape}"
        )
    return _float(array)


def _known(size: Size | None, spec: OutputSpec) -> Size:
    if size is None:
        raise ModelError("OUTPUTS_DO_NOT_FIT", f"head {spec.head} needs the input spec to be decoded")
    return size


def _check_count(found: int, expected: int, spec: OutputSpec) -> None:
    if found != expected:
        raise does_not_fit(
            f"{found} candidates, but strides {list(spec.strides)} make {expected} cells of this input size"
        )


def class_indices(values: npt.NDArray[Any]) -> IndexArray:
    """Class indices of any element type; what is no number becomes -1, which is no class."""
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, -1)
    return values.astype(np.intp)


def _softmax(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    raised: npt.NDArray[Any] = np.exp(values - values.max(axis=-1, keepdims=True))
    raised /= raised.sum(axis=-1, keepdims=True)
    return raised


def _activated(scores: FloatArray, spec: OutputSpec) -> FloatArray:
    """(N, C and perhaps a background) to (N, C) probabilities."""
    if spec.score_activation == "softmax":
        scores = _softmax(scores)
    elif spec.score_activation == "sigmoid":
        with np.errstate(over="ignore"):
            scores = _float(1 / (1 + np.exp(-scores)))
    if spec.background == "first":
        scores = scores[:, 1:]
    elif spec.background == "last":
        scores = scores[:, :-1]
    return _float(scores)


def _score_width(spec: OutputSpec) -> int:
    return spec.num_classes + (spec.background != "none")


def _boxes_and_scores(arrays: Arrays, spec: OutputSpec) -> tuple[FloatArray, FloatArray]:
    """(N, 4) and (N, C and perhaps a background), from one output each or one per level."""
    width = _score_width(spec)
    boxes, scores = spec.box_outputs, spec.score_outputs
    if not boxes or not scores:
        if width == 4:
            raise does_not_fit("boxes and scores both have 4 values: name box_outputs and score_outputs")
        boxes = boxes or tuple(name for name, array in arrays.items() if _fits(array, 4))
        scores = scores or tuple(name for name, array in arrays.items() if _fits(array, width))
    if not boxes or not scores:
        told = ", ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
        raise does_not_fit(
            f"head {spec.head} needs an output of 4 values and one of {width} values per candidate; the "
            f"outputs of one image are {told}. Name box_outputs and score_outputs, and check num_classes "
            "and background"
        )
    pair = [
        np.concatenate([_flat(arrays[name], length, spec) for name in names])
        for names, length in ((boxes, 4), (scores, width))
    ]
    if len(pair[0]) != len(pair[1]):
        raise does_not_fit(f"{len(pair[0])} boxes and {len(pair[1])} rows of scores")
    return pair[0], pair[1]


def _fits(array: npt.NDArray[Any], width: int) -> bool:
    return array.ndim in (2, 3) and width in (array.shape[0], array.shape[-1])


def _flat(array: npt.NDArray[Any], width: int, spec: OutputSpec) -> FloatArray:
    """(N, width), (width, N) or a map of (multiple of width, H, W) to (N, width)."""
    if array.ndim == 3 and array.shape[-1] == width:
        return _float(array.reshape(-1, width))
    if array.ndim == 3 and array.shape[0] % width == 0:
        return _float(array.transpose(1, 2, 0).reshape(-1, width))
    return _rows(array, width, spec)


def _scores_and_bins(arrays: Arrays, spec: OutputSpec) -> tuple[FloatArray, FloatArray]:
    """(N, C and perhaps a background) scores and (N, 4 * B) bins, levels in order of the strides."""
    width = _score_width(spec)
    if spec.box_outputs and spec.score_outputs:
        scores = _by_level([_level(arrays[name], width) for name in spec.score_outputs])
        bins = _by_level([_level(arrays[name], 0) for name in spec.box_outputs])
    else:
        levels = [_level(array, 0) for array in arrays.values()]
        joined = [level for level in levels if level.shape[1] > width and (level.shape[1] - width) % 4 == 0]
        if len(joined) == len(levels) and len({level.shape[1] for level in levels}) == 1:
            matrix = _by_level(levels)
            scores, bins = matrix[:, :width], matrix[:, width:]
        else:
            if width % 4 == 0 and len({level.shape[1] for level in levels}) == 1:
                raise does_not_fit("boxes and scores have equal shapes: name box_outputs and score_outputs")
            scores = _by_level([level for level in levels if level.shape[1] == width])
            bins = _by_level([level for level in levels if level.shape[1] != width])
    if len(scores) != len(bins) or scores.shape[1:] != (width,) or not bins.shape[1] or bins.shape[1] % 4:
        told = ", ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
        raise does_not_fit(
            f"head gfl has {width} scores and 4 times the number of bins per candidate; the outputs of one "
            f"image are {told}"
        )
    return scores, bins


def _level(array: npt.NDArray[Any], width: int) -> FloatArray:
    """One level as (cells, values): from (values, H, W), (cells, values), or (values, cells) if it fits."""
    if array.ndim == 3:
        return _float(array.reshape(array.shape[0], -1).T)
    if array.ndim != 2:
        raise does_not_fit(f"an output of one image has shape {array.shape}, expected 2 or 3 axes")
    return _float(array.T if width and array.shape[0] == width != array.shape[1] else array)


def _by_level(levels: list[FloatArray]) -> FloatArray:
    """Join levels, the one with most cells first: that is the finest stride."""
    if not levels or len({level.shape[1] for level in levels}) != 1:
        return np.zeros((0, 0), np.float32)
    return np.concatenate(sorted(levels, key=len, reverse=True))


def _triple(arrays: Arrays, spec: OutputSpec) -> tuple[str, str, str]:
    """The names of the outputs with boxes, scores and class indices."""
    if spec.box_outputs and spec.score_outputs and spec.class_output:
        return spec.box_outputs[0], spec.score_outputs[0], spec.class_output
    boxes = [name for name, a in arrays.items() if a.ndim == 2 and a.shape[-1] == 4]
    flat = {name: a for name, a in arrays.items() if a.ndim == 1 and name != spec.count_output}
    whole = [name for name in flat if "class" in name.lower() or "label" in name.lower()]
    if len(whole) != 1:
        whole = [name for name, array in flat.items() if array.dtype.kind in "iu"]
    scores = [name for name in flat if name not in whole and flat[name].dtype.kind == "f"]
    if len(scores) != 1:
        scores = [name for name in scores if "score" in name.lower()]
    if not len(boxes) == len(scores) == len(whole) == 1:
        told = ", ".join(f"{name!r} {array.shape} {array.dtype}" for name, array in arrays.items())
        raise does_not_fit(
            f"which of {told} are boxes, scores and class indices? Name box_outputs, score_outputs and "
            "class_output"
        )
    return boxes[0], scores[0], whole[0]
