"""Nodes with weights as torch modules, and their weights as the graph stores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training.operators import read_attributes, resolve_padding


@dataclass(slots=True)
class Layer:
    """One node's module.

    ``inputs`` are the activations that it reads. ``owned`` maps the graph's names of its weights to the
    module's own, ``turned`` names those that the graph stores transposed. ``before`` is applied to the input
    (padding that torch's module cannot do).
    """

    module: torch.nn.Module
    inputs: tuple[str, ...]
    owned: dict[str, str]
    turned: frozenset[str] = frozenset()
    before: Callable[[Tensor], Tensor] | None = None

    def __call__(self, arguments: list[Tensor | None]) -> Tensor:
        """Run the module on its one activation."""
        value = arguments[0]
        made: Tensor = self.module(self.before(value) if self.before is not None else value)
        return made

    def stored(self) -> dict[str, Any]:
        """Return the weights as NumPy arrays by the graph's names, laid out as in the graph."""
        found = {}
        for name, own in self.owned.items():
            value = getattr(self.module, own).detach().cpu()
            found[name] = (value.T if name in self.turned else value).numpy()
        return found

    def share(self, shared: dict[str, torch.nn.Parameter]) -> None:
        """Use the parameters that earlier layers made of the same weights, where layouts agree."""
        for name, own in self.owned.items():
            parameter = getattr(self.module, own)
            if not isinstance(parameter, torch.nn.Parameter):
                continue
            key = f"{name}{'.T' if name in self.turned else ''}"
            if key in shared:
                setattr(self.module, own, shared[key])
            else:
                shared[key] = parameter


def make_layer(
    node: onnx.NodeProto, constants: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> Layer | None:
    """Return the layer of a node whose weights are all constant, or None where it is none."""
    maker = _MAKERS.get(node.op_type)
    if maker is None or any(name and name not in constants for name in node.input[1:]):
        return None
    if not node.input[0] or node.input[0] in constants:
        return None
    return maker(node, constants, ranks)


def _convolution(node: onnx.NodeProto, constants: Mapping[str, Tensor], _: Mapping[str, int]) -> Layer | None:
    attributes = read_attributes(node)
    weight = constants[node.input[1]]
    spatial = weight.dim() - 2
    transposed = node.op_type == "ConvTranspose"
    kinds = (
        (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
        if transposed
        else (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    )
    if not 1 <= spatial <= 3:
        raise EngineError(
            "TRAINING_OPERATOR_UNSUPPORTED",
            f"{node.op_type} {node.name!r} has {spatial} spatial axes, and training knows 1 to 3.",
        )
    groups = int(attributes.get("group", 1))
    strides = tuple(attributes.get("strides", [1] * spatial))
    dilations = tuple(attributes.get("dilations", [1] * spatial))
    outputs, inputs = (weight.shape[1] * groups, weight.shape[0]) if transposed else (
        weight.shape[0], weight.shape[1] * groups
    )  # fmt: skip
    options: dict[str, Any] = {
        "stride": strides, "dilation": dilations, "groups": groups, "bias": _has_bias(node)
    }  # fmt: skip
    padding, before = resolve_padding(attributes, tuple(weight.shape[2:]), strides, dilations)
    if transposed:
        if before is not None or "output_shape" in attributes:
            raise EngineError(
                "TRAINING_OPERATOR_UNSUPPORTED",
                f"ConvTranspose {node.name!r} pads unevenly, which training does not know. Export it with "
                "explicit, even pads.",
            )
        options["output_padding"] = tuple(attributes.get("output_padding", [0] * spatial))
    with torch.no_grad():
        module = _empty(
            kinds[spatial - 1], inputs, outputs, tuple(weight.shape[2:]), padding=padding, **options
        )
    return _fill(Layer(module, (node.input[0],), _names(node), before=before), constants)


def _gemm(node: onnx.NodeProto, constants: Mapping[str, Tensor], _: Mapping[str, int]) -> Layer | None:
    attributes = read_attributes(node)
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA"):
        return None
    weight = constants[node.input[1]]
    turned = not attributes.get("transB")
    inputs, outputs = weight.shape if turned else weight.shape[::-1]
    if _has_bias(node) and constants[node.input[2]].shape != (outputs,):
        return None
    module = _empty(torch.nn.Linear, inputs, outputs, bias=_has_bias(node))
    layer = Layer(module, (node.input[0],), _names(node), frozenset({node.input[1]} if turned else set()))
    return _fill(layer, constants)


def _matmul(node: onnx.NodeProto, constants: Mapping[str, Tensor], _: Mapping[str, int]) -> Layer | None:
    weight = constants[node.input[1]]
    if weight.dim() != 2:
        return None
    module = _empty(torch.nn.Linear, weight.shape[0], weight.shape[1], bias=False)
    name = node.input[1]
    return _fill(Layer(module, (node.input[0],), {name: "weight"}, frozenset({name})), constants)


def _batch_norm(
    node: onnx.NodeProto, constants: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> Layer | None:
    attributes = read_attributes(node)
    kinds = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 5: torch.nn.BatchNorm3d}
    kind = kinds.get(ranks.get(node.input[0], 4), torch.nn.BatchNorm2d)
    module = kind(
        constants[node.input[1]].numel(),
        eps=float(attributes.get("epsilon", 1e-5)),
        momentum=1 - float(attributes.get("momentum", 0.9)),
    )
    own = ("weight", "bias", "running_mean", "running_var")
    return _fill(Layer(module, (node.input[0],), dict(zip(node.input[1:5], own, strict=True))), constants)


def _layer_norm(
    node: onnx.NodeProto, constants: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> Layer | None:
    attributes = read_attributes(node)
    weight = constants[node.input[1]]
    axis = int(attributes.get("axis", -1))
    rank = ranks.get(node.input[0], 0)
    if len(node.output) > 1 or (axis if axis < 0 else axis - rank) != -weight.dim():
        return None
    module = torch.nn.LayerNorm(
        tuple(weight.shape), eps=float(attributes.get("epsilon", 1e-5)), bias=_has_bias(node)
    )
    return _fill(Layer(module, (node.input[0],), _names(node)), constants)


def _names(node: onnx.NodeProto) -> dict[str, str]:
    names = {node.input[1]: "weight"}
    if _has_bias(node):
        names[node.input[2]] = "bias"
    return names


def _has_bias(node: onnx.NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _empty(kind: Any, *sizes: Any, **options: Any) -> torch.nn.Module:
    """Make a module without drawing random weights: the graph's own follow.

    (As ``torch.nn.utils.skip_init`` does, which imports hundreds of modules to move off the meta device.)
    """
    module: torch.nn.Module = kind(*sizes, device="meta", **options)
    for name, value in list(module.named_parameters()):
        setattr(module, name, torch.nn.Parameter(torch.empty(value.shape, dtype=value.dtype)))
    return module


def _fill(layer: Layer, constants: Mapping[str, Tensor]) -> Layer:
    with torch.no_grad():
        for name, own in layer.owned.items():
            value = constants[name]
            getattr(layer.module, own).copy_(value.T if name in layer.turned else value)
    return layer


_MAKERS: Mapping[str, Callable[[onnx.NodeProto, Mapping[str, Tensor], Mapping[str, int]], Layer | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
}
