"""The table of operators. Each takes its node's attributes and inputs (None where one is left out)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import numpy_helper
from torch import Tensor

from boardwright.compiler.engine.errors import EngineError

Attributes = Mapping[str, Any]
Operator = Callable[[Attributes, list[Any]], Any]

_OPERATORS: dict[str, Operator] = {}
_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function as the operators ``names``."""

    def register(function: Operator) -> Operator:
        _OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def supported_operators() -> tuple[str, ...]:
    """Return the names of all operators in the table."""
    return tuple(sorted(_OPERATORS))


def find_operator(node: onnx.NodeProto) -> Operator:
    """Return the function of a node's operator.

    Raises:
        EngineError: TRAINING_OPERATOR_UNSUPPORTED, naming the operator and the node.
    """
    found = _OPERATORS.get(node.op_type) if node.domain in _STANDARD_DOMAINS else None
    if found is None:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise EngineError(
            "TRAINING_OPERATOR_UNSUPPORTED",
            f"Training does not know the operator {name} (node {node.name!r}). Leave the training passes out "
            "of the recipe, or export the model without this operator.",
        )
    return found


def read_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values and, for tensors, NumPy arrays."""
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode()
        found[attribute.name] = value
    return found


def integers(value: Any) -> list[int]:
    """Return an integer tensor's, or a list's, values."""
    return [int(entry) for entry in (value.reshape(-1).tolist() if isinstance(value, Tensor) else value)]


def axes_of(attributes: Attributes, inputs: list[Any], place: int) -> list[int] | None:
    """Return axes: the input ``place`` in newer opsets, an attribute in older ones; None where not given."""
    if len(inputs) > place and inputs[place] is not None:
        return integers(inputs[place])
    return integers(attributes["axes"]) if "axes" in attributes else None
