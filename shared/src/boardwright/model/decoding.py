"""From output tensors to classifications and detections, by the head an OutputSpec names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.model.boxes import suppress, xywh_to_xyxy
from boardwright.model.errors import ModelError
from boardwright.model.input_spec import InputSpec
from boardwright.model.output_spec import OutputSpec
from boardwright.model.preprocessing import Placement

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
Outputs = Sequence[npt.NDArray[Any]] | Mapping[str, npt.NDArray[Any]]

MAX_CANDIDATES = 30_000


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """``scores`` (C,) float32: probabilities, or the head's own scores when it already gives them."""

    scores: FloatArray

    def top(self, count: int) -> IndexArray:
        """The best class indices, best first; of equal scores the lower index."""
        return np.argsort(-self.scores, kind="stable")[:count]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """``boxes`` (N, 4) float32 xyxy in pixels of the original image, ``scores`` (N,), ``classes`` (N,)."""

    boxes: FloatArray
    scores: FloatArray
    classes: IndexArray

    def __len__(self) -> int:
        return len(self.scores)


def decode(
    outputs: Outputs, spec: OutputSpec, placement: Placement, input_spec: InputSpec | None = None
) -> Classification | Detections:
    """Decode the outputs of a batch of one; see ``decode_batch``."""
    results = decode_batch(outputs, spec, [placement], input_spec)
    return results[0]


def decode_batch(
    outputs: Outputs, spec: OutputSpec, placements: Sequence[Placement], input_spec: InputSpec | None = None
) -> list[Classification] | list[Detections]:
    """Decode the outputs of a batch.

    Args:
        outputs: by name, or in the graph's order; each with a leading batch axis.
        spec: what they mean.
        placements: where each image lies in its tensor, from ``preprocess``.
        input_spec: needed only for normalised boxes, to know the tensor's size.

    Raises:
        ModelError: ``OUTPUTS_DO_NOT_FIT`` when a shape contradicts the spec; the message has both.
    """
    tensor = _pick(outputs, spec)
    if len(tensor) != len(placements):
        raise _does_not_fit(f"a batch of {len(tensor)} outputs for {len(placements)} images")
    if spec.task == "classification":
        return [_classify(row, spec) for row in tensor]
    size = (float(input_spec.width), float(input_spec.height)) if input_spec else None
    return [_detect(row, spec, placement, size) for row, placement in zip(tensor, placements, strict=True)]


def _pick(outputs: Outputs, spec: OutputSpec) -> npt.NDArray[Any]:
    if isinstance(outputs, Mapping):
        name = spec.name or next(iter(outputs), "")
        if name not in outputs:
            raise _does_not_fit(f"no output {name!r}; there are: {', '.join(outputs) or 'none'}")
        return outputs[name]
    if not outputs:
        raise _does_not_fit("the model gave no output")
    return outputs[0]


def _does_not_fit(what: str) -> ModelError:
    return ModelError("OUTPUTS_DO_NOT_FIT", f"the outputs do not fit the output spec: {what}")


def _classify(row: npt.NDArray[Any], spec: OutputSpec) -> Classification:
    scores = row.reshape(-1).astype(np.float32)
    if len(scores) != spec.num_classes:
        raise _does_not_fit(f"{len(scores)} class scores (shape {row.shape}) for {spec.num_classes} classes")
    if spec.head == "logits":
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    return Classification(scores)


def _detect(
    row: npt.NDArray[Any], spec: OutputSpec, placement: Placement, size: tuple[float, float] | None
) -> Detections:
    if spec.head == "yolo-end2end":
        boxes, scores, classes = _end_to_end(row, spec)
    else:
        raw, matrix = _head(row, spec)
        rows, classes, scores = _candidates(matrix, spec)
        boxes = raw[rows]
        if spec.box_format == "xywh":
            boxes = xywh_to_xyxy(boxes)
    if spec.boxes_normalized:
        if size is None:
            raise ModelError("OUTPUTS_DO_NOT_FIT", "normalised boxes need the input spec to be decoded")
        boxes = boxes * np.array([*size, *size], np.float32)
    if spec.head != "yolo-end2end":
        kept = suppress(boxes, scores, classes, spec.iou_threshold, spec.max_detections)
        boxes, scores, classes = boxes[kept], scores[kept], classes[kept]
    return Detections(placement.to_image(boxes), scores, classes)


def _head(row: npt.NDArray[Any], spec: OutputSpec) -> tuple[FloatArray, FloatArray]:
    """Boxes (N, 4) and class scores (N, C) of one image."""
    width = spec.num_classes + (5 if spec.head == "yolov5" else 4)
    if row.ndim == 2 and row.shape[0] == width and (spec.head == "yolov8" or row.shape[1] != width):
        row = row.T
    if row.ndim != 2 or row.shape[1] != width:
        raise _does_not_fit(
            f"head {spec.head} with {spec.num_classes} classes has {width} values per candidate, "
            f"the output of one image has shape {row.shape}"
        )
    matrix = row.astype(np.float32, copy=False)
    if spec.head == "yolov5":
        # Most candidates have no object: dropping them first saves multiplying them all.
        matrix = matrix[matrix[:, 4] > spec.score_threshold]
        return matrix[:, :4], matrix[:, 5:] * matrix[:, 4:5]
    return matrix[:, :4], matrix[:, 4:]


def _candidates(scores: FloatArray, spec: OutputSpec) -> tuple[IndexArray, IndexArray, FloatArray]:
    """The rows, classes and scores above the threshold, at most ``MAX_CANDIDATES`` of the best."""
    if spec.multi_label:
        rows, classes = np.nonzero(scores > spec.score_threshold)
    else:
        best = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.intp)
        rows = np.flatnonzero(scores[np.arange(len(scores)), best] > spec.score_threshold)
        classes = best[rows]
    values = scores[rows, classes]
    if len(values) > MAX_CANDIDATES:
        strongest = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
        rows, classes, values = rows[strongest], classes[strongest], values[strongest]
    return rows, classes, values


def _end_to_end(row: npt.NDArray[Any], spec: OutputSpec) -> tuple[FloatArray, FloatArray, IndexArray]:
    if row.ndim != 2 or row.shape[1] != 6:
        raise _does_not_fit(f"head yolo-end2end gives 6 values per detection, this one has shape {row.shape}")
    matrix = row.astype(np.float32, copy=False)
    classes = matrix[:, 5].astype(np.intp)
    wanted = (matrix[:, 4] > spec.score_threshold) & (classes >= 0) & (classes < spec.num_classes)
    order = np.flatnonzero(wanted)
    order = order[np.argsort(-matrix[order, 4], kind="stable")][: spec.max_detections]
    return matrix[order, :4], matrix[order, 4], classes[order]
