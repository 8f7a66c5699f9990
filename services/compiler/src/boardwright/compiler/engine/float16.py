"""Pass ``convert-float16``: half the bytes, for boards whose kernels compute in float16.

ONNX Runtime's converter changes the types; what this adds is which nodes must not follow, why, and a graph
that loads. Float16 holds ±65504 and nothing finer than 6e-8; what leaves that is infinite or zero.
In float32 stay, each with its reason:

- ``no-kernel``: operators that runtimes have no float16 kernels for, and control flow that holds some;
- ``overflow``, ``underflow``: nodes that read or make tensors beyond those bounds on calibration samples, or
  whose constants are beyond them;
- ``steep``: exponentials, powers and logarithms, whose results leave the bounds for inputs that do not,
  unless they stayed far from them on calibration samples;
- ``sum``: reductions and normalisations, which add up more than float16 can count.

(Micikevicius et al., "Mixed Precision Training", https://arxiv.org/abs/1710.03740, section 3.3: which
operations need float32.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError, QuantizationFailed
from boardwright.compiler.engine.graph.editing import captured, copy_of, sort_nodes, subgraphs
from boardwright.compiler.engine.graph.inspect import require_finite_weights
from boardwright.compiler.engine.graph.prepare import prepare_graph, require_floats
from boardwright.compiler.engine.graph.session import try_beside
from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange
from boardwright.compiler.engine.protect import Exclusion, excluded_names
from boardwright.compiler.engine.protect.exclusion import requested_exclusion

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

LARGEST = 65504.0
SMALLEST_NORMAL = 2.0**-14

_MARGIN = 2.0
"""How much larger than on the calibration samples a tensor may become."""
_STEEP_MARGIN = 64.0
_STEEP = frozenset({"Exp", "Pow", "Log", "Softplus", "Reciprocal"})
_SUMS = frozenset(
    {
        "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceProd", "CumSum", "LpNormalization", "LayerNormalization", "LRN",
        "InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization",
    }
)  # fmt: skip
_NOT_WORTH = MOVEMENT_OPERATORS | {"Concat", "Shape", "Constant"}
"""What computes nothing: a graph in which only such nodes are left to convert gains nothing."""


@dataclass(frozen=True, slots=True)
class Float16Model:
    """The graph in float16. ``kept`` says what stayed in float32 and why; ``nodes`` counts all, ``casts`` the
    conversions between both."""

    model: onnx.ModelProto
    kept: tuple[Exclusion, ...]
    nodes: int
    casts: int
    notes: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the pass's record as JSON-able values."""
        return {
            "kept_in_float32": [found.to_json() for found in self.kept],
            "nodes": self.nodes,
            "casts": self.casts,
            "notes": list(self.notes),
        }


def convert_float16(
    model: onnx.ModelProto,
    *,
    keep_io: bool = True,
    record: CalibrationRecord | None = None,
    exclude: Iterable[str] = (),
    protect_automatically: bool = True,
) -> Float16Model:
    """Return a float32 ``model`` with weights and activations in float16.

    ``keep_io`` leaves inputs and outputs float32. ``record`` tells which tensors leave float16's bounds;
    without it only constants and operators are judged. ``exclude`` names further nodes for float32.

    Raises:
        QuantizationFailed: ALREADY_QUANTIZED, NOTHING_TO_CONVERT, NODE_UNKNOWN, CONVERSION_FAILED.
        EngineError: WEIGHTS_NOT_FINITE.
    """
    prepared = prepare_graph(model)
    _check(prepared)
    require_finite_weights(prepared)
    ranges = record.ranges if record is not None else {}
    kept = _kept(prepared, ranges) if protect_automatically else _without_kernels(prepared)
    kept = (*kept, *requested_exclusion(prepared, exclude))
    blocked = excluded_names(kept)
    if blocked >= {node.name for node in prepared.graph.node if node.op_type not in _NOT_WORTH}:
        raise QuantizationFailed(
            "NOTHING_TO_CONVERT",
            f"Every node has to stay in float32: {kept[0].reason} Nothing is left to convert.",
        )
    converted = _convert(prepared, blocked, keep_io)
    nodes = len(prepared.graph.node)
    casts = sum(node.op_type == "Cast" for node in converted.graph.node)
    casts -= sum(node.op_type == "Cast" for node in prepared.graph.node)
    notes = () if record is not None else (
        "No activation was observed: whether one leaves the bounds of float16 is not known. Give a "
        "calibration dataset.",
    )  # fmt: skip
    return Float16Model(converted, kept, nodes, max(casts, 0), notes)


def _check(model: onnx.ModelProto) -> None:
    import onnx

    require_floats(model)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    if not floats:
        raise QuantizationFailed("NOTHING_TO_CONVERT", "The graph has no weights in float32.")


def _kept(model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> tuple[Exclusion, ...]:
    """Return what stays in float32; the first rule that speaks of a node has it."""
    found = [*_without_kernels(model)]
    largest = _magnitudes(model, ranges)
    for rule, tensors in (("overflow", _overflowing(largest)), ("underflow", _vanishing(largest))):
        found += _touching(model, rule, tensors, excluded_names(found))
    taken = excluded_names(found)
    for name, operators, why in (
        ("steep", _STEEP, "whose results leave the bounds of float16 for inputs that do not"),
        ("sum", _SUMS, "which add up more values than float16 can count"),
    ):
        nodes = [
            node
            for node in model.graph.node
            if node.op_type in operators
            and node.name not in taken
            and not (name == "steep" and _stays_small(node, ranges))
        ]
        if nodes:
            kinds = ", ".join(sorted({node.op_type for node in nodes}))
            found.append(Exclusion(name, tuple(node.name for node in nodes), f"{kinds}: operators {why}."))
            taken |= {node.name for node in nodes}
    return tuple(found)


def _stays_small(node: onnx.NodeProto, ranges: Mapping[str, TensorRange]) -> bool:
    """Whether what a node reads and makes was seen, and was far from float16's end."""
    seen = [ranges[name] for name in (*node.input, *node.output) if name in ranges]
    known = node.input[0] in ranges and node.output[0] in ranges
    return known and all(found.magnitude * _STEEP_MARGIN < LARGEST for found in seen)


def _without_kernels(model: onnx.ModelProto) -> tuple[Exclusion, ...]:
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    without = frozenset(DEFAULT_OP_BLOCK_LIST)
    found = []
    nodes = [node for node in model.graph.node if node.op_type in without]
    if nodes:
        kinds = ", ".join(sorted({node.op_type for node in nodes}))
        reason = f"{kinds}: runtimes have no float16 kernels for these operators."
        found.append(Exclusion("no-kernel", tuple(node.name for node in nodes), reason))
    held = without & _operators_inside(model.graph.node)
    if held:
        flow = [node for node in model.graph.node if any(subgraphs(node))]
        kinds = ", ".join(sorted({node.op_type for node in flow}))
        reason = (
            f"{', '.join(sorted(held))} in the branches of {kinds}: runtimes have no float16 kernels for "
            "these operators, and what a branch reads has one type for all of it."
        )
        names = tuple(node.name for node in (*_handing_in(model), *flow))
        found.append(Exclusion("no-kernel", names, reason))
    return tuple(found)


def _operators_inside(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the operators of all subgraphs of ``nodes``."""
    inner = [node for outer in nodes for graph in subgraphs(outer) for node in graph.node]
    return {node.op_type for node in inner} | (_operators_inside(inner) if inner else set())


def _handing_in(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes that do nothing but hand a tensor to subgraphs (see ``name_captured``)."""
    read = {name for node in model.graph.node for name in captured(node)}
    return [node for node in model.graph.node if node.op_type == "Identity" and node.output[0] in read]


def _magnitudes(model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> dict[str, float]:
    """Return the largest absolute value of each activation that was seen, and of each float32 constant."""
    import onnx
    from onnx import numpy_helper

    largest = {name: found.magnitude for name, found in ranges.items()}
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and 0 not in tensor.dims:
            largest[tensor.name] = float(abs(numpy_helper.to_array(tensor)).max())
    return largest


def _overflowing(largest: Mapping[str, float]) -> dict[str, str]:
    """Return the tensors that float16 does not hold, and why."""
    return {
        name: f"{name!r} reaches {value:.3g}, and float16 ends at {LARGEST:.0f}"
        for name, value in largest.items()
        if value * _MARGIN > LARGEST
    }


def _vanishing(largest: Mapping[str, float]) -> dict[str, str]:
    """Return the tensors of which float16 keeps fewer digits, and why."""
    return {
        name: f"{name!r} nowhere exceeds {value:.3g}; below {SMALLEST_NORMAL:.2g} float16 loses digits"
        for name, value in largest.items()
        if 0 < value < SMALLEST_NORMAL
    }


def _touching(
    model: onnx.ModelProto, rule: str, tensors: Mapping[str, str], taken: set[str]
) -> list[Exclusion]:
    """Return one exclusion for each tensor: the nodes that make or read it and are not ``taken``."""
    touching: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys((*node.input, *node.output)):
            touching.setdefault(name, []).append(node.name)
    found, known = [], set(taken)
    for tensor, why in tensors.items():
        nodes = tuple(name for name in touching.get(tensor, ()) if name not in known)
        if nodes:
            found.append(Exclusion(rule, nodes, f"The tensor {why}."))
            known |= set(nodes)
    return found


def _convert(model: onnx.ModelProto, blocked: set[str], keep_io: bool) -> onnx.ModelProto:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    given = copy_of(model)
    # The converter casts behind nodes whose outputs it knows: not those that a branch reads in float32.
    unknown = {node.output[0] for node in _handing_in(given) if node.name in blocked}
    known = [value for value in given.graph.value_info if value.name not in unknown]
    del given.graph.value_info[:]
    given.graph.value_info.extend(known)
    try:
        converted: onnx.ModelProto = convert_float_to_float16(
            given,
            keep_io_types=keep_io,
            op_block_list=[],
            node_block_list=sorted(blocked),
            disable_shape_infer=bool(unknown),
        )
        _join_casts(converted.graph)
        sort_nodes(converted.graph)
        onnx.checker.check_model(converted)
        try_beside(converted, model)
    except EngineError as error:
        raise QuantizationFailed(
            "CONVERSION_FAILED", f"The graph does not load or run in float16. {error.message}"
        ) from error
    except Exception as error:  # the converter raises whatever it meets
        raise QuantizationFailed(
            "CONVERSION_FAILED",
            f"Converting the graph to float16 failed: {type(error).__name__}: {str(error).strip()[:400]}. "
            "Exclude the node it names.",
        ) from error
    return converted


def _join_casts(graph: onnx.GraphProto) -> None:
    """Take out what the converter casts for nothing, in place.

    It casts once for each reader, under one name, and between two nodes in float32 there and back: the
    tensor that had to stay in float32 would overflow on the way.
    """
    import onnx

    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT

    def goal(node: onnx.NodeProto) -> int:
        return next(a.i for a in node.attribute if a.name == "to") if node.op_type == "Cast" else -1

    inputs = {value.name for value in graph.input if value.type.tensor_type.elem_type == full}
    seen: set[str] = set()
    unique = []
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in seen:
            continue
        seen.update(node.output)
        unique.append(node)
    narrowed = {
        node.output[0]: node.input[0]
        for node in unique
        if goal(node) == half and (node.input[0].endswith("_cast_to_fp16") or node.input[0] in inputs)
    }
    back = {
        node.output[0]: narrowed[node.input[0]]
        for node in unique
        if goal(node) == full and node.input[0] in narrowed
    }
    outputs = {value.name for value in graph.output}
    for node in unique:
        for place, name in enumerate(node.input):
            if name in back:
                node.input[place] = back[name]
        if goal(node) == full and node.output[0] in outputs and node.input[0] in narrowed:
            node.input[0] = narrowed[node.input[0]]  # an output in float32 needs no narrower step before it
    read = {name for node in unique for name in node.input} | outputs
    kept = [node for node in unique if node.op_type != "Cast" or node.output[0] in read]
    read = {name for node in kept for name in node.input} | outputs
    kept = [node for node in kept if node.op_type != "Cast" or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(kept)
    values = {value.name: value for value in graph.value_info}
    known = {name for node in kept for name in node.output}
    del graph.value_info[:]
    graph.value_info.extend(value for name, value in values.items() if name in known)
