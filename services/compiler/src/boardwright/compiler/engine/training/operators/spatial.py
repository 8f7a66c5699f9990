"""Pooling, padding and resizing of (N, C, spatial…) tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from boardwright.compiler.engine.training.operators.registry import Attributes, integers, operator

_Sizes = tuple[int, ...]


def resolve_padding(
    attributes: Attributes, kernel: _Sizes, strides: _Sizes, dilations: _Sizes, fill: float = 0.0
) -> tuple[_Sizes, Callable[[Tensor], Tensor] | None]:
    """Return the padding that torch's own operator does, and a function for what it cannot (None: nothing).

    Torch pads both sides of an axis alike; ONNX may pad them apart, or by the input's size (SAME_UPPER).
    """
    spatial = len(kernel)
    automatic = attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        upper = automatic == "SAME_UPPER"
        return (0,) * spatial, lambda x: _pad_same(x, kernel, strides, dilations, upper, fill)
    pads = integers(attributes.get("pads", [0] * 2 * spatial)) if automatic == "NOTSET" else [0] * 2 * spatial
    before, after = tuple(pads[:spatial]), tuple(pads[spatial:])
    if before == after:
        return before, None
    return (0,) * spatial, lambda x: functional.pad(x, _for_torch(before, after), value=fill)


def _pad_same(
    value: Tensor, kernel: _Sizes, strides: _Sizes, dilations: _Sizes, upper: bool, fill: float
) -> Tensor:
    before, after = [], []
    for length, size, stride, dilation in zip(value.shape[2:], kernel, strides, dilations, strict=True):
        outputs = -(-length // stride)
        total = max(0, (outputs - 1) * stride + (size - 1) * dilation + 1 - length)
        first = total // 2 if upper else total - total // 2
        before.append(first)
        after.append(total - first)
    return functional.pad(value, _for_torch(tuple(before), tuple(after)), value=fill)


def _for_torch(before: _Sizes, after: _Sizes) -> list[int]:
    """Return pads in torch's order: last axis first, before and after of each together."""
    return [pad for pair in reversed(list(zip(before, after, strict=True))) for pad in pair]


@operator("MaxPool")
def _max_pool(attributes: Attributes, inputs: list[Any]) -> Tensor:
    kernel, strides, dilations = _windows(attributes)
    padding, before = resolve_padding(attributes, kernel, strides, dilations, float("-inf"))
    value = before(inputs[0]) if before is not None else inputs[0]
    if any(pad > size // 2 for pad, size in zip(padding, kernel, strict=True)):  # torch refuses these
        value = functional.pad(value, _for_torch(padding, padding), value=float("-inf"))
        padding = (0,) * len(kernel)
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(kernel) - 1]
    pooled: Tensor = pool(value, kernel, strides, padding, dilations, bool(attributes.get("ceil_mode", 0)))
    return pooled


@operator("AveragePool")
def _average_pool(attributes: Attributes, inputs: list[Any]) -> Tensor:
    kernel, strides, dilations = _windows(attributes)
    if any(dilation != 1 for dilation in dilations):
        raise ValueError("AveragePool with dilations is not known")
    pool = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(kernel) - 1]
    counted, ceil = bool(attributes.get("count_include_pad", 0)), bool(attributes.get("ceil_mode", 0))
    padding, before = resolve_padding(attributes, kernel, strides, dilations)
    if before is None:
        pooled: Tensor = pool(inputs[0], kernel, strides, padding, ceil, counted)
        return pooled
    averaged: Tensor = pool(before(inputs[0]), kernel, strides, 0, ceil)
    if counted:
        return averaged
    share = pool(before(torch.ones_like(inputs[0][:1, :1])), kernel, strides, 0, ceil)
    return averaged / share


def _windows(attributes: Attributes) -> tuple[_Sizes, _Sizes, _Sizes]:
    kernel = tuple(attributes["kernel_shape"])
    ones = [1] * len(kernel)
    return kernel, tuple(attributes.get("strides", ones)), tuple(attributes.get("dilations", ones))


@operator("GlobalAveragePool")
def _global_average_pool(_: Attributes, inputs: list[Any]) -> Tensor:
    return inputs[0].mean(tuple(range(2, inputs[0].dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(_: Attributes, inputs: list[Any]) -> Tensor:
    return inputs[0].amax(tuple(range(2, inputs[0].dim())), keepdim=True)


@operator("Pad")
def _pad(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, pads = inputs[0], integers(inputs[1])
    axes = integers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else list(range(value.dim()))
    before, after = [0] * value.dim(), [0] * value.dim()
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        fill = inputs[2].item() if len(inputs) > 2 and inputs[2] is not None else 0
        return functional.pad(value, _for_torch(tuple(before), tuple(after)), value=fill)
    if any(before[:2]) or any(after[:2]):
        raise ValueError(f"Pad of mode {mode} on the batch or channel axis is not known")
    ends = _for_torch(tuple(before[2:]), tuple(after[2:]))
    torch_mode = {"edge": "replicate", "wrap": "circular", "reflect": "reflect"}[mode]
    return functional.pad(value, ends, torch_mode)


@operator("Resize")
def _resize(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value: Tensor = inputs[0]
    if len(inputs) > 3 and inputs[3] is not None:
        sizes = integers(inputs[3])
        axes = integers(attributes.get("axes", range(value.dim() - len(sizes), value.dim())))
        wanted = {axis % value.dim(): size for axis, size in zip(axes, sizes, strict=True)}
        scales = {axis: size / value.shape[axis] for axis, size in wanted.items()}
    else:
        factors = inputs[2].tolist()
        axes = integers(attributes.get("axes", range(value.dim() - len(factors), value.dim())))
        scales = {axis % value.dim(): factor for axis, factor in zip(axes, factors, strict=True)}
        wanted = {axis: int(value.shape[axis] * factor) for axis, factor in scales.items()}
    changed = {axis: size for axis, size in wanted.items() if size != value.shape[axis] and axis > 1}
    if attributes.get("antialias") or attributes.get("exclude_outside"):
        raise ValueError("Resize with antialias or exclude_outside is not known")
    mode = attributes.get("mode", "nearest")
    if mode == "cubic":
        return _cubic(
            attributes, value, [wanted.get(axis, value.shape[axis]) for axis in range(2, value.dim())]
        )
    for axis, size in changed.items():
        value = _resize_axis(attributes, value, axis, size, scales[axis], mode)
    return value


def _resize_axis(
    attributes: Attributes, value: Tensor, axis: int, size: int, scale: float, mode: str
) -> Tensor:
    length = value.shape[axis]
    places = _source_places(attributes, length, size, scale)
    if mode == "nearest":
        rounded = _round(places, attributes.get("nearest_mode", "round_prefer_floor")).clamp(0, length - 1)
        repeats = size // length
        if size == repeats * length and torch.equal(rounded, torch.arange(size) // repeats):
            return value.repeat_interleave(repeats, axis)  # its gradient is a sum, not a scatter
        return value.index_select(axis, rounded.to(value.device))
    places = places.clamp(0, length - 1)
    low = places.floor().long().clamp(0, max(0, length - 1))
    high = (low + 1).clamp(max=length - 1)
    share = (places - low).to(value.dtype).reshape([-1] + [1] * (value.dim() - 1 - axis)).to(value.device)
    first, second = (value.index_select(axis, part.to(value.device)) for part in (low, high))
    return first + (second - first) * share


def _source_places(attributes: Attributes, length: int, size: int, scale: float) -> Tensor:
    """Return where in the input each output element lies, as the coordinate transformation says."""
    mode = attributes.get("coordinate_transformation_mode", "half_pixel")
    places = torch.arange(size, dtype=torch.float64)
    if mode == "asymmetric":
        return places / scale
    if mode == "align_corners":
        return places * ((length - 1) / (size - 1)) if size > 1 else places * 0
    if mode == "pytorch_half_pixel" and size == 1:
        return places * 0
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (places + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        shift = length / 2 * (1 - size / (length * scale))
        return shift + (places + 0.5) / scale - 0.5
    raise ValueError(f"Resize with the coordinates {mode} is not known")


def _round(places: Tensor, mode: str) -> Tensor:
    if mode == "floor":
        return places.floor().long()
    if mode == "ceil":
        return places.ceil().long()
    if mode == "round_prefer_ceil":
        return (places + 0.5).floor().long()
    return (places - 0.5).ceil().long()


def _cubic(attributes: Attributes, value: Tensor, sizes: list[int]) -> Tensor:
    mode = attributes.get("coordinate_transformation_mode", "half_pixel")
    if mode not in ("half_pixel", "pytorch_half_pixel", "align_corners") or value.dim() != 4:
        raise ValueError(f"cubic Resize with the coordinates {mode} is not known")
    return functional.interpolate(value, sizes, mode="bicubic", align_corners=mode == "align_corners")
