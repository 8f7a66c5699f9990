"""Variety from few images: mirrored, cut or padded, recoloured. Boxes are not moved along: none are used."""

from __future__ import annotations

from typing import Any

import numpy as np

from boardwright.compiler.engine.training.options import DataOptions
from boardwright.model.preprocessing import scale_image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def augment(
    image: Any, options: DataOptions, rng: np.random.Generator, *, zoom: float = 1.0, fill: int = 114
) -> Any:
    """Return a changed copy of ``image`` (Pillow, or uint8 (H, W) or (H, W, C)) of the same size.

    ``zoom`` shows it larger (above 1: cut) or smaller (below 1: padded with ``fill``).
    """
    plain = not (options.flip or options.scale_jitter or options.color_jitter)
    if plain and zoom == 1.0:
        return image
    pixels = _pixels(image)
    if options.flip and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if options.scale_jitter:
        zoom *= 1 + options.scale_jitter * rng.uniform(-1, 1)
    if zoom != 1.0:
        pixels = _zoom(pixels, zoom, rng, fill)
    if options.color_jitter:
        pixels = _recolor(pixels, options.color_jitter, rng)
    return np.ascontiguousarray(pixels)


def _pixels(image: Any) -> Pixels:
    if not isinstance(image, np.ndarray):
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"), np.uint8)
    pixels: Pixels = image[:, :, np.newaxis] if image.ndim == 2 else image
    return pixels


def _zoom(pixels: Pixels, zoom: float, rng: np.random.Generator, fill: int) -> Pixels:
    height, width, channels = pixels.shape
    if zoom > 1:
        cut_height, cut_width = max(1, round(height / zoom)), max(1, round(width / zoom))
        top = int(rng.integers(0, height - cut_height + 1))
        left = int(rng.integers(0, width - cut_width + 1))
        cut = np.ascontiguousarray(pixels[top : top + cut_height, left : left + cut_width])
        return scale_image(cut, width, height, "bilinear")
    small_height, small_width = max(1, round(height * zoom)), max(1, round(width * zoom))
    canvas = np.full((height, width, channels), fill, np.uint8)
    top = int(rng.integers(0, height - small_height + 1))
    left = int(rng.integers(0, width - small_width + 1))
    small = scale_image(np.ascontiguousarray(pixels), small_width, small_height, "bilinear")
    canvas[top : top + small_height, left : left + small_width] = small
    return canvas


def _recolor(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    brightness, contrast, saturation = 1 + strength * rng.uniform(-1, 1, 3)
    values = pixels.astype(np.float32) * brightness
    mean = values.mean()
    values = mean + (values - mean) * contrast
    if pixels.shape[2] == 3:
        gray = values @ np.array([0.299, 0.587, 0.114], np.float32)
        values = gray[:, :, np.newaxis] + (values - gray[:, :, np.newaxis]) * saturation
    recolored: Pixels = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return recolored
