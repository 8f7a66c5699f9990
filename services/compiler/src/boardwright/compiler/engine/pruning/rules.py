"""How each operator passes labels of channels on: layers, arithmetic, reductions. ``movement`` has the rest.

A rule reads the labels of a node's inputs and writes those of its outputs. What it cannot follow, it freezes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes
from boardwright.compiler.engine.pruning import movement

if TYPE_CHECKING:
    import numpy as np

    from boardwright.compiler.engine.pruning.dependencies import Trace

    Array = np.ndarray[Any, Any]

Rule = Callable[["Trace", int], None]


def freeze_inputs(trace: Trace, index: int) -> None:
    """Freeze what reaches a node that no rule knows."""
    node = trace.nodes[index]
    for name in node.input:
        trace.freeze(name, node.op_type)


def convolution(trace: Trace, index: int) -> None:
    """Conv: (O, I / groups, ...) weights; a depthwise layer passes its channels on."""
    node = trace.nodes[index]
    name, weight = node.input[0], node.input[1]
    groups = attributes(node).get("group", 1)
    if not trace.is_constant(weight) or trace.rank(weight) < 3:
        return freeze_inputs(trace, index)
    _freeze_others(trace, index, {1})
    outputs, inputs = trace.shapes[weight][:2]
    read = trace.labels_of(name, 1)
    if groups > 1 and inputs == 1:
        return _depthwise(trace, index, read, outputs, groups)
    if read is not None:
        tied = _tie_groups(trace, read, groups)
        trace.tie_shared(weight, 1, tied)
        trace.follow(index, 1, 1, tied, "in")
    made = trace.fresh(weight, 0, outputs)
    _tie_groups(trace, made, groups)
    _make(trace, index, 0, made)
    return None


def transposed_convolution(trace: Trace, index: int) -> None:
    """ConvTranspose: (I, O / groups, ...) weights."""
    node = trace.nodes[index]
    name, weight = node.input[0], node.input[1]
    groups = attributes(node).get("group", 1)
    if not trace.is_constant(weight):
        return freeze_inputs(trace, index)
    _freeze_others(trace, index, {1})
    read = trace.labels_of(name, 1)
    inputs, outputs = trace.shapes[weight][:2]
    if groups == inputs and outputs == 1:
        return _depthwise(trace, index, read, inputs, groups)
    if groups > 1:
        return trace.freeze(name, "grouped ConvTranspose")
    if read is not None:
        trace.tie_shared(weight, 0, read)
        trace.follow(index, 1, 0, read, "in")
    _make(trace, index, 1, trace.fresh(weight, 1, outputs))
    return None


def general_product(trace: Trace, index: int) -> None:
    """Gemm: (I, O) weights, or (O, I) with transB."""
    node = trace.nodes[index]
    name, weight = node.input[0], node.input[1]
    options = attributes(node)
    plain = not options.get("transA", 0) and options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0
    if not plain or not trace.is_constant(weight) or trace.is_constant(name):
        return freeze_inputs(trace, index)
    _freeze_others(trace, index, {1})
    turned = bool(options.get("transB", 0))
    _product(trace, index, trace.labels_of(name, 1), columns=1 if turned else 0, rows=0 if turned else 1)
    return None


def product(trace: Trace, index: int) -> None:
    """MatMul with (I, O) weights, or of two activations, whose leading axes are attention's heads."""
    node = trace.nodes[index]
    first, second = node.input
    if trace.is_constant(second) and trace.rank(second) == 2 and trace.rank(first) >= 2:
        last = trace.rank(first) - 1
        for axis, labels in list(trace.axes.get(first, {}).items()):
            if axis < last:
                trace.put(node.output[0], axis, labels)
        _product(trace, index, trace.labels_of(first, last), columns=0, rows=1)
        return
    if trace.rank(first) < 2 or trace.rank(second) < 2 or any(map(trace.is_constant, node.input)):
        freeze_inputs(trace, index)
        return
    rank = trace.rank(node.output[0])
    trace.freeze(first, "contraction", trace.rank(first) - 1)
    trace.freeze(second, "contraction", trace.rank(second) - 2)
    _broadcast(trace, index, range(rank - 2))
    trace.put(node.output[0], rank - 2, trace.labels_of(first, trace.rank(first) - 2))
    trace.put(node.output[0], rank - 1, trace.labels_of(second, trace.rank(second) - 1))


def elementwise(trace: Trace, index: int) -> None:
    """Arithmetic of several tensors: equal positions are tied, stored values follow."""
    _broadcast(trace, index, range(trace.rank(trace.nodes[index].output[0])))


def unary(trace: Trace, index: int) -> None:
    """A function of each value, or a pooling that keeps the axes it has labels for."""
    node = trace.nodes[index]
    for axis, labels in list(trace.axes.get(node.input[0], {}).items()):
        trace.put(node.output[0], axis, labels)


def pooling(trace: Trace, index: int) -> None:
    """Batch and channels pass, space does not."""
    _freeze_others(trace, index, {0, 1})
    unary(trace, index)


def batch_norm(trace: Trace, index: int) -> None:
    """Scale, shift, mean and variance follow the channels."""
    node = trace.nodes[index]
    labels = trace.labels_of(node.input[0], 1)
    if labels is not None:
        for slot in range(1, len(node.input)):
            if not trace.is_constant(node.input[slot]):
                return freeze_inputs(trace, index)
        for slot in range(1, len(node.input)):
            trace.follow(index, slot, 0, labels, _NORM_ROLES[min(slot, 3)])
    unary(trace, index)
    return None


def softmax(trace: Trace, index: int) -> None:
    """What is normalised over cannot lose members."""
    node = trace.nodes[index]
    axis = attributes(node).get("axis", -1) % max(1, trace.rank(node.input[0]))
    trace.freeze(node.input[0], node.op_type, axis)
    unary(trace, index)


def layer_norm(trace: Trace, index: int) -> None:
    """As softmax, over all axes from ``axis`` on."""
    node = trace.nodes[index]
    rank = trace.rank(node.input[0])
    for axis in range(attributes(node).get("axis", -1) % max(1, rank), rank):
        trace.freeze(node.input[0], node.op_type, axis)
    unary(trace, index)


def reduction(trace: Trace, index: int) -> None:
    """Axes that are reduced freeze (a mean over fewer channels is another mean); the others pass."""
    node = trace.nodes[index]
    name, rank = node.input[0], trace.rank(node.input[0])
    axes = _axes_of(trace, index, rank)
    if axes is None:
        return freeze_inputs(trace, index)
    reduced = set(axes) or (set() if attributes(node).get("noop_with_empty_axes", 0) else set(range(rank)))
    kept = attributes(node).get("keepdims", 1)
    place = 0
    for axis in range(rank):
        if axis in reduced:
            trace.freeze(name, node.op_type, axis)
            place += kept
        else:
            trace.put(node.output[0], place, trace.labels_of(name, axis))
            place += 1
    return None


def _axes_of(trace: Trace, index: int, rank: int) -> list[int] | None:
    """Return ``axes``, from the attribute or the second input, none negative; None where not constant."""
    node = trace.nodes[index]
    found = attributes(node).get("axes")
    if found is None and len(node.input) > 1 and node.input[1]:
        value = trace.value(node.input[1])
        if value is None:
            return None
        found = value.reshape(-1).tolist()
    return [axis % max(1, rank) for axis in found or []]


def _depthwise(trace: Trace, index: int, read: Array | None, outputs: int, groups: int) -> None:
    import numpy as np

    if read is None:
        return
    made = np.repeat(read, outputs // groups)
    trace.tie_shared(trace.nodes[index].input[1], 0, made)
    trace.follow(index, 1, 0, made, "depthwise")
    if len(trace.nodes[index].input) > 2:
        trace.follow(index, 2, 0, made, "bias")
    trace.put(trace.nodes[index].output[0], 1, made)


def _tie_groups(trace: Trace, labels: Array, groups: int) -> Array:
    """Tie the channels at the same place of every group, so that groups stay equally wide."""
    if groups == 1:
        return labels
    places = labels.reshape(groups, -1)
    for row in places[1:]:
        trace.labels.unite(places[0], row)
    first: Array = places[0]
    return first


def _make(trace: Trace, index: int, axis: int, made: Array) -> None:
    node = trace.nodes[index]
    trace.follow(index, 1, axis, made, "out")
    if len(node.input) > 2 and node.input[2]:
        if trace.is_constant(node.input[2]):
            trace.follow(index, 2, 0, made, "bias")
        else:
            trace.labels.freeze(made)
    trace.put(node.output[0], 1, made)


def _product(trace: Trace, index: int, read: Array | None, *, columns: int, rows: int) -> None:
    node = trace.nodes[index]
    weight, last = node.input[1], trace.rank(node.output[0]) - 1
    if read is not None:
        trace.tie_shared(weight, columns, read)
        trace.follow(index, 1, columns, read, "in")
    made = trace.fresh(weight, rows, trace.shapes[weight][rows])
    trace.follow(index, 1, rows, made, "out")
    if len(node.input) > 2 and node.input[2]:
        bias = node.input[2]
        if not trace.is_constant(bias):
            trace.labels.freeze(made)
            trace.freeze(bias, node.op_type)
        elif trace.shapes[bias] and trace.shapes[bias][-1] == made.size:
            trace.follow(index, 2, trace.rank(bias) - 1, made, "bias")
    trace.put(node.output[0], last, made)


def _freeze_others(trace: Trace, index: int, kept: set[int]) -> None:
    """Freeze labels on axes that the operator slides over."""
    node = trace.nodes[index]
    for axis in trace.axes.get(node.input[0], {}):
        if axis not in kept and axis != 0:
            trace.freeze(node.input[0], node.op_type, axis)


def _broadcast(trace: Trace, index: int, axes: range) -> None:
    """Tie the inputs' labels on these axes of the output, by the rules of broadcasting."""
    node = trace.nodes[index]
    made = node.output[0]
    rank = trace.rank(made)
    for axis in axes:
        met: list[Array | None] = []
        stored: list[tuple[int, int]] = []
        for slot, name in enumerate(node.input):
            own = axis - (rank - trace.rank(name))
            if not name or own < 0 or trace.shapes[name][own] == 1:
                continue
            if trace.is_constant(name):
                stored.append((slot, own))
            else:
                met.append(trace.labels_of(name, own))
        labelled = [labels for labels in met if labels is not None]
        if not labelled:
            continue
        for labels in labelled[1:]:
            trace.labels.unite(labelled[0], labels)
        if len(labelled) < len(met):
            trace.labels.freeze(labelled[0])
            trace.frozen_by[node.op_type] = trace.frozen_by.get(node.op_type, 0) + 1
        for slot, own in stored:
            trace.follow(index, slot, own, labelled[0], "value")
        trace.put(made, axis, labelled[0])


_NORM_ROLES = {1: "scale", 2: "bias", 3: "value"}
_UNARY = (
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "HardSigmoid", "Elu", "Selu", "Celu", "Gelu",
    "Mish", "Softplus", "Softsign", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Floor", "Ceil",
    "Round", "Sign", "Sin", "Cos", "Identity", "Cast", "Dropout", "Not", "ThresholdedRelu", "Swish",
    "BitShift", "IsNaN", "IsInf",
)  # fmt: skip
_ELEMENTWISE = (
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "Where", "PRelu", "Mod", "Equal", "Less",
    "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor",
)  # fmt: skip
_POOLING = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool")
_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_POOLING, pooling),
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": general_product,
    "MatMul": product,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": batch_norm,
    **movement.RULES,
}
