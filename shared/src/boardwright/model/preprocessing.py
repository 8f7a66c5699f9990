"""From an image to the tensor an InputSpec describes, and back from tensor pixels to image pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boardwright.model.errors import ModelError
from boardwright.model.input_spec import InputSpec

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in its tensor: ``tensor = image * scale + offset`` (pixels, per axis)."""

    image_width: int
    image_height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_image(self, boxes: npt.NDArray[Any]) -> FloatArray:
        """Map (N, 4) xyxy boxes in tensor pixels to image pixels, cut to the image."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        limit = np.array([self.image_width, self.image_height] * 2, np.float32)
        mapped = (boxes.astype(np.float32, copy=False) - offset) / scale
        clipped: FloatArray = np.clip(mapped, 0, limit)
        return clipped


def preprocess(
    image: "Image.Image | npt.NDArray[Any]", spec: InputSpec
) -> tuple[npt.NDArray[Any], Placement]:
    """Turn one image into a batch of one.

    Args:
        image: a Pillow image (any mode), or a uint8 array of (H, W), (H, W, 1) or (H, W, 3) in RGB order.
        spec: what the model expects.

    Returns:
        The tensor with a batch axis of 1, of ``spec.dtype`` and ``spec.layout``; and where the image lies.

    Raises:
        ModelError: ``IMAGE_DOES_NOT_FIT`` when the array's shape or type is no image, or ``resize`` is
            ``none`` and the size differs.
    """
    pixels = _pixels(image, spec)
    resized, placement = _resize(pixels, spec)
    if spec.color == "BGR":
        resized = resized[:, :, ::-1]
    return _normalize(resized, spec)[np.newaxis], placement


def preprocess_batch(
    images: Sequence["Image.Image | npt.NDArray[Any]"], spec: InputSpec
) -> tuple[npt.NDArray[Any], list[Placement]]:
    """Turn several images into one tensor; see ``preprocess``."""
    if not images:
        raise ModelError("IMAGE_DOES_NOT_FIT", "a batch needs at least one image")
    tensors, placements = zip(*(preprocess(image, spec) for image in images), strict=True)
    return np.concatenate(tensors), list(placements)


def _pixels(image: "Image.Image | npt.NDArray[Any]", spec: InputSpec) -> ByteArray:
    """The image as (H, W, channels) uint8 in RGB or gray."""
    if not isinstance(image, np.ndarray):
        mode = "L" if spec.color == "GRAY" else "RGB"
        converted = image if image.mode == mode else image.convert(mode)
        array = np.asarray(converted, np.uint8)
        return array[:, :, np.newaxis] if array.ndim == 2 else array
    array = image[:, :, np.newaxis] if image.ndim == 2 else image
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ModelError(
            "IMAGE_DOES_NOT_FIT",
            f"an image is uint8 of shape (H, W), (H, W, 1) or (H, W, 3), not {image.dtype} {image.shape}",
        )
    if array.shape[2] == spec.channels:
        return array
    if spec.channels == 3:
        return np.repeat(array, 3, axis=2)
    # ITU-R 601-2 luma with Pillow's own integer weights, so that both ways give the same gray.
    weighted = array.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[:, :, np.newaxis]


def _resize(pixels: ByteArray, spec: InputSpec) -> tuple[ByteArray, Placement]:
    height, width = pixels.shape[:2]
    if spec.resize == "letterbox":
        return _letterbox(pixels, spec)
    if spec.resize == "center-crop":
        return _center_crop(pixels, spec)
    if spec.resize == "none" and (height, width) != (spec.height, spec.width):
        raise ModelError(
            "IMAGE_DOES_NOT_FIT",
            f"the image is {width}x{height} px, the input spec demands {spec.width}x{spec.height} "
            "(resize is 'none'); resize the image or set resize to letterbox, center-crop or stretch",
        )
    resized = scale_image(pixels, spec.width, spec.height, spec.interpolation)
    return resized, Placement(width, height, spec.width / width, spec.height / height, 0.0, 0.0)


def _letterbox(pixels: ByteArray, spec: InputSpec) -> tuple[ByteArray, Placement]:
    """Scale to fit, pad evenly (the YOLO families' rule, with their rounding)."""
    height, width = pixels.shape[:2]
    ratio = min(spec.height / height, spec.width / width)
    new_width = min(spec.width, max(1, round(width * ratio)))
    new_height = min(spec.height, max(1, round(height * ratio)))
    left = round((spec.width - new_width) / 2 - 0.1)
    top = round((spec.height - new_height) / 2 - 0.1)
    canvas = np.full((spec.height, spec.width, pixels.shape[2]), spec.pad_value, np.uint8)
    resized = scale_image(pixels, new_width, new_height, spec.interpolation)
    canvas[top : top + new_height, left : left + new_width] = resized
    return canvas, Placement(width, height, ratio, ratio, float(left), float(top))


def _center_crop(pixels: ByteArray, spec: InputSpec) -> tuple[ByteArray, Placement]:
    height, width = pixels.shape[:2]
    if spec.resize_shorter is not None:
        ratio = spec.resize_shorter / min(height, width)
    else:
        ratio = max(spec.height / height, spec.width / width)
    new_width = max(spec.width, round(width * ratio))
    new_height = max(spec.height, round(height * ratio))
    resized = scale_image(pixels, new_width, new_height, spec.interpolation)
    left, top = (new_width - spec.width) // 2, (new_height - spec.height) // 2
    cut = resized[top : top + spec.height, left : left + spec.width]
    return cut, Placement(width, height, new_width / width, new_height / height, float(-left), float(-top))


def scale_image(pixels: ByteArray, width: int, height: int, interpolation: str) -> ByteArray:
    """Scale (H, W, C) uint8 pixels to a size; see ``InputSpec.interpolation``."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if interpolation == "bilinear":
        return _bilinear(pixels, width, height)
    from PIL import Image

    resampling = {
        "nearest": Image.Resampling.NEAREST,
        "bicubic": Image.Resampling.BICUBIC,
        "area": Image.Resampling.BOX,
    }[interpolation]
    gray = pixels.shape[2] == 1
    picture = Image.fromarray(pixels[:, :, 0] if gray else np.ascontiguousarray(pixels))
    scaled = np.asarray(picture.resize((width, height), resampling), np.uint8)
    return scaled[:, :, np.newaxis] if gray else scaled


def _bilinear(pixels: ByteArray, width: int, height: int) -> ByteArray:
    """Four-neighbour bilinear sampling at pixel centres, as OpenCV's INTER_LINEAR."""
    top, bottom, down = _neighbours(pixels.shape[0], height)
    left, right, across = _neighbours(pixels.shape[1], width)
    used = np.unique(np.concatenate([top, bottom]))
    position = np.zeros(pixels.shape[0], np.intp)
    position[used] = np.arange(len(used))
    rows = pixels[used]
    weight = across[np.newaxis, :, np.newaxis]
    first = rows[:, left].astype(np.float32)
    first += (rows[:, right].astype(np.float32) - first) * weight
    upper = first[position[top]]
    upper += (first[position[bottom]] - upper) * down[:, np.newaxis, np.newaxis]
    upper += 0.5
    scaled: ByteArray = upper.astype(np.uint8)
    return scaled


def _neighbours(size: int, new_size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]:
    centre = (np.arange(new_size, dtype=np.float64) + 0.5) * (size / new_size) - 0.5
    centre = np.clip(centre, 0, size - 1)
    low = np.floor(centre).astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (centre - low).astype(np.float32)


def _normalize(pixels: ByteArray, spec: InputSpec) -> npt.NDArray[Any]:
    """(H, W, C) uint8 to the spec's type and axes, through a table of the 256 possible values per channel."""
    levels = np.arange(256, dtype=np.float64)[:, np.newaxis] * spec.scale
    mean = np.array(spec.mean or (0.0,) * spec.channels)
    std = np.array(spec.std or (1.0,) * spec.channels)
    table = (levels - mean) / std
    if spec.dtype in ("uint8", "int8"):
        bounds = np.iinfo(spec.dtype)
        table = np.clip(np.rint(table), bounds.min, bounds.max)
    table = table.astype(spec.dtype)
    planes = [table[:, channel][pixels[:, :, channel]] for channel in range(spec.channels)]
    return np.stack(planes, axis=0 if spec.layout == "NCHW" else 2)
