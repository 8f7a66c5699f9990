"""A teacher as answers to images: a float graph in ONNX Runtime, read by its own InputSpec and OutputSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from boardwright.compiler.engine.errors import DatasetUnfit, EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.model import Detections, InputSpec, ModelError, OutputSpec, Placement, decode, preprocess

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.training.data import Source

    Array = np.ndarray[Any, Any]

_KEPT_BYTES = 1 << 30
_MOST_BOXES = 100


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the teacher says of one image: ``tensors`` by name without the batch axis, and for decoded boxes
    ``boxes`` (T, 6): xyxy in pixels of the student's tensor, score, class."""

    tensors: Mapping[str, Array]
    boxes: Array | None = None

    @property
    def size_bytes(self) -> int:
        """What keeping it costs."""
        return sum(value.nbytes for value in self.tensors.values())


@dataclass(slots=True)
class Teacher:
    """A teacher's graph with its specs. ``wanted`` are further tensors of the graph to give beside the
    outputs; ``score_threshold`` above 0 decodes boxes."""

    model: onnx.ModelProto
    input_spec: InputSpec
    output_spec: OutputSpec
    wanted: tuple[str, ...] = ()
    score_threshold: float = 0.0
    _session: Any = field(default=None, init=False, repr=False)

    def answer(self, image: Any, student_placement: Placement) -> Answer:
        """Return the answer to one image (Pillow, or (H, W, C) uint8)."""
        tensor, placement = preprocess(image, self.input_spec)
        names, batch = self._open()
        found = self._session.run(names, {self.input_spec.name: np.repeat(tensor, batch, axis=0)})
        tensors = {name: value[0] for name, value in zip(names, found, strict=True)}
        if not self.score_threshold:
            return Answer(tensors)
        outputs = {name: value[:1] for name, value in zip(names, found, strict=True)}
        kept = {name: tensors[name] for name in self.wanted}
        return Answer(kept, self._boxes(outputs, placement, student_placement))

    def _boxes(self, outputs: dict[str, Array], placement: Placement, student: Placement) -> Array:
        spec = replace(
            self.output_spec, score_threshold=self.score_threshold, max_detections=_MOST_BOXES,
            iou_threshold=0.65,
        )  # fmt: skip
        found = decode(outputs, spec, placement, self.input_spec)
        assert isinstance(found, Detections)
        scale = np.array([student.scale_x, student.scale_y] * 2, np.float32)
        offset = np.array([student.offset_x, student.offset_y] * 2, np.float32)
        return np.concatenate(
            [found.boxes * scale + offset, found.scores[:, None], found.classes[:, None]], axis=1
        ).astype(np.float32)

    def _open(self) -> tuple[list[str], int]:
        if self._session is None:
            self._session = open_session(_with_outputs(self.model, self.wanted))
        axis = next(v.shape[0] for v in self._session.get_inputs() if v.name == self.input_spec.name)
        names = [value.name for value in self._session.get_outputs()]
        return names, axis if isinstance(axis, int) else 1


class Answers:
    """A teacher's answers to the batches of a student, by sample.

    Where images reach the student as they are in the dataset (``augmented`` False), the teacher sees the
    original image, prepared by its own InputSpec, and answers are kept up to a gigabyte. Augmented batches
    are shown to it as the student sees them: the student's tensor, brought to the teacher's size and scaling.
    """

    def __init__(
        self, teacher: Teacher, source: Source, spec: InputSpec, indices: Sequence[int], *, augmented: bool
    ) -> None:
        self._teacher, self._source, self._spec, self._augmented = teacher, source, spec, augmented
        self._kept: dict[str, Answer] = {}
        self._index: dict[str, int] = {}
        if not augmented:
            self._learn(indices)

    def to(self, names: Sequence[str], inputs: torch.Tensor) -> list[Answer]:
        """Return the answers to a batch: the samples' ``names``, or the student's ``inputs`` (N, …)."""
        if self._augmented:
            images = tensor_to_images(inputs, self._spec)
            return [self._teacher.answer(image, _itself(image)) for image in images]
        return [self._kept[name] if name in self._kept else self._ask(self._index[name]) for name in names]

    def _learn(self, indices: Sequence[int]) -> None:
        size = 0
        for index, (name, image) in zip(indices, self._source.read(indices), strict=True):
            if name in self._index:
                raise DatasetUnfit(
                    "SAMPLES_REPEATED", f"Two samples are called {name!r}: give each a name of its own."
                )
            self._index[name] = index
            if size < _KEPT_BYTES:
                self._kept[name] = self._answer(name, image)
                size += self._kept[name].size_bytes

    def _ask(self, index: int) -> Answer:
        name, image = next(iter(self._source.read([index])))
        return self._answer(name, image)

    def _answer(self, name: str, image: Any) -> Answer:
        try:
            return self._teacher.answer(image, preprocess(image, self._spec)[1])
        except ModelError as error:
            raise DatasetUnfit(
                error.reason, f"Sample {name!r}: {error.message}. Correct the dataset or the teacher's specs."
            ) from error


def check_teacher(student: OutputSpec, teacher: OutputSpec) -> None:
    """Check that both speak of the same classes.

    Raises:
        EngineError: DISTILL_TASKS_DIFFER, DISTILL_CLASSES_DIFFER; the message names what differs.
    """
    if student.task != teacher.task:
        raise EngineError(
            "DISTILL_TASKS_DIFFER",
            f"The student does {student.task} and the teacher {teacher.task}: name a teacher of its task.",
        )
    ours, theirs = student.labels, teacher.labels
    different = ""
    if student.num_classes != teacher.num_classes:
        different = f"the student knows {student.num_classes} classes and the teacher {teacher.num_classes}"
    elif ours and theirs and ours != theirs and not _numbered(ours) and not _numbered(theirs):
        place = next(n for n, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        different = f"class {place} is {ours[place]!r} to the student and {theirs[place]!r} to the teacher"
        if set(ours) == set(theirs):
            different += " (the same names in another order)"
    if different:
        raise EngineError(
            "DISTILL_CLASSES_DIFFER",
            f"What the teacher says cannot teach the student: {different}. Train the teacher on the "
            "student's classes, in their order, or name another one.",
        )


def tensor_to_images(inputs: torch.Tensor, spec: InputSpec) -> list[Array]:
    """Return a student's input (N, …) as images (H, W, C) uint8 in RGB or gray, undoing its preparation."""
    array = inputs.detach().numpy().astype(np.float64)
    if spec.layout == "NCHW":
        array = array.transpose(0, 2, 3, 1)
    if spec.std:
        array = array * np.array(spec.std)
    if spec.mean:
        array = array + np.array(spec.mean)
    pixels = np.clip(np.rint(array / spec.scale), 0, 255).astype(np.uint8)
    if spec.color == "BGR":
        pixels = pixels[..., ::-1]
    return list(pixels)


def _numbered(labels: Sequence[str]) -> bool:
    """Tell labels that are no names: 0, 1, 2… as exporters write them where none were given."""
    return all(label == str(index) for index, label in enumerate(labels))


def _itself(image: Array) -> Placement:
    return Placement(image.shape[1], image.shape[0], 1.0, 1.0, 0.0, 0.0)


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return copy
