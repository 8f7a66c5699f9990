"""Shapes, joins, slices, gathers: values move and do not change. Shape values stay on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from boardwright.compiler.engine.training.operators.registry import (
    Attributes,
    axes_of,
    integers,
    operator,
)


@operator("Shape")
def _shape(attributes: Attributes, inputs: list[Any]) -> Tensor:
    lengths = list(inputs[0].shape)[attributes.get("start", 0) : attributes.get("end")]
    return torch.tensor(lengths, dtype=torch.int64)


@operator("Size")
def _size(_: Attributes, inputs: list[Any]) -> Tensor:
    return torch.tensor(inputs[0].numel(), dtype=torch.int64)


@operator("Reshape")
def _reshape(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, wanted = inputs[0], integers(inputs[1])
    if not attributes.get("allowzero"):
        wanted = [value.shape[axis] if length == 0 else length for axis, length in enumerate(wanted)]
    reshaped: Tensor = value.reshape(wanted)
    return reshaped


@operator("Flatten")
def _flatten(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, axis = inputs[0], attributes.get("axis", 1)
    axis = axis + value.dim() if axis < 0 else axis
    rows = 1
    for length in value.shape[:axis]:
        rows *= length
    flat: Tensor = value.reshape(rows, -1)
    return flat


@operator("Transpose")
def _transpose(attributes: Attributes, inputs: list[Any]) -> Tensor:
    order = attributes.get("perm") or list(range(inputs[0].dim()))[::-1]
    turned: Tensor = inputs[0].permute(order)
    return turned


@operator("Squeeze")
def _squeeze(attributes: Attributes, inputs: list[Any]) -> Tensor:
    axes = axes_of(attributes, inputs, 1)
    value: Tensor = inputs[0]
    return torch.squeeze(value) if axes is None else torch.squeeze(value, tuple(axes))


@operator("Unsqueeze")
def _unsqueeze(attributes: Attributes, inputs: list[Any]) -> Tensor:
    axes = axes_of(attributes, inputs, 1) or []
    value: Tensor = inputs[0]
    rank = value.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


@operator("Concat")
def _concat(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return torch.cat([value for value in inputs if value is not None], attributes["axis"])


@operator("Split")
def _split(attributes: Attributes, inputs: list[Any]) -> tuple[Tensor, ...]:
    value, axis = inputs[0], attributes.get("axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = integers(inputs[1])
    elif "split" in attributes:
        sizes = integers(attributes["split"])
    else:
        parts = attributes.get("num_outputs") or attributes["outputs"]
        part = -(-value.shape[axis] // parts)
        sizes = [part] * (parts - 1)
        sizes.append(value.shape[axis] - sum(sizes))
    pieces: tuple[Tensor, ...] = torch.split(value, sizes, axis)
    return pieces


@operator("Slice")
def _slice(_: Attributes, inputs: list[Any]) -> Tensor:
    value, starts, ends = inputs[0], integers(inputs[1]), integers(inputs[2])
    axes = integers(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = integers(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        value = _slice_axis(value, start, end, axis, step)
    sliced: Tensor = value
    return sliced


def _slice_axis(value: Tensor, start: int, end: int, axis: int, step: int) -> Tensor:
    length = value.shape[axis]
    places = range(length)[slice(start, None if step < 0 and end < -length else end, step)]
    if step == 1:
        return value.narrow(axis, places.start, len(places))
    return value.index_select(axis, torch.tensor(list(places), device=value.device))


@operator("Gather")
def _gather(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, axis = inputs[0], attributes.get("axis", 0)
    places = inputs[1].to(value.device, torch.int64)
    places = torch.where(places < 0, places + value.shape[axis], places)
    axis %= value.dim()
    if places.dim() == 0:
        picked: Tensor = value.select(axis, int(places))
        return picked
    found = value.index_select(axis, places.reshape(-1))
    return found.reshape(*value.shape[:axis], *places.shape, *value.shape[axis + 1 :])


@operator("GatherElements")
def _gather_elements(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, axis = inputs[0], attributes.get("axis", 0)
    places = inputs[1].to(torch.int64)
    return torch.gather(value, axis, torch.where(places < 0, places + value.shape[axis], places))


@operator("GatherND")
def _gather_nd(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, places = inputs[0], inputs[1].to(torch.int64)
    shared = attributes.get("batch_dims", 0)
    if shared == 0:
        picked: Tensor = value[tuple(places.unbind(-1))]
        return picked
    flat = value.reshape(-1, *value.shape[shared:])
    rows = places.reshape(-1, *places.shape[shared:])
    found = [entry[tuple(row.unbind(-1))] for entry, row in zip(flat, rows, strict=True)]
    return torch.stack(found).reshape(*value.shape[:shared], *found[0].shape)


@operator("ScatterND")
def _scatter_nd(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, places, updates = inputs
    if attributes.get("reduction", "none") != "none":
        raise ValueError("ScatterND with a reduction is not known")
    return value.index_put(tuple(places.to(torch.int64).unbind(-1)), updates)


@operator("Expand")
def _expand(_: Attributes, inputs: list[Any]) -> Tensor:
    return inputs[0].expand(torch.broadcast_shapes(inputs[0].shape, tuple(integers(inputs[1]))))


@operator("Tile")
def _tile(_: Attributes, inputs: list[Any]) -> Tensor:
    return torch.tile(inputs[0], tuple(integers(inputs[1])))


@operator("Range")
def _range(_: Attributes, inputs: list[Any]) -> Tensor:
    start, limit, step = (value.item() for value in inputs)
    return torch.arange(start, limit, step, dtype=inputs[0].dtype)


@operator("ConstantOfShape")
def _constant_of_shape(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value = torch.from_numpy(attributes["value"].copy()) if "value" in attributes else torch.zeros(1)
    return value.reshape(()).expand(integers(inputs[0])).clone()


@operator("Trilu")
def _trilu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    diagonal = int(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else 0
    return (torch.triu if attributes.get("upper", 1) else torch.tril)(inputs[0], diagonal)


@operator("DepthToSpace")
def _depth_to_space(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, size = inputs[0], attributes["blocksize"]
    batch, depth, height, width = value.shape
    if attributes.get("mode", "DCR") == "DCR":
        split = value.reshape(batch, size, size, depth // size**2, height, width)
        turned = split.permute(0, 3, 4, 1, 5, 2)
    else:
        split = value.reshape(batch, depth // size**2, size, size, height, width)
        turned = split.permute(0, 1, 4, 2, 5, 3)
    spread: Tensor = turned.reshape(batch, depth // size**2, height * size, width * size)
    return spread


@operator("SpaceToDepth")
def _space_to_depth(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, size = inputs[0], attributes["blocksize"]
    batch, depth, height, width = value.shape
    split = value.reshape(batch, depth, height // size, size, width // size, size)
    packed: Tensor = split.permute(0, 3, 5, 1, 2, 4).reshape(
        batch, depth * size**2, height // size, width // size
    )
    return packed
