"""OutputSpec: what a model's output tensors mean, so that quality can be judged without the user's code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from boardwright.model.documents import from_document, to_document
from boardwright.model.errors import ModelError

SCHEMA = "output-spec/1"
REASON = "OUTPUT_SPEC_INVALID"

Task = Literal["classification", "detection"]
Head = Literal[
    "logits", "probabilities", "yolov5", "yolov8", "yolo-end2end", "yolox", "gfl", "ssd", "dense", "detr",
    "postprocessed", "plugin",
]  # fmt: skip
BoxFormat = Literal["xywh", "xyxy", "yxyx"]
ScoreActivation = Literal["none", "sigmoid", "softmax"]
Background = Literal["none", "first", "last"]

_HEADS: dict[str, tuple[str, ...]] = {
    "classification": ("logits", "probabilities"),
    "detection": (
        "yolov5", "yolov8", "yolo-end2end", "yolox", "gfl", "ssd", "dense", "detr", "postprocessed", "plugin",
    ),
}  # fmt: skip
_FIRST_FIELDS = frozenset(
    {
        "task", "head", "num_classes", "name", "labels", "box_format", "boxes_normalized", "score_threshold",
        "iou_threshold", "max_detections", "multi_label",
    }
)  # fmt: skip
"""Always written. The others are left out of the JSON at their default, so that a document that does not
need them stays readable by the program of a device that knows nothing of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """The head's family and how to decode it.

    Heads, with N candidates and C classes (a leading batch axis is always there):

    - ``logits`` (C): class scores before softmax. ``probabilities`` (C): after it.
    - ``yolov5`` (N, 5 + C): box, objectness, class scores; the score is objectness × class score.
    - ``yolov8`` (4 + C, N): box, class scores (YOLOv8, YOLO11, YOLO26 exported with their raw head). The
      transposed (N, 4 + C) is told by the shape.
    - ``yolo-end2end`` (K, 6): xyxy box, score, class index; no suppression is needed (YOLOv10, YOLO26).
    - ``yolox`` (N, 5 + C): as ``yolov5``, with boxes still relative to the grid: centre = (value + cell) *
      stride, size = exp(value) * stride. (Exported with its decoding, YOLOX is read by head ``yolov5``.)
    - ``gfl`` (N, C + 4 * B), or scores (N, C) and boxes (N, 4 * B) in outputs of their own, all levels in one
      or one per level: the distances to left, top, right, bottom in strides, each the mean of a softmax over
      B bins (NanoDet, GFL); with B = 1 the distances themselves.
    - ``ssd``: offsets (N, 4) to prior boxes and scores (N, C and a background), in two outputs.
    - ``dense``: boxes (N, 4), decoded, and scores (N, C) in two outputs; they need suppression (YOLO-NAS).
    - ``detr``: boxes (Q, 4), normalised centre and size, and class scores (Q, C) in two outputs, without
      suppression; with softmax and a background each query gives its best class. In one output: (Q, 6) box,
      score, class index, or (Q, 4 + C) box and class scores (Ultralytics' RT-DETR).
    - ``postprocessed``: boxes (K, 4), scores (K,), class indices (K,) in three outputs, after suppression in
      the graph (TF's detection_boxes…, torchvision's boxes, labels, scores); the batch axis may be missing.
    - ``plugin``: whatever the decoder named ``plugin`` reads; see ``boardwright.model.plugins``.

    Attributes:
        name: the graph output's name; empty means the first output.
        num_classes: C.
        labels: the classes' names in index order; empty when unknown.
        box_format: ``xywh`` is centre and size, ``xyxy`` two corners; the end-to-end head has ``xyxy``.
        boxes_normalized: boxes are 0 to 1 of the tensor's size instead of pixels.
        score_threshold: detections below it are left out.
        iou_threshold: of non-maximum suppression within one class.
        max_detections: the best so many are kept per image.
        multi_label: one box may be reported for several classes, each by its own score; else for its best.
        box_outputs, score_outputs: the graph outputs that hold them, one or one per level, for heads with
            several outputs; empty: told by their shapes.
        class_output, count_output: class indices, and the number of valid rows, of ``postprocessed``.
        class_offset: the class index that the outputs give to class 0 (1 where 0 is the background).
        score_activation: what still has to be applied to the scores.
        background: which of the scores is "nothing here"; it does not count among ``num_classes``.
        strides: of the levels, finest first (``yolox``, ``gfl``).
        cell_offset: where in its cell a prior lies, 0 (corner) or 0.5 (centre), for ``gfl``.
        prior_output: for ``ssd``, the graph output with the priors (N, 4), normalised centre and size.
        priors: else the priors by level, in order of the outputs' rows: objects with ``grid`` [rows,
            columns], ``stride`` (pixels, or [down, across]), ``sizes`` [[width, height], ...] in pixels of
            the tensor, ``offset`` (0.5). Within a level rows vary slowest, then columns, then sizes.
        variances: what offsets of centre and size are multiplied with (SSD's 0.1 and 0.2).
        plugin: name of the entry point; ``options`` are for it.
    """

    task: Task
    head: Head
    num_classes: int
    name: str = ""
    labels: tuple[str, ...] = ()
    box_format: BoxFormat = "xywh"
    boxes_normalized: bool = False
    score_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 300
    multi_label: bool = False
    box_outputs: tuple[str, ...] = ()
    score_outputs: tuple[str, ...] = ()
    class_output: str = ""
    count_output: str = ""
    class_offset: int = 0
    score_activation: ScoreActivation = "none"
    background: Background = "none"
    strides: tuple[int, ...] = (8, 16, 32)
    cell_offset: float = 0.0
    prior_output: str = ""
    priors: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    variances: tuple[float, ...] = (0.1, 0.2)
    plugin: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, literal in _CHOICES.items():
            if getattr(self, name) not in get_args(literal):
                allowed = ", ".join(get_args(literal))
                raise ModelError(
                    REASON, f"output spec: {name} must be one of {allowed}, not {getattr(self, name)!r}"
                )
        if self.head not in _HEADS[self.task]:
            raise ModelError(
                REASON,
                f"output spec: head {self.head} does not belong to {self.task}; "
                f"use one of {', '.join(_HEADS[self.task])}",
            )
        for name in ("labels", "box_outputs", "score_outputs", "strides", "priors", "variances"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.num_classes < 1:
            raise ModelError(REASON, f"output spec: num_classes must be at least 1, not {self.num_classes}")
        if self.labels and len(self.labels) != self.num_classes:
            raise ModelError(REASON, f"output spec: {len(self.labels)} labels for {self.num_classes} classes")
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(REASON, f"output spec: {name} must be 0 to 1, not {getattr(self, name)}")
        if self.max_detections < 1:
            raise ModelError(
                REASON, f"output spec: max_detections must be at least 1, not {self.max_detections}"
            )
        self._check_head()

    def _check_head(self) -> None:
        if self.head == "yolo-end2end":
            object.__setattr__(self, "box_format", "xyxy")
        if self.head == "detr":
            object.__setattr__(self, "boxes_normalized", True)
        if (self.head == "plugin") != bool(self.plugin):
            raise ModelError(
                REASON,
                "output spec: head 'plugin' and the field plugin (the name of the decoder's entry point) "
                "belong together",
            )
        if not self.strides or any(stride < 1 for stride in self.strides):
            raise ModelError(REASON, f"output spec: strides must be 1 or more, not {list(self.strides)}")
        if len(self.variances) != 2 or not all(math.isfinite(v) and v > 0 for v in self.variances):
            raise ModelError(
                REASON, f"output spec: variances are two numbers above 0, not {list(self.variances)}"
            )
        if self.head == "ssd" and bool(self.priors) == bool(self.prior_output):
            raise ModelError(
                REASON,
                "output spec: head 'ssd' needs its prior boxes: either prior_output (the graph output that "
                'holds them) or priors, for example [{"grid": [19, 19], "stride": 16, '
                '"sizes": [[60, 60], [85, 42]]}], one entry per level',
            )
        for number, level in enumerate(self.priors):
            _check_level(level, f"output spec: priors[{number}]")

    def label(self, index: int) -> str:
        """The name of a class, or its number where no labels were given."""
        return self.labels[index] if 0 <= index < len(self.labels) else str(index)

    def for_evaluation(self) -> "OutputSpec":
        """The same head with the thresholds mean average precision is measured at by convention.

        A mean over the whole precision-recall curve needs the low-scored detections too: score threshold
        0.001, suppression at IoU 0.65, 300 detections, several classes per box (yolov5's own command for its
        COCO figures: ``val.py --conf 0.001 --iou 0.65``).
        """
        if self.task != "detection":
            return self
        return replace(self, score_threshold=0.001, iou_threshold=0.65, max_detections=300, multi_label=True)

    def to_json(self) -> dict[str, Any]:
        """The versioned JSON object."""
        document = to_document(self, SCHEMA)
        plain = to_document(OutputSpec(task=self.task, head=_HEADS[self.task][0], num_classes=1), SCHEMA)  # type: ignore[arg-type]
        for entry in fields(self):
            if entry.name not in _FIRST_FIELDS and document[entry.name] == plain[entry.name]:
                del document[entry.name]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str | bytes) -> "OutputSpec":
        """Read a spec from its JSON object or text.

        Raises:
            ModelError: ``OUTPUT_SPEC_INVALID``, naming the field; an unknown field is an error.
        """
        return from_document(cls, document, schema=SCHEMA, reason=REASON, what="output spec")


_CHOICES = {
    "task": Task,
    "head": Head,
    "box_format": BoxFormat,
    "score_activation": ScoreActivation,
    "background": Background,
}


def _check_level(level: Mapping[str, Any], where: str) -> None:
    """Check one level of prior boxes; numbers are checked as numbers, for they come from a document."""

    def numbers(value: Any, count: int) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == count
            and all(isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in value)
        )

    unknown = set(level) - {"grid", "stride", "sizes", "offset"}
    if unknown:
        raise ModelError(REASON, f"{where}: unknown field {sorted(unknown)[0]!r}")
    grid, sizes = level.get("grid"), level.get("sizes")
    if not numbers(grid, 2) or not all(isinstance(side, int) for side in grid or ()):
        raise ModelError(REASON, f"{where}: grid must be [rows, columns], not {grid!r}")
    stride = level.get("stride")
    if not numbers(stride if isinstance(stride, (list, tuple)) else (stride, stride), 2):
        raise ModelError(REASON, f"{where}: stride must be pixels or [down, across], not {stride!r}")
    if not isinstance(sizes, (list, tuple)) or not sizes or not all(numbers(size, 2) for size in sizes):
        raise ModelError(REASON, f"{where}: sizes must be [[width, height], ...] in pixels, not {sizes!r}")
    offset = level.get("offset", 0.5)
    if not isinstance(offset, (int, float)) or not 0 <= offset <= 1:
        raise ModelError(REASON, f"{where}: offset must be 0 to 1, not {offset!r}")
