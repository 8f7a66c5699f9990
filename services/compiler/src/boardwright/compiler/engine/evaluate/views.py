"""The views of an image that a model is shown: the plain one, mirrored ones, and other input sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from boardwright.compiler.engine.errors import EngineError
from boardwright.model import Detections, InputSpec, Placement, preprocess

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

Merge = Literal["nms", "weighted"]
_LARGEST_STEP = 32
_LOWEST_SCALE, _HIGHEST_SCALE = 0.1, 4.0


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Views whose answers are merged into one: test-time augmentation.

    ``scales`` are relative to the input size; ``flip`` adds the mirror image of each. Detections are merged
    by suppression (``nms``) or by weighted box fusion (``weighted``); class probabilities are averaged.
    """

    flip: bool = False
    scales: tuple[float, ...] = ()
    merge: Merge = "nms"

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but the image itself."""
        return not self.flip and set(self.scales) <= {1.0}


@dataclass(frozen=True, slots=True)
class View:
    """One way to show an image: the InputSpec at its scale, and whether the image is mirrored first."""

    scale: float
    flipped: bool
    input_spec: InputSpec

    def prepare(self, image: Any) -> tuple[Array, Placement]:
        """Return the tensor, a batch of one, and where the image lies in it."""
        return preprocess(_mirrored(image) if self.flipped else image, self.input_spec)

    def unflip(self, found: Detections, placement: Placement) -> Detections:
        """Return detections in the image as it was."""
        if not self.flipped:
            return found
        boxes = found.boxes.copy()
        boxes[:, [0, 2]] = placement.image_width - found.boxes[:, [2, 0]]
        return Detections(boxes, found.scores, found.classes)


@dataclass(frozen=True, slots=True)
class Views:
    """All views to run, each once; the plain one is the first.

    ``merged`` are the positions whose answers make the answer, ``by_scale`` the position of each scale that
    is judged by itself.
    """

    views: tuple[View, ...]
    merged: tuple[int, ...]
    by_scale: dict[float, int]

    @property
    def need_free_axes(self) -> bool:
        """Whether a view has another size than the input spec's."""
        plain = self.views[0].input_spec
        return any(view.input_spec.shape != plain.shape for view in self.views)


def plan_views(input_spec: InputSpec, augmentation: Augmentation, scales: Sequence[float]) -> Views:
    """Return the views that an augmentation and the scales to judge need.

    Raises:
        EngineError: SCALES_INVALID.
    """
    wanted = [(1.0, False)]
    own = augmentation.scales or (1.0,)
    merged = [(scale, flip) for scale in own for flip in ((False, True) if augmentation.flip else (False,))]
    wanted += [*merged, *((scale, False) for scale in scales)]
    unique = list(dict.fromkeys(wanted))
    views = tuple(View(scale, flip, scaled_spec(input_spec, scale)) for scale, flip in unique)
    return Views(
        views,
        tuple(dict.fromkeys(unique.index(entry) for entry in merged)),
        {scale: unique.index((scale, False)) for scale in dict.fromkeys(scales)},
    )


def scaled_spec(spec: InputSpec, scale: float) -> InputSpec:
    """Return the spec at a scale: sides stay multiples of the step (at most 32) that they are multiples of.

    Raises:
        EngineError: SCALES_INVALID, for a scale out of range, or where images are not resized at all.
    """
    if scale == 1.0:
        return spec
    if not _LOWEST_SCALE <= scale <= _HIGHEST_SCALE:
        raise EngineError(
            "SCALES_INVALID",
            f"A scale is relative to the input size, {_LOWEST_SCALE} to {_HIGHEST_SCALE:g}; {scale} is not.",
        )
    if spec.resize == "none":
        raise EngineError(
            "SCALES_INVALID",
            "The input spec demands images of the input's very size (resize is 'none'), so there are no "
            "other scales. Declare letterbox, center-crop or stretch, or evaluate without scales.",
        )
    height, width = _scaled(spec.height, scale), _scaled(spec.width, scale)
    shorter = spec.resize_shorter
    if shorter is not None:
        shorter = max(round(shorter * height / spec.height), height, width)
    return replace(spec, height=height, width=width, resize_shorter=shorter)


def with_free_axes(model: onnx.ModelProto, input_spec: InputSpec) -> onnx.ModelProto:
    """Return a copy whose input has free height and width.

    ``import`` fixes shapes. Most classifiers and fully convolutional detectors run at other sizes all the
    same, unless sizes are constants inside of them, and then the runtime says so.
    """
    import onnx

    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    axes = (2, 3) if input_spec.layout == "NCHW" else (1, 2)
    for value in freed.graph.input:
        if value.name == input_spec.name:
            for axis, name in zip(axes, ("height", "width"), strict=True):
                value.type.tensor_type.shape.dim[axis].Clear()
                value.type.tensor_type.shape.dim[axis].dim_param = name
    del freed.graph.value_info[:]
    for output in freed.graph.output:
        output.type.tensor_type.ClearField("shape")
    return freed


def _scaled(side: int, scale: float) -> int:
    step = min(_LARGEST_STEP, side & -side)
    return max(step, round(side * scale / step) * step)


def _mirrored(image: Any) -> Any:
    import numpy as np

    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image[:, ::-1])
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
