"""Which tensors have to be looked at, and how the others follow from them.

A tensor whose values are another's, moved (Reshape, Transpose…), has its statistics. One that elementwise
functions with scalar constants make of a single tensor (Sigmoid, SiLU, Clip…) follows from that tensor's by
evaluating those functions. What a layer makes in front of a fused Relu or Clip is never seen; what lies
outside of the Clip's bounds never matters to anyone, so it counts as clipped. The rest is measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_MOVES = frozenset(
    {
        "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "DepthToSpace",
        "SpaceToDepth",
    }
)  # fmt: skip
_ELEMENTWISE = frozenset(
    {
        "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Elu",
        "Selu", "Celu", "Erf", "Exp", "Abs", "Neg", "Clip", "Gelu", "Mish", "Swish",
        "ThresholdedRelu", "QuickGelu", "FastGelu", "Mul", "Add", "Sub", "Div", "Pow", "Min", "Max", "PRelu",
    }
)  # fmt: skip
_POLES = frozenset({"Div", "Pow"})
_CLIPS = frozenset({"Relu", "Clip"})


@dataclass(frozen=True, slots=True)
class ObservationPlan:
    """How each tensor of a graph is known.

    ``measured`` are read in the graph. ``joined`` (Concat) have the union of their inputs' ranges and a
    histogram of their own; ``stacked`` are those along axis 1. ``derived`` maps a tensor to the measured one
    that the nodes ``functions`` make it of; ``elementwise`` are those of them whose channels are that
    tensor's. ``same`` and ``clipped`` take over another's statistics. ``hidden`` are those that must be
    looked at and are not in the optimised graph.
    """

    measured: tuple[str, ...]
    joined: Mapping[str, tuple[str, ...]]
    stacked: frozenset[str]
    derived: Mapping[str, str]
    elementwise: frozenset[str]
    same: Mapping[str, str]
    clipped: Mapping[str, str]
    functions: tuple[onnx.NodeProto, ...]
    hidden: tuple[str, ...]


@dataclass(slots=True)
class _Planning:
    """State while a graph is walked from its inputs on."""

    visible: Collection[str]
    root: dict[str, str] = field(default_factory=dict)  # the tensor whose statistics decide
    base: dict[str, str] = field(default_factory=dict)  # the tensor it is aligned with, element by element
    measured: list[str] = field(default_factory=list)
    joined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stacked: set[str] = field(default_factory=set)
    derived: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    clipped: dict[str, str] = field(default_factory=dict)
    functions: list[onnx.NodeProto] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def measure(self, name: str) -> None:
        """Read ``name`` in the graph, and let what follows from it follow."""
        self.root[name] = self.base[name] = name
        self.measured.append(name)
        if name not in self.visible:
            self.hidden.append(name)


def plan_observation(
    model: onnx.ModelProto, tensors: Iterable[str], visible: Collection[str]
) -> ObservationPlan:
    """Plan how to know ``tensors`` of ``model``, where only those in ``visible`` can be read."""
    graph = model.graph
    wanted = set(tensors)
    scalars, constants = _constants(graph)
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    state = _Planning(visible)
    for value in graph.input:
        if value.name in wanted:
            state.measure(value.name)
    for node in graph.node:
        for name in node.output:
            if name not in wanted or name in state.root:
                continue
            if _follows(state, node, scalars, constants):
                continue
            if name in visible or name in outputs:
                state.measure(name)
            else:
                _hidden(state, name, consumers.get(name, []), wanted)
    elementwise = {name for name, root in state.derived.items() if state.base[name] == root}
    return ObservationPlan(
        tuple(state.measured),
        state.joined,
        frozenset(state.stacked),
        state.derived,
        frozenset(elementwise),
        state.same,
        state.clipped,
        tuple(state.functions),
        tuple(state.hidden),
    )


def _constants(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Return the names of constants of one element, and of all constants."""
    sizes: dict[str, int] = {}
    for tensor in graph.initializer:
        sizes[tensor.name] = _size(tensor.dims)
    for node in graph.node:
        if node.op_type == "Constant":
            sizes[node.output[0]] = max(
                (_size(entry.t.dims) if entry.HasField("t") else 2 for entry in node.attribute), default=2
            )
    return {name for name, size in sizes.items() if size == 1}, set(sizes)


def _size(dimensions: Iterable[int]) -> int:
    size = 1
    for length in dimensions:
        size *= length
    return size


def _follows(state: _Planning, node: onnx.NodeProto, scalars: set[str], constants: set[str]) -> bool:
    """Note how the output of ``node`` follows from what is known already; False where it does not."""
    name = node.output[0]
    given = [entry for entry in node.input if entry and entry not in constants]
    known = [entry for entry in given if entry in state.root]
    if node.op_type in _MOVES and given and given[0] in state.root and len(node.output) == 1:
        state.root[name], state.base[name] = state.root[given[0]], name
        state.same[name] = given[0]
        return True
    if node.op_type == "Concat" and len(known) == len(node.input) and known:
        state.joined[name] = tuple(known)
        if any(entry.name == "axis" and entry.i == 1 for entry in node.attribute):
            state.stacked.add(name)
        state.root[name] = state.base[name] = name
        if name not in state.visible:
            state.hidden.append(name)
        return True
    if node.op_type not in _ELEMENTWISE or len(node.output) != 1 or not known or len(known) < len(given):
        return False
    if any(entry in constants and entry not in scalars for entry in node.input):
        return False
    if node.op_type in _POLES and (node.input[0] in constants or node.input[1] not in scalars):
        return False
    bases = {state.base[entry] for entry in known}
    root = state.root[known[0]]
    if len(bases) > 1 or root in state.clipped:
        return False
    state.root[name], state.base[name] = root, bases.pop()
    state.derived[name] = root
    state.functions.append(node)
    return True


def _hidden(state: _Planning, name: str, readers: list[onnx.NodeProto], wanted: set[str]) -> None:
    """Decide on a tensor that was fused away: clipped, undone, or to be made visible."""
    import onnx

    reader = readers[0] if len(readers) == 1 else None
    result = reader.output[0] if reader is not None else ""
    if reader is None or result not in state.visible or result not in wanted or reader.input[0] != name:
        state.measure(name)
        return
    slope = next((entry.f for entry in reader.attribute if entry.name == "alpha"), 0.01)
    if reader.op_type in _CLIPS:
        state.measure(result)
        state.root[name] = state.base[name] = name
        state.clipped[name] = result
    elif reader.op_type == "LeakyRelu" and slope > 0:
        state.measure(result)
        state.functions.append(onnx.helper.make_node("LeakyRelu", [result], [name], alpha=1 / slope))
        state.root[name] = state.base[name] = result
        state.derived[name] = result
    else:
        state.measure(name)
