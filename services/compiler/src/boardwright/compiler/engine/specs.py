"""Which InputSpec and OutputSpec a checkpoint gets: as declared, completed from the graph, or derived."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from boardwright.compiler.engine.errors import SpecMismatch
from boardwright.compiler.engine.graph.inspect import Axis, graph_inputs, graph_outputs, rename_input
from boardwright.compiler.engine.heads import (
    derive_grid_head,
    example,
    is_raw_grid,
    looks_postprocessed,
)
from boardwright.model import InputSpec, ModelError, OutputSpec

if TYPE_CHECKING:
    import onnx

_DEFAULT_NAME = "input"
_YOLO_TASKS = {"detect": "detection", "classify": "classification"}
_USUAL_SIZE, _LARGEST_SIDE = (640, 640), 4096
_END_TO_END_COLUMNS = 6
_MOST_END_TO_END_ROWS = 1000
RTDETR_HEAD = "RTDETRDecoder"
_TASKS = ("", "classification", "detection")
_LIBRARY = "The library quantizes any graph, from feeds of your own: boardwright.compiler.engine.quantize."
_NO_SCORES = (
    " A classification is judged by one score for each class: let the graph put these out (1 - p and p where "
    "it has one probability of two classes), not the best class or a single score."
)
_SHAPING = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "DequantizeLinear",
     "QuantizeLinear"}
)  # fmt: skip
"""Operators after which a tensor means what it meant before."""


@dataclass(frozen=True, slots=True)
class YoloMetadata:
    """What Ultralytics writes into the files it exports; ``size`` is (height, width) of the images."""

    task: str
    labels: tuple[str, ...]
    end_to_end: bool
    head: str = ""
    size: tuple[int, int] = _USUAL_SIZE


def read_yolo_metadata(metadata: Mapping[str, str]) -> YoloMetadata | None:
    """Return what an ONNX file's metadata says if Ultralytics wrote it, else None."""
    if metadata.get("author") != "Ultralytics" or "names" not in metadata:
        return None
    try:
        names = ast.literal_eval(metadata["names"])
        labels = tuple(str(names[index]) for index in sorted(names))
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        return None
    end_to_end = metadata.get("end2end", "").lower() == "true" or _suppresses(metadata.get("args", ""))
    head, size = metadata.get("head", ""), _size(metadata.get("imgsz", ""))
    return YoloMetadata(metadata.get("task", ""), labels, end_to_end, head, size)


def _size(told: str) -> tuple[int, int]:
    """Return ``imgsz``, "[height, width]"; 640 each where it is none."""
    try:
        height, width = map(int, json.loads(told))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return _USUAL_SIZE
    return (height, width) if 0 < min(height, width) <= max(height, width) <= _LARGEST_SIDE else _USUAL_SIZE


def _suppresses(arguments: str) -> bool:
    """Whether the graph suppresses overlaps itself (``export(nms=True)``), as end-to-end heads need not."""
    try:
        return bool(ast.literal_eval(arguments).get("nms"))
    except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError, MemoryError):
        return False


def settle_input_spec(
    declared: InputSpec | None, model: onnx.ModelProto, metadata: YoloMetadata | None
) -> InputSpec:
    """Return the InputSpec of ``model``: the declared one, unchanged and checked; or Ultralytics' own.

    A declared spec that keeps the default name fits a graph with one input of any name: that input is renamed
    in ``model``, for the spec is what the device was told.

    Raises:
        SpecMismatch: INPUT_NOT_AN_IMAGE; INPUT_SPEC_NEEDED, with one to start from; INPUT_SPEC_DOES_NOT_FIT,
            with what differs.
    """
    inputs = graph_inputs(model)
    _check_one_image(inputs)
    if declared is None and metadata is not None and metadata.task:
        queries = _is_set_of_queries(metadata, next(iter(graph_outputs(model).values()))[0])
        own = yolo_input_spec(metadata.task, _image_size(inputs, metadata.size), queries=queries)
        batch = next(iter(next(iter(inputs.values()))[0]), None)
        declared = replace(own, batch=batch if isinstance(batch, int) and batch > 0 else 1)
    if declared is None:
        raise SpecMismatch("INPUT_SPEC_NEEDED", _input_spec_needed(inputs))
    spec = declared
    if spec.name not in inputs and spec.name == _DEFAULT_NAME and len(inputs) == 1:
        rename_input(model, next(iter(inputs)), spec.name)
        inputs = graph_inputs(model)
    try:
        spec.check_against(inputs)
    except ModelError as error:
        raise SpecMismatch(
            error.reason, f"{error.message}. Correct the input spec and push again."
        ) from error
    return spec


def yolo_input_spec(task: str, size: tuple[int, int], *, queries: bool = False) -> InputSpec:
    """Return how Ultralytics prepares images of ``size`` (height, width) for a task.

    ``queries``: for an RT-DETR, which sees images stretched.
    """
    fitted: Literal["stretch", "letterbox"] = "stretch" if queries else "letterbox"
    return InputSpec(
        name="images",
        batch=1,
        height=size[0],
        width=size[1],
        scale=1 / 255,
        resize="center-crop" if task == "classify" else fitted,
    )


def settle_output_spec(
    declared: OutputSpec | None, model: onnx.ModelProto, metadata: YoloMetadata | None, task: str = ""
) -> OutputSpec:
    """Return the OutputSpec of ``model``: the declared one, or what shape, metadata and task leave no
    doubt of.

    Raises:
        SpecMismatch: TASK_UNSUPPORTED; OUTPUT_SPEC_NEEDED, with the output's shape and the heads there are.
    """
    if declared is not None:
        return declared
    outputs = graph_outputs(model)
    labels = metadata.labels if metadata else ()
    wanted = _YOLO_TASKS.get(metadata.task, metadata.task) if metadata else task
    if wanted not in _TASKS:
        raise SpecMismatch(
            "TASK_UNSUPPORTED",
            f"The model's task is {wanted!r}; classification and detection can be judged. If it finds boxes "
            f"as well, push it with an output spec of head 'plugin' that reads them. {_LIBRARY}",
        )
    name, (shape, dtype) = _only_scores(outputs) or next(iter(outputs.items()))
    if len(shape) == 4 and shape[2:] == [1, 1]:
        shape = shape[:2]  # fully convolutional classifiers leave the axes that they pooled over
    found: OutputSpec | None = None
    hint = ""
    if looks_postprocessed(outputs) and wanted != "classification":
        pass  # how many classes there are is in none of the shapes
    elif _maker(model, name) == "TopK":
        pass  # the best scores of how many classes
    elif len(shape) == 2 and (shape[1] == 1 or not dtype.startswith("float")) and wanted != "detection":
        hint = _NO_SCORES
    elif len(shape) == 2 and not wanted and any(n.op_type == "NonMaxSuppression" for n in model.graph.node):
        pass  # one row per box that was left, as YOLOv7 exports them
    elif len(shape) == 2 and wanted in ("classification", "") and isinstance(shape[1], int):
        found = _classification(model, name, shape[1], labels)
    elif len(shape) == 3 and wanted in ("detection", "") and not _has_further_parts(outputs):
        end_to_end = metadata is None or metadata.end_to_end
        rows, columns = shape[1], shape[2]
        if metadata is not None and _is_set_of_queries(metadata, shape):
            return OutputSpec(
                task="detection", head="detr", num_classes=len(labels), name=name, labels=labels
            )
        size = _image_size(graph_inputs(model))
        if metadata is None and isinstance(rows, int) and isinstance(columns, int):
            found = derive_grid_head(model, name, (rows, columns), size, labels)
        if found is None and not (isinstance(rows, int) and is_raw_grid(model, name, rows, size)):
            found = _detection(name, rows, columns, labels, may_be_end_to_end=end_to_end)
    if found is None:
        if not hint and wanted != "classification":
            hint = " " + example(outputs, _image_size(graph_inputs(model)), labels)
        shapes = ", ".join(f"{name!r} {_told(shape)}" for name, (shape, _) in outputs.items())
        several = "outputs have shapes" if len(outputs) > 1 else "output has shape"
        raise SpecMismatch(
            "OUTPUT_SPEC_NEEDED",
            f"The {several} {shapes}, and what it means is not clear. Push with an output spec: its task "
            '("classification" or "detection"), head (logits, probabilities; yolov5, yolov8, yolo-end2end, '
            f"yolox, gfl, ssd, dense, detr, postprocessed or plugin) and num_classes.{hint}",
        )
    return found


def _is_set_of_queries(metadata: YoloMetadata, shape: Sequence[Axis]) -> bool:
    """Whether Ultralytics exported an RT-DETR: (Q, 6), and before it named heads (Q, 4 + C).

    Its YOLOs give (4 + C, N) or, where the head is end-to-end, rows of six in pixels.
    """
    if metadata.task != "detect" or metadata.end_to_end or len(shape) != 3:
        return False
    if metadata.head:
        return metadata.head == RTDETR_HEAD
    rows, columns = shape[1], shape[2]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return False
    return columns < rows <= _MOST_END_TO_END_ROWS and columns == 4 + len(metadata.labels)


def _has_further_parts(outputs: Mapping[str, tuple[list[Axis], str]]) -> bool:
    """Whether boxes and scores are apart, or masks are made of one more output: the first is not all."""
    shapes = [shape for shape, _ in list(outputs.values())[1:]]
    boxes = bool(shapes) and any(shape[-1:] == [4] for shape, _ in outputs.values())
    return boxes or sum(len(shape) == 4 for shape in shapes) == 1


def _only_scores(
    outputs: Mapping[str, tuple[list[Axis], str]],
) -> tuple[str, tuple[list[Axis], str]] | None:
    """The one output of floats (N, C) whose others are labels (N,), as classical converters write them."""
    floats = [entry for entry in outputs.items() if entry[1][1].startswith("float")]
    return floats[0] if len(floats) == 1 and len(floats[0][1][0]) == 2 else None


def _maker(model: onnx.ModelProto, name: str) -> str:
    """The operator that computes a tensor, whatever only shapes it afterwards; empty for an input."""
    made = {output: node for node in model.graph.node for output in node.output}
    while name in made and made[name].op_type in _SHAPING:
        name = made[name].input[0]
    return made[name].op_type if name in made else ""


def _classification(model: onnx.ModelProto, name: str, classes: int, labels: tuple[str, ...]) -> OutputSpec:
    head = "probabilities" if _maker(model, name) in ("Softmax", "Sigmoid") else "logits"
    return OutputSpec(
        task="classification",
        head=head,  # type: ignore[arg-type]
        num_classes=classes,
        name=name,
        labels=labels if len(labels) == classes else (),
    )


def _detection(
    name: str, rows: Axis, columns: Axis, labels: tuple[str, ...], *, may_be_end_to_end: bool
) -> OutputSpec | None:
    """Tell the YOLO heads apart by their shape: (N, 5 + C), (4 + C, N) or (K, 6)."""
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    if may_be_end_to_end and columns == _END_TO_END_COLUMNS and rows <= _MOST_END_TO_END_ROWS:
        if not labels:
            return None  # the number of classes is not in the shape
        return OutputSpec(
            task="detection", head="yolo-end2end", num_classes=len(labels), name=name, labels=labels,
            box_format="xyxy",
        )  # fmt: skip
    if rows > columns > 5:
        head, classes = "yolov5", columns - 5
        if labels and len(labels) == columns - 4:
            head, classes = "yolov8", columns - 4
    elif columns > rows > 4:
        head, classes = "yolov8", rows - 4
    else:
        return None
    if labels and len(labels) != classes:
        return None  # something else lies beside the scores, or in their place
    return OutputSpec(
        task="detection",
        head=head,  # type: ignore[arg-type]
        num_classes=classes,
        name=name,
        labels=labels if len(labels) == classes else (),
    )


def _image_size(
    inputs: Mapping[str, tuple[list[Axis], str]], usual: tuple[int, int] = _USUAL_SIZE
) -> tuple[int, int]:
    """Return the first input's height and width; ``usual`` where they are free."""
    shape = next(iter(inputs.values()))[0]
    sides = [
        axis if isinstance(axis, int) and axis > 0 else free
        for axis, free in zip(shape[2:4], usual, strict=False)
    ]
    return (sides[0], sides[1]) if len(sides) == 2 else usual


def _check_one_image(inputs: Mapping[str, tuple[list[Axis], str]]) -> None:
    """Refuse a graph that reads anything but one image, whatever spec was declared.

    Raises:
        SpecMismatch: INPUT_NOT_AN_IMAGE.
    """
    told = ", ".join(f"{name!r} {_told(shape)} of {dtype}" for name, (shape, dtype) in inputs.items())
    if len(inputs) != 1:
        raise SpecMismatch(
            "INPUT_NOT_AN_IMAGE",
            f"The graph has {len(inputs)} inputs ({told}); models with one image input are supported. Fix "
            f"the others to constants and export again. {_LIBRARY}",
        )
    if not any(len(shape) in (0, 4) for shape, _ in inputs.values()):  # 0: nothing is declared
        raise SpecMismatch(
            "INPUT_NOT_AN_IMAGE",
            f"The graph's input {told} is no image, which has 4 axes (NCHW or NHWC); models with one image "
            f"input are supported. {_LIBRARY}",
        )


def _input_spec_needed(inputs: Mapping[str, tuple[list[Axis], str]]) -> str:
    name, (shape, dtype) = next(iter(inputs.items()), ("input", ([1, 3, 224, 224], "float32")))
    is_nhwc = len(shape) == 4 and shape[3] in (1, 3)
    sides = shape[1:3] if is_nhwc else shape[2:4]
    height, width = ([axis if isinstance(axis, int) else 224 for axis in sides] + [224, 224])[:2]
    example = {
        "name": name, "layout": "NHWC" if is_nhwc else "NCHW", "height": height, "width": width,
        "color": "RGB", "scale": 1 / 255, "resize": "letterbox",
    }  # fmt: skip
    return (
        f"A file of this format does not say how images become its input {name!r} {_told(shape)} of "
        f"{dtype}. Push it "
        f"with an input spec, for example {json.dumps(example)}; mean and std are per channel, after scale."
    )


def _told(shape: Sequence[Axis]) -> str:
    return "[" + ", ".join("?" if axis is None else str(axis) for axis in shape) + "]"
