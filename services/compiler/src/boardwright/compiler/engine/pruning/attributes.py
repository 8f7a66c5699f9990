"""Attributes and constant inputs of nodes, as rules need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from boardwright.compiler.engine.pruning.dependencies import Trace


def _find(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    return next((attribute for attribute in node.attribute if attribute.name == name), None)


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute."""
    found = _find(node, name)
    return int(found.i) if found is not None else default


def real(node: onnx.NodeProto, name: str, default: float) -> float:
    """Return a float attribute."""
    found = _find(node, name)
    return float(found.f) if found is not None else default


def text(node: onnx.NodeProto, name: str, default: str) -> str:
    """Return a string attribute."""
    found = _find(node, name)
    return found.s.decode() if found is not None else default


def integers(node: onnx.NodeProto, name: str) -> list[int] | None:
    """Return a list attribute, None where it is absent."""
    found = _find(node, name)
    return [int(value) for value in found.ints] if found is not None else None


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Replace an attribute."""
    import onnx

    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def axes_of(trace: Trace, index: int, rank: int) -> list[int] | None:
    """Return ``axes``, from the attribute or the second input, none negative; None where not constant."""
    node = trace.nodes[index]
    found = integers(node, "axes")
    if found is None and len(node.input) > 1 and node.input[1]:
        value = trace.value(node.input[1])
        if value is None:
            return None
        found = [int(axis) for axis in value.reshape(-1)]
    return [axis % max(1, rank) for axis in found or []]
