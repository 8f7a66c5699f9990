"""InputSpec: how an image becomes the tensor a model was trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from boardwright.model.documents import from_document, to_document
from boardwright.model.errors import ModelError

SCHEMA = "input-spec/1"
REASON = "INPUT_SPEC_INVALID"

Layout = Literal["NCHW", "NHWC"]
Color = Literal["RGB", "BGR", "GRAY"]
Resize = Literal["letterbox", "center-crop", "stretch", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
TensorType = Literal["float32", "float16", "uint8", "int8"]

MAX_SIDE = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """Declared at push or derived by ``import``; then used unchanged for calibration, evaluation, measurement
    and by the device.

    A pixel ``p`` (0 to 255) becomes ``(p * scale - mean) / std`` per channel, in ``color`` order.

    Attributes:
        name: the graph input's name.
        layout: order of the tensor's axes.
        height, width: size of the tensor in pixels.
        channels: 3 for RGB and BGR, 1 for GRAY.
        dtype: the tensor's element type.
        scale: multiplied with each pixel first (1/255 gives 0 to 1).
        mean, std: per channel, in ``color`` order, after ``scale``; empty means 0 and 1.
        resize: ``letterbox`` keeps the aspect and pads; ``center-crop`` scales the shorter side to
            ``resize_shorter`` and cuts the centre; ``stretch`` ignores the aspect; ``none`` demands the size.
        resize_shorter: for ``center-crop``, the shorter side in pixels before the cut; None means no scaling
            beyond what the crop needs.
        interpolation: ``bilinear`` samples four neighbours without anti-aliasing (OpenCV's INTER_LINEAR, what
            the YOLO families were trained with); ``bicubic`` and ``area`` filter over the shrunk area.
        pad_value: the letterbox's colour, 0 to 255 in every channel.
        batch: the graph's fixed batch size; None when it is free.
    """

    height: int
    width: int
    name: str = "input"
    layout: Layout = "NCHW"
    channels: int = 3
    dtype: TensorType = "float32"
    color: Color = "RGB"
    scale: float = 1.0 / 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Resize = "stretch"
    resize_shorter: int | None = None
    interpolation: Interpolation = "bilinear"
    pad_value: int = 114
    batch: int | None = None

    def __post_init__(self) -> None:
        self._check_choices()
        for side in ("height", "width"):
            if not 1 <= getattr(self, side) <= MAX_SIDE:
                raise ModelError(
                    REASON, f"input spec: {side} must be 1 to {MAX_SIDE}, not {getattr(self, side)}"
                )
        expected = 1 if self.color == "GRAY" else 3
        if self.channels != expected:
            raise ModelError(
                REASON, f"input spec: color {self.color} has {expected} channels, not {self.channels}"
            )
        for per_channel in ("mean", "std"):
            values = getattr(self, per_channel)
            object.__setattr__(self, per_channel, tuple(float(value) for value in values))
            if len(values) not in (0, self.channels):
                raise ModelError(
                    REASON,
                    f"input spec: {per_channel} needs {self.channels} values (or none), not {len(values)}",
                )
            if not all(math.isfinite(value) for value in values):
                raise ModelError(REASON, f"input spec: {per_channel} holds a value that is not finite")
        if any(value == 0 for value in self.std):
            raise ModelError(REASON, "input spec: std holds a zero, which pixels would be divided by")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ModelError(
                REASON, f"input spec: scale must be a finite number other than 0, not {self.scale}"
            )
        if not 0 <= self.pad_value <= 255:
            raise ModelError(REASON, f"input spec: pad_value must be 0 to 255, not {self.pad_value}")
        if self.batch is not None and self.batch < 1:
            raise ModelError(REASON, f"input spec: batch must be at least 1, not {self.batch}")
        self._check_crop()

    def _check_choices(self) -> None:
        choices = {
            "layout": Layout,
            "color": Color,
            "resize": Resize,
            "interpolation": Interpolation,
            "dtype": TensorType,
        }
        for field, literal in choices.items():
            if getattr(self, field) not in get_args(literal):
                allowed = ", ".join(get_args(literal))
                raise ModelError(
                    REASON, f"input spec: {field} must be one of {allowed}, not {getattr(self, field)!r}"
                )

    def _check_crop(self) -> None:
        if self.resize_shorter is None:
            return
        if self.resize != "center-crop":
            raise ModelError(REASON, "input spec: resize_shorter belongs to resize 'center-crop' only")
        if not max(self.height, self.width) <= self.resize_shorter <= MAX_SIDE:
            raise ModelError(
                REASON,
                f"input spec: resize_shorter {self.resize_shorter} must be at least the crop's "
                f"{max(self.height, self.width)} px",
            )

    @property
    def shape(self) -> tuple[int | None, int, int, int]:
        """The graph input's shape, batch first."""
        if self.layout == "NCHW":
            return (self.batch, self.channels, self.height, self.width)
        return (self.batch, self.height, self.width, self.channels)

    def to_json(self) -> dict[str, Any]:
        """The versioned JSON object."""
        return to_document(self, SCHEMA)

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str | bytes) -> "InputSpec":
        """Read a spec from its JSON object or text.

        Raises:
            ModelError: ``INPUT_SPEC_INVALID``, naming the field; an unknown field is an error.
        """
        return from_document(cls, document, schema=SCHEMA, reason=REASON, what="input spec")

    def check_against(self, graph_inputs: Mapping[str, tuple[Sequence[int | str | None], str]]) -> None:
        """Check that the spec fits a graph.

        Args:
            graph_inputs: per input name its shape (a str or None for a free axis) and element type by its
                NumPy name ("float32"; ONNX Runtime's "tensor(float)" is understood too).

        Raises:
            ModelError: ``INPUT_SPEC_DOES_NOT_FIT``, naming what differs and what the graph has.
        """
        if self.name not in graph_inputs:
            raise ModelError(
                "INPUT_SPEC_DOES_NOT_FIT",
                f"input spec: the graph has no input {self.name!r}; its inputs: {', '.join(graph_inputs)}",
            )
        shape, dtype = graph_inputs[self.name]
        self._check_shape(shape)
        if _numpy_name(dtype) != self.dtype:
            raise ModelError(
                "INPUT_SPEC_DOES_NOT_FIT",
                f"input spec: dtype {self.dtype} but the graph's input {self.name!r} is {_numpy_name(dtype)}",
            )

    def _check_shape(self, shape: Sequence[int | str | None]) -> None:
        if len(shape) != 4:
            raise ModelError(
                "INPUT_SPEC_DOES_NOT_FIT",
                f"input spec: the graph's input {self.name!r} has {len(shape)} axes {list(shape)}, "
                f"an image has 4 ({self.layout})",
            )
        fixed = [axis if isinstance(axis, int) and axis > 0 else None for axis in shape]
        names = _AXES[self.layout]
        for name, declared, actual in zip(names, self.shape, fixed, strict=True):
            if actual is None or declared is None or actual == declared:
                continue
            other = "NHWC" if self.layout == "NCHW" else "NCHW"
            axes = dict(zip(_AXES[other], fixed, strict=True))
            fits_other = all(
                axes[axis] in (None, getattr(self, axis)) for axis in ("channels", "height", "width")
            )
            hint = f"; it would fit layout {other}" if fits_other else ""
            raise ModelError(
                "INPUT_SPEC_DOES_NOT_FIT",
                f"input spec: {name} is {declared} but the graph's input {self.name!r} has {actual} "
                f"(shape {list(shape)}){hint}",
            )


_AXES = {
    "NCHW": ("batch", "channels", "height", "width"),
    "NHWC": ("batch", "height", "width", "channels"),
}
_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


def _numpy_name(dtype: str) -> str:
    return _ONNX_TYPES.get(dtype, dtype)
