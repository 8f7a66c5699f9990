"""Reductions, softmax and normalisation over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from boardwright.compiler.engine.training.operators.registry import (
    Attributes,
    axes_of,
    operator,
)

_Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]

_REDUCTIONS: dict[str, _Reduction] = {
    "ReduceMean": lambda x, axes, keep: torch.mean(x, axes, keep),
    "ReduceSum": lambda x, axes, keep: torch.sum(x, axes, keep),
    "ReduceMax": lambda x, axes, keep: torch.amax(x, axes, keep),
    "ReduceMin": lambda x, axes, keep: torch.amin(x, axes, keep),
    "ReduceL1": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.sqrt(torch.sum(torch.square(x), axes, keep)),
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(torch.square(x), axes, keep),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keep),
}


def _reduction(function: _Reduction) -> Callable[[Attributes, list[Any]], Tensor]:
    def reduce(attributes: Attributes, inputs: list[Any]) -> Tensor:
        value = inputs[0]
        axes = axes_of(attributes, inputs, 1)
        if not axes:
            if axes is not None and attributes.get("noop_with_empty_axes"):
                unchanged: Tensor = value
                return unchanged
            axes = list(range(value.dim()))
        return function(value, tuple(axes), bool(attributes.get("keepdims", 1)))

    return reduce


for _name, _function in _REDUCTIONS.items():
    operator(_name)(_reduction(_function))


@operator("ReduceProd")
def _reduce_prod(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value = inputs[0]
    keep = bool(attributes.get("keepdims", 1))
    axes = axes_of(attributes, inputs, 1) or list(range(value.dim()))
    for axis in sorted((axis % value.dim() for axis in axes), reverse=True):
        value = torch.prod(value, axis, keep)
    product: Tensor = value
    return product


@operator("Softmax")
def _softmax(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.softmax(inputs[0], attributes.get("axis", -1))


@operator("LogSoftmax")
def _log_softmax(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.log_softmax(inputs[0], attributes.get("axis", -1))


@operator("ArgMax")
def _arg_max(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return torch.argmax(inputs[0], attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))


@operator("ArgMin")
def _arg_min(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return torch.argmin(inputs[0], attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))


@operator("TopK")
def _top_k(attributes: Attributes, inputs: list[Any]) -> tuple[Tensor, Tensor]:
    count = int(inputs[1].reshape(()))
    values, places = torch.topk(
        inputs[0], count, attributes.get("axis", -1), bool(attributes.get("largest", 1)),
        bool(attributes.get("sorted", 1)),
    )  # fmt: skip
    return values, places


@operator("CumSum")
def _cumulative_sum(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, axis = inputs[0], int(inputs[1])
    if attributes.get("reverse"):
        value = torch.flip(value, (axis,))
    total = torch.cumsum(value, axis)
    if attributes.get("exclusive"):
        total = total - value
    return torch.flip(total, (axis,)) if attributes.get("reverse") else total


@operator("LayerNormalization")
def _layer_normalization(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value = inputs[0]
    axis = attributes.get("axis", -1) % value.dim()
    shape = tuple(value.shape[axis:])
    scale = inputs[1].expand(shape)
    bias = inputs[2].expand(shape) if len(inputs) > 2 and inputs[2] is not None else None
    return functional.layer_norm(value, shape, scale, bias, attributes.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_normalization(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, scale, bias = inputs
    return functional.instance_norm(value, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


@operator("GroupNormalization")
def _group_normalization(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value, scale, bias = inputs
    groups = attributes["num_groups"]
    if scale.numel() == groups != value.shape[1]:  # opset 18: one scale per group
        scale, bias = (part.repeat_interleave(value.shape[1] // groups) for part in (scale, bias))
    return functional.group_norm(value, groups, scale, bias, attributes.get("epsilon", 1e-5))


@operator("LRN")
def _local_response_normalization(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.local_response_norm(
        inputs[0], attributes["size"], attributes.get("alpha", 1e-4), attributes.get("beta", 0.75),
        attributes.get("bias", 1.0),
    )  # fmt: skip


@operator("LpNormalization")
def _lp_normalization(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.normalize(inputs[0], attributes.get("p", 2), attributes.get("axis", -1), 0.0)
