"""Which detection head a graph ends in, as far as its outputs and its last nodes leave no doubt.

Two things tell raw grids from decoded boxes, whatever the network is called: how many candidates there are
(the cells of strides 8, 16, 32…), and whether anything but movement lies between the last convolutions and
the output. Where both fit one head only, it is derived; where a number is missing (of classes, say) or two
heads fit, an example to declare is given instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.inspect import Axis
from boardwright.model import OutputSpec

if TYPE_CHECKING:
    import onnx

Outputs = Mapping[str, tuple[list[Axis], str]]

_MOVEMENTS = frozenset(
    {
        "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
        "DequantizeLinear", "QuantizeLinear", "Cast",
    }
)  # fmt: skip
_LAYERS = frozenset({"Conv", "Gemm", "MatMul", "ConvTranspose"})
_GRIDS = ((8, 16, 32), (8, 16, 32, 64), (8, 16, 32, 64, 128), (16, 32), (4, 8, 16, 32))
_USUAL_BINS = (8, 16, 17)  # NanoDet's, YOLOv8's and GFL's
_TF_NAMES = frozenset({"detection_boxes", "detection_scores", "detection_classes", "num_detections"})
_TORCHVISION_NAMES = frozenset({"boxes", "scores", "labels"})


@dataclass(frozen=True, slots=True)
class _Branch:
    """One input of a join of channels: its layer's outputs, and whether a sigmoid follows."""

    width: int
    activated: bool


def grid_strides(candidates: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the strides whose cells on a tensor of (height, width) are so many; empty if none are."""
    for strides in _GRIDS:
        if candidates == sum(math.prod(math.ceil(side / stride) for side in size) for stride in strides):
            return strides
    return ()


def derive_grid_head(
    model: onnx.ModelProto, name: str, shape: Sequence[int], size: tuple[int, int], labels: tuple[str, ...]
) -> OutputSpec | None:
    """Return the spec of an undecoded grid head (YOLOX, NanoDet), or None where it is another or not sure.

    ``shape`` is the output's (candidates, values). Boxes that anything was computed with are decoded already.
    """
    strides = grid_strides(shape[0], size)
    branches = _branches(model, name) if strides else None
    if branches is None:
        return None
    plain = [branch for branch in branches if not branch.activated]
    scores = [branch for branch in branches if branch.activated]
    width = shape[1]
    settings: dict[str, Any] = {"task": "detection", "name": name, "strides": strides}
    if {branch.width for branch in plain} == {4} and {b.width for b in scores} in ({1, width - 5}, {1}):
        return OutputSpec(head="yolox", num_classes=width - 5, **_labelled(settings, labels, width - 5))
    sides = {branch.width for branch in plain}
    classes = {branch.width for branch in scores}
    if len(sides) == len(classes) == 1:
        (bins,), (count,) = sides, classes
        if bins % 4 == 0 and bins // 4 in _USUAL_BINS and bins + count == width:
            return OutputSpec(head="gfl", num_classes=count, **_labelled(settings, labels, count))
    return None


def is_raw_grid(model: onnx.ModelProto, name: str, candidates: int, size: tuple[int, int]) -> bool:
    """Whether an output is cells of a grid straight from layers: no head whose boxes are decoded."""
    return bool(grid_strides(candidates, size)) and _branches(model, name) is not None


def looks_postprocessed(outputs: Outputs) -> bool:
    """Whether the outputs have the names that TensorFlow or torchvision give to finished detections."""
    names = {name.lower() for name in outputs}
    return names >= _TF_NAMES or names >= _TORCHVISION_NAMES


def example(outputs: Outputs, size: tuple[int, int], labels: tuple[str, ...]) -> str:
    """Return an output spec to start from, as a sentence, for outputs that do not say enough."""
    classes = len(labels) or 80
    sure = "" if labels else " with your own num_classes"
    spec: dict[str, Any] = {"task": "detection", "head": "", "num_classes": classes}
    names = {name.lower(): name for name in outputs}
    if names.keys() >= _TF_NAMES:
        spec |= {
            "head": "postprocessed", "box_format": "yxyx", "boxes_normalized": True, "class_offset": 1,
            "box_outputs": [names["detection_boxes"]], "score_outputs": [names["detection_scores"]],
            "class_output": names["detection_classes"], "count_output": names["num_detections"],
        }  # fmt: skip
        return _told(spec, f"They look like TensorFlow's post-processed detections{sure}")
    if names.keys() >= _TORCHVISION_NAMES:
        spec |= {
            "head": "postprocessed", "box_format": "xyxy", "class_offset": 1, "box_outputs": [names["boxes"]],
            "score_outputs": [names["scores"]], "class_output": names["labels"],
        }  # fmt: skip
        return _told(spec, f"They look like torchvision's post-processed detections{sure}")
    pair = _boxes_and_scores(outputs)
    if pair is not None:
        boxes, scores, width = pair
        spec |= {"num_classes": len(labels) or width, "box_outputs": [boxes], "score_outputs": [scores]}
        if "logits" in scores.lower() or "query" in scores.lower():
            spec |= {"head": "detr", "score_activation": "sigmoid"}
            return _told(
                spec, "They look like DETR's queries (softmax with background 'last' for the first DETR)"
            )
        spec |= {"head": "dense", "box_format": "xyxy"}
        return _told(
            spec,
            "They look like boxes and scores; declare head 'ssd' with its priors if the boxes are offsets, "
            "and background 'first' or 'last' if one of the scores is the background's",
        )
    spec |= {"head": "plugin", "plugin": "my-head"}
    return _told(spec, "If none of the heads fits, name a decoder of your own")


def _told(spec: Mapping[str, Any], words: str) -> str:
    return f"{words}: {json.dumps(dict(spec))}."


def _labelled(settings: dict[str, Any], labels: tuple[str, ...], count: int) -> dict[str, Any]:
    return {**settings, "labels": labels if len(labels) == count else ()}


def _boxes_and_scores(outputs: Outputs) -> tuple[str, str, int] | None:
    """The names of two outputs of equal length, one four wide, and the width of the other."""
    shapes = {name: shape for name, (shape, _) in outputs.items() if len(shape) == 3}
    boxes = [name for name, shape in shapes.items() if shape[2] == 4]
    for name in boxes:
        for other, shape in shapes.items():
            width = shape[2]
            if other != name and shape[1] == shapes[name][1] and isinstance(width, int):
                return name, other, width
    return None


def _branches(model: onnx.ModelProto, output: str) -> list[_Branch] | None:
    """The layers behind an output through nothing but movement and sigmoids; None if there is anything else.

    A layer whose channels are split afterwards counts with the parts.
    """
    import onnx

    made = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model)
    widths = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    found: list[_Branch] = []
    waiting, seen = [(output, False)], set()
    while waiting:
        tensor, activated = waiting.pop()
        if (tensor, activated) in seen:
            continue
        seen.add((tensor, activated))
        node = made.get(tensor)
        if node is None:
            return None
        if node.op_type == "Sigmoid":
            waiting.append((node.input[0], True))
        elif node.op_type in _LAYERS or (
            node.op_type in ("Split", "Slice") and _splits_channels(node, widths)
        ):
            shape = widths.get(tensor, [])
            if len(shape) < 2 or not _only_movement(node, made):
                return None
            found.append(_Branch(shape[1], activated))
        elif node.op_type in _MOVEMENTS:
            data = node.input if node.op_type == "Concat" else node.input[:1]
            waiting.extend((name, activated) for name in data if name not in constants)
        else:
            return None
    return found or None


def _splits_channels(node: onnx.NodeProto, widths: Mapping[str, list[int]]) -> bool:
    """Whether a node cuts channels of a feature map (N, C, H, W)."""
    before, after = widths.get(node.input[0], []), widths.get(node.output[0], [])
    return len(before) == len(after) == 4 and before[1] != after[1] and before[2:] == after[2:]


def _only_movement(node: onnx.NodeProto, made: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a cut of channels has a layer behind it, and nothing computed in between."""
    while node.op_type not in _LAYERS:
        before = made.get(node.input[0])
        if before is None or before.op_type not in _MOVEMENTS | _LAYERS:
            return False
        node = before
    return True
