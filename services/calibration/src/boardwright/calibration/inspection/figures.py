"""The figures of one image, from Pillow's histograms: no array of its pixels is ever made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from boardwright.calibration.domain.statistics import BINS, ImageFigures

if TYPE_CHECKING:
    from PIL import Image


def measure(image: Image.Image) -> ImageFigures:
    """Measure a decoded image of mode "L" or "RGB"."""
    values = image.histogram()
    channels = tuple(_binned(values[start : start + 256]) for start in range(0, len(values), 256))
    luma = values if image.mode == "L" else image.convert("L").histogram()
    count = sum(luma)
    mean = sum(level * number for level, number in enumerate(luma)) / count
    variance = sum((level - mean) ** 2 * number for level, number in enumerate(luma)) / count
    return ImageFigures(image.width, image.height, mean / 255, math.sqrt(variance) / 255, channels)


def _binned(values: list[int]) -> tuple[int, ...]:
    width = 256 // BINS
    return tuple(sum(values[start : start + width]) for start in range(0, 256, width))
