"""What a rule gives: nodes that stay in floating point, and why."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import QuantizationFailed

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A set of nodes that stays in floating point, and why, in a sentence. ``rule`` names the rule.

    ``conversions`` counts the tensors that pass between integers and floats because of it: each costs a
    Quantize or a Dequantize at run time. None where it was not counted.
    """

    rule: str
    nodes: tuple[str, ...]
    reason: str
    conversions: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the exclusion as JSON-able values."""
        values: dict[str, Any] = {"rule": self.rule, "nodes": list(self.nodes), "reason": self.reason}
        return values if self.conversions is None else {**values, "conversions": self.conversions}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Exclusion:
        """Read an exclusion back."""
        found = values.get("conversions")
        return cls(
            str(values["rule"]),
            tuple(map(str, values["nodes"])),
            str(values["reason"]),
            None if found is None else int(found),
        )


def excluded_names(exclusions: Iterable[Exclusion]) -> set[str]:
    """Return the names of all nodes that some exclusion keeps in floating point."""
    return {name for found in exclusions for name in found.nodes}


def requested_exclusion(model: onnx.ModelProto, names: Iterable[str]) -> tuple[Exclusion, ...]:
    """Return what a recipe asks for by the names of nodes; nothing where it names none.

    Raises:
        QuantizationFailed: NODE_UNKNOWN, with the nearest name there is.
    """
    names = tuple(names)
    known = {node.name for node in model.graph.node}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise QuantizationFailed("NODE_UNKNOWN", f"The graph has no node {name!r} to leave out.{hint}")
    return (Exclusion("requested", names, "The recipe names these nodes."),) if names else ()
