"""Element by element: arithmetic, comparisons, activations; and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional

from boardwright.compiler.engine.training.operators.registry import Attributes, operator

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Asin": torch.asin, "Atan": torch.atan, "Ceil": torch.ceil,
    "Cos": torch.cos, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Log": torch.log,
    "Neg": torch.neg, "Not": torch.logical_not, "Reciprocal": torch.reciprocal, "Relu": functional.relu,
    "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin,
    "Softplus": functional.softplus, "Softsign": functional.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan,
    "Tanh": torch.tanh, "IsNaN": torch.isnan, "HardSwish": functional.hardswish, "Mish": functional.mish,
    "Identity": lambda x: x,
}  # fmt: skip

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le, "And": torch.logical_and,
    "Or": torch.logical_or, "Xor": torch.logical_xor, "MatMul": torch.matmul,
}  # fmt: skip

_VARIADIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add,
}  # fmt: skip


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Attributes, list[Any]], Tensor]:
    return lambda _, inputs: function(inputs[0])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Attributes, list[Any]], Tensor]:
    return lambda _, inputs: function(inputs[0], inputs[1])


def _variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Attributes, list[Any]], Tensor]:
    return lambda _, inputs: reduce(function, inputs)


for _name, _one in _UNARY.items():
    operator(_name)(_unary(_one))
for _name, _two in _BINARY.items():
    operator(_name)(_binary(_two))
for _name, _many in _VARIADIC.items():
    operator(_name)(_variadic(_many))


@operator("Div")
def _div(_: Attributes, inputs: list[Any]) -> Tensor:
    left, right = inputs
    if left.is_floating_point():
        return torch.div(left, right)
    return torch.div(left, right, rounding_mode="trunc")


@operator("Pow")
def _pow(_: Attributes, inputs: list[Any]) -> Tensor:
    base, exponent = inputs
    if exponent.numel() == 1:
        return torch.pow(base, exponent.item()).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


@operator("Mod")
def _mod(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return torch.fmod(*inputs) if attributes.get("fmod") else torch.remainder(*inputs)


@operator("Mean")
def _mean(_: Attributes, inputs: list[Any]) -> Tensor:
    total: Tensor = reduce(torch.add, inputs)
    return total / len(inputs)


@operator("Clip")
def _clip(_: Attributes, inputs: list[Any]) -> Tensor:
    low = inputs[1] if len(inputs) > 1 else None
    high = inputs[2] if len(inputs) > 2 else None
    if low is None and high is None:
        clipped: Tensor = inputs[0]
        return clipped
    return torch.clamp(inputs[0], None if low is None else low.item(), None if high is None else high.item())


@operator("Where")
def _where(_: Attributes, inputs: list[Any]) -> Tensor:
    return torch.where(inputs[0].bool(), inputs[1], inputs[2])


@operator("Cast")
def _cast(attributes: Attributes, inputs: list[Any]) -> Tensor:
    numpy_type = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    value: Tensor = inputs[0].to(getattr(torch, str(numpy_type)))
    return value


@operator("CastLike")
def _cast_like(_: Attributes, inputs: list[Any]) -> Tensor:
    value: Tensor = inputs[0].to(inputs[1].dtype)
    return value


@operator("LeakyRelu")
def _leaky_relu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01))


@operator("PRelu")
def _prelu(_: Attributes, inputs: list[Any]) -> Tensor:
    value, slope = inputs
    return torch.where(value >= 0, value, value * slope)


@operator("Elu")
def _elu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.elu(inputs[0], attributes.get("alpha", 1.0))


@operator("Celu")
def _celu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.celu(inputs[0], attributes.get("alpha", 1.0))


@operator("Selu")
def _selu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    alpha, gamma = attributes.get("alpha", 1.6732632), attributes.get("gamma", 1.0507010)
    value = inputs[0]
    return gamma * torch.where(value > 0, value, alpha * (torch.exp(value) - 1))


@operator("ThresholdedRelu")
def _thresholded_relu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.threshold(inputs[0], attributes.get("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(attributes: Attributes, inputs: list[Any]) -> Tensor:
    value: Tensor = inputs[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5)
    return value.clamp(0, 1)


@operator("Gelu")
def _gelu(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return functional.gelu(inputs[0], approximate=attributes.get("approximate", "none"))


@operator("Dropout")
def _dropout(_: Attributes, inputs: list[Any]) -> Tensor:
    """Pass through: imported graphs are in inference mode, and their Dropouts do nothing."""
    value: Tensor = inputs[0]
    return value


@operator("Gemm")
def _gemm(attributes: Attributes, inputs: list[Any]) -> Tensor:
    left = inputs[0].T if attributes.get("transA") else inputs[0]
    right = inputs[1].T if attributes.get("transB") else inputs[1]
    product = attributes.get("alpha", 1.0) * (left @ right)
    if len(inputs) > 2 and inputs[2] is not None:
        product = product + attributes.get("beta", 1.0) * inputs[2]
    result: Tensor = product
    return result


@operator("Einsum")
def _einsum(attributes: Attributes, inputs: list[Any]) -> Tensor:
    return torch.einsum(attributes["equation"], *inputs)


@operator("Conv")
def _conv(attributes: Attributes, inputs: list[Any]) -> Tensor:
    """Convolve with weights that the graph computes (constant ones are layers)."""
    from boardwright.compiler.engine.training.operators.spatial import resolve_padding

    weight = inputs[1]
    spatial = weight.dim() - 2
    strides = tuple(attributes.get("strides", [1] * spatial))
    dilations = tuple(attributes.get("dilations", [1] * spatial))
    padding, before = resolve_padding(attributes, tuple(weight.shape[2:]), strides, dilations)
    value = before(inputs[0]) if before is not None else inputs[0]
    bias = inputs[2] if len(inputs) > 2 else None
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    convolved: Tensor = function(value, weight, bias, strides, padding, dilations, attributes.get("group", 1))
    return convolved
