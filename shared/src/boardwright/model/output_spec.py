"""OutputSpec: what a model's output tensors mean, so that quality can be judged without the user's code."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from boardwright.model.documents import from_document, to_document
from boardwright.model.errors import ModelError

SCHEMA = "output-spec/1"
REASON = "OUTPUT_SPEC_INVALID"

Task = Literal["classification", "detection"]
Head = Literal["logits", "probabilities", "yolov5", "yolov8", "yolo-end2end"]
BoxFormat = Literal["xywh", "xyxy"]

_HEADS: dict[str, tuple[str, ...]] = {
    "classification": ("logits", "probabilities"),
    "detection": ("yolov5", "yolov8", "yolo-end2end"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """The head's family and how to decode it.

    Heads, with N candidates and C classes (a leading batch axis is always there):

    - ``logits`` (C): class scores before softmax. ``probabilities`` (C): after it.
    - ``yolov5`` (N, 5 + C): box, objectness, class scores; the score is objectness × class score.
    - ``yolov8`` (4 + C, N): box, class scores (YOLOv8, YOLO11, YOLO26 exported with their raw head). The
      transposed (N, 4 + C) is told by the shape.
    - ``yolo-end2end`` (K, 6): xyxy box, score, class index; no suppression is needed (YOLOv10, YOLO26).

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

    def __post_init__(self) -> None:
        for field, literal in {"task": Task, "head": Head, "box_format": BoxFormat}.items():
            if getattr(self, field) not in get_args(literal):
                allowed = ", ".join(get_args(literal))
                raise ModelError(
                    REASON, f"output spec: {field} must be one of {allowed}, not {getattr(self, field)!r}"
                )
        if self.head not in _HEADS[self.task]:
            raise ModelError(
                REASON,
                f"output spec: head {self.head} does not belong to {self.task}; "
                f"use one of {', '.join(_HEADS[self.task])}",
            )
        object.__setattr__(self, "labels", tuple(self.labels))
        if self.num_classes < 1:
            raise ModelError(REASON, f"output spec: num_classes must be at least 1, not {self.num_classes}")
        if self.labels and len(self.labels) != self.num_classes:
            raise ModelError(REASON, f"output spec: {len(self.labels)} labels for {self.num_classes} classes")
        for field in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, field) <= 1:
                raise ModelError(REASON, f"output spec: {field} must be 0 to 1, not {getattr(self, field)}")
        if self.max_detections < 1:
            raise ModelError(
                REASON, f"output spec: max_detections must be at least 1, not {self.max_detections}"
            )
        if self.head == "yolo-end2end" and self.box_format != "xyxy":
            object.__setattr__(self, "box_format", "xyxy")

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
        return to_document(self, SCHEMA)

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str | bytes) -> "OutputSpec":
        """Read a spec from its JSON object or text.

        Raises:
            ModelError: ``OUTPUT_SPEC_INVALID``, naming the field; an unknown field is an error.
        """
        return from_document(cls, document, schema=SCHEMA, reason=REASON, what="output spec")
