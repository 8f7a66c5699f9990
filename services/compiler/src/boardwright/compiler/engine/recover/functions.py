"""Elementwise functions that read an activation: what they cannot tell apart needs no precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS, Topology

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

Function = Callable[["Array"], "Array"]

SATURATED = 1e-4
"""How far from its limit a function may be where it counts as saturated."""

_MOVES = 8
_FAR = 1e4


def function_behind(topology: Topology, tensor: str, moves: int = _MOVES) -> Function | None:
    """Return the function through which alone ``tensor`` acts on the graph; None where there is none.

    ``x * gate(x)`` is one function (SiLU, hard swish) however the exporter wrote it. Operators that only move
    values are passed.
    """
    readers = [topology.nodes[index] for index in topology.readers(tensor)]
    if not readers or tensor in topology.outputs:
        return None
    gated = _gated(topology, tensor, readers)
    if gated is not None:
        return gated
    found: list[Function | None] = []
    for node in readers:
        if node.op_type in MOVEMENT_OPERATORS and moves > 0:
            found += [function_behind(topology, output, moves - 1) for output in node.output if output]
        else:
            found.append(_unary(node))
    keys = {getattr(function, "key", None) for function in found}
    return found[0] if len(keys) == 1 and None not in keys else None


def saturation(function: Function) -> tuple[float, float]:
    """Return below and above which values ``function`` is flat, within ``SATURATED``; else infinite."""
    import numpy as np

    grid = np.linspace(0, 64, 6401)
    bounds = []
    for side in (-1.0, 1.0):
        limit = float(function(np.array([side * _FAR]))[0])
        flat = np.abs(function(side * grid) - limit) <= SATURATED
        first = np.flatnonzero(~flat)
        reached = bool(flat[-1])
        bounds.append(side * float(grid[first[-1] + 1] if first.size else 0.0) if reached else side * np.inf)
    return bounds[0], bounds[1]


def _gated(topology: Topology, tensor: str, readers: list[onnx.NodeProto]) -> Function | None:
    if len(readers) != 2:
        return None
    gate = next((node for node in readers if node.op_type in ("Sigmoid", "HardSigmoid", "Tanh")), None)
    product = next((node for node in readers if node.op_type == "Mul"), None)
    if gate is None or product is None or gate.output[0] not in product.input:
        return None
    if len(topology.readers(gate.output[0])) != 1 or set(product.input) != {tensor, gate.output[0]}:
        return None
    inner = _unary(gate)
    if inner is None:
        return None
    return _named(f"x*{inner.key}", lambda x: x * inner(x))  # type: ignore[attr-defined]


def _unary(node: onnx.NodeProto) -> Function | None:
    import numpy as np
    import onnx

    options = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    alpha, beta = float(options.get("alpha", 0.2)), float(options.get("beta", 0.5))
    functions: dict[str, Function] = {
        "Sigmoid": lambda x: 1 / (1 + np.exp(-np.clip(x, -60, 60))),
        "Tanh": np.tanh,
        "HardSigmoid": lambda x: np.clip(alpha * x + beta, 0, 1),
        "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        "Exp": lambda x: np.exp(np.clip(x, -60, 60)),
        "Gelu": lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    }
    function = functions.get(node.op_type)
    key = f"{node.op_type} {alpha} {beta}" if node.op_type == "HardSigmoid" else node.op_type
    return None if function is None else _named(key, function)


class _Named:
    def __init__(self, key: str, function: Function) -> None:
        self.key, self._function = key, function

    def __call__(self, value: Array) -> Array:
        return self._function(value)


def _named(key: str, function: Function) -> _Named:
    return _Named(key, function)
