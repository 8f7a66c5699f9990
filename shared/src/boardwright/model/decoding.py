"""From output tensors to classifications and detections, by the head an OutputSpec names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.model.boxes import suppress
from boardwright.model.heads import HEADS, RawDetections, does_not_fit
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
        input_spec: needed for boxes that are normalised or relative to a grid, to know the tensor's size.

    Raises:
        ModelError: ``OUTPUTS_DO_NOT_FIT`` when a shape contradicts the spec; the message has both.
            ``OUTPUT_HEAD_UNKNOWN`` or ``OUTPUT_HEAD_FAILED`` of a plug-in.
    """
    arrays = _batched(_pick(outputs, spec), spec)
    for array in arrays.values():
        if len(array) != len(placements):
            raise does_not_fit(f"a batch of {len(array)} outputs for {len(placements)} images")
    if spec.task == "classification":
        return [_classify(row, spec) for row in next(iter(arrays.values()))]
    size = (float(input_spec.width), float(input_spec.height)) if input_spec else None
    return [
        _detect({name: array[index] for name, array in arrays.items()}, spec, placement, size)
        for index, placement in enumerate(placements)
    ]


def used_outputs(names: Sequence[str], spec: OutputSpec) -> tuple[str, ...]:
    """Which of a graph's outputs, in its order, a spec speaks of.

    Raises:
        ModelError: ``OUTPUTS_DO_NOT_FIT`` when a declared one is not there.
    """
    if spec.head in _ONE_OUTPUT:
        wanted: tuple[str, ...] = (spec.name or next(iter(names), ""),)
    else:
        extra = (spec.class_output, spec.count_output, spec.prior_output)
        wanted = (*spec.box_outputs, *spec.score_outputs, *(name for name in extra if name))
        whole = bool(spec.box_outputs and spec.score_outputs) and spec.head != "plugin"
        if not whole or (spec.head == "postprocessed" and not spec.class_output):
            wanted = (*(name for name in names if name not in wanted), *wanted)
    if not names:
        raise does_not_fit("the model gave no output")
    for name in wanted:
        if name not in names:
            raise does_not_fit(f"no output {name!r}; there are: {', '.join(names)}")
    return tuple(dict.fromkeys(wanted))


_ONE_OUTPUT = ("logits", "probabilities", "yolov5", "yolov8", "yolo-end2end", "yolox")


def _pick(outputs: Outputs, spec: OutputSpec) -> dict[str, npt.NDArray[Any]]:
    if not isinstance(outputs, Mapping):
        # Without names only the order is known, and the spec's one output comes first.
        first = spec.name if spec.head in _ONE_OUTPUT and spec.name else "0"
        outputs = {first if not number else str(number): array for number, array in enumerate(outputs)}
    return {name: np.asarray(outputs[name]) for name in used_outputs(tuple(outputs), spec)}


def _batched(arrays: dict[str, npt.NDArray[Any]], spec: OutputSpec) -> dict[str, npt.NDArray[Any]]:
    """The arrays with a batch axis each: exporters of ``postprocessed`` graphs leave it out for one image."""
    if spec.head == "postprocessed":
        if any(array.ndim >= 3 and array.shape[-1] == 4 for array in arrays.values()):
            return {n: a.reshape(len(a), -1) if a.ndim != 3 and a.ndim else a for n, a in arrays.items()}
        return {name: array[np.newaxis] for name, array in arrays.items()}
    for name, array in arrays.items():
        if not array.ndim:
            raise does_not_fit(f"the output {name!r} is a single number, without a batch axis")
    return arrays


def _classify(row: npt.NDArray[Any], spec: OutputSpec) -> Classification:
    scores = row.reshape(-1).astype(np.float32)
    if len(scores) != spec.num_classes:
        raise does_not_fit(f"{len(scores)} class scores (shape {row.shape}) for {spec.num_classes} classes")
    if spec.head == "logits":
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    return Classification(scores)


def _detect(
    arrays: Mapping[str, npt.NDArray[Any]],
    spec: OutputSpec,
    placement: Placement,
    size: tuple[float, float] | None,
) -> Detections:
    if spec.head == "plugin":
        from boardwright.model.plugins import plugin

        found = plugin(arrays, spec, size)
    else:
        found = HEADS[spec.head](arrays, spec, size)
    rows, classes, scores = _candidates(found, spec)
    boxes = found.boxes_of(rows)
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():  # a box that is nowhere would poison every overlap
        boxes, scores, classes = boxes[finite], scores[finite], classes[finite]
    if found.suppressed:
        kept = np.argsort(-scores, kind="stable")[: spec.max_detections]
    else:
        kept = suppress(boxes, scores, classes, spec.iou_threshold, spec.max_detections)
    return Detections(placement.to_image(boxes[kept]), scores[kept], classes[kept])


def _candidates(found: RawDetections, spec: OutputSpec) -> tuple[IndexArray, IndexArray, FloatArray]:
    """The rows, classes and scores above the threshold, at most ``MAX_CANDIDATES`` of the best."""
    scores = found.scores
    if found.classes is not None:
        known = (found.classes >= 0) & (found.classes < spec.num_classes)
        rows = np.flatnonzero((scores > spec.score_threshold) & known)
        classes, values = found.classes[rows], scores[rows]
    elif spec.multi_label and not found.one_class:
        rows, classes = np.nonzero(scores > spec.score_threshold)
        values = scores[rows, classes]
    else:
        best = scores.argmax(axis=1) if len(scores) else np.zeros(0, np.intp)
        rows = np.flatnonzero(scores[np.arange(len(scores)), best] > spec.score_threshold)
        classes = best[rows]
        values = scores[rows, classes]
    if len(values) > MAX_CANDIDATES:
        strongest = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
        rows, classes, values = rows[strongest], classes[strongest], values[strongest]
    return rows, classes, values
