"""Costs that follow from a graph's shapes: multiply-accumulates, parameters, activation memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

_BITS = {
    "float32": 32,
    "float16": 16,
    "float64": 64,
    "int64": 64,
    "int32": 32,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
}
_DEFAULT_BITS = 32
_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "ConvInteger", "QLinearConv"})
_PRODUCTS = frozenset(
    {"Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul",
     "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeCosts:
    """What one node costs: multiply-accumulates, parameters (numbers), and the bytes of what it makes."""

    name: str
    operator: str
    output_shape: Shape
    macs: int
    parameters: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class GraphCosts:
    """The costs of every node, and of the graph.

    ``weight_bytes`` are all initializers as stored. ``peak_activation_bytes`` is the most that lives at one
    time when nodes run in graph order and a tensor dies with its last reader: a bound that a runtime's
    arena reaches at best. ``unknown`` names nodes whose shapes could not be inferred; they count as 0.
    """

    nodes: tuple[NodeCosts, ...]
    weight_bytes: int
    peak_activation_bytes: int
    unknown: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass."""
        return sum(node.macs for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Numbers in the layers' weights."""
        return sum(node.parameters for node in self.nodes)


def graph_costs(model: onnx.ModelProto) -> GraphCosts:
    """Return the costs of a graph with fixed input shapes."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes, sizes = _tensors(inferred)
    weights = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    shapes.update(weights)
    counted: set[str] = set()
    nodes, unknown = [], []
    for index, node in enumerate(inferred.graph.node):
        own = [name for name in node.input if name in weights and name not in counted]
        counted.update(own)
        made = next((name for name in node.output if name), "")
        if made not in shapes and node.op_type != "Constant":
            unknown.append(node.name or made)
        nodes.append(
            NodeCosts(
                node.name or f"{node.op_type}_{index}",
                node.op_type,
                shapes.get(made, ()),
                multiply_accumulates(
                    node.op_type, _shape_of(node, 0, shapes), _weight_of(node, shapes), shapes.get(made, ())
                ),
                sum(prod(weights[name]) for name in own) if _carries_weights(node) else 0,
                sum(sizes.get(name, 0) for name in node.output),
            )
        )
    weight_bytes = sum(_stored_bytes(tensor) for tensor in inferred.graph.initializer)
    return GraphCosts(tuple(nodes), weight_bytes, _peak(inferred, sizes), tuple(unknown))


def _tensors(model: onnx.ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """Return the known shape and the bytes of every tensor that flows through the graph."""
    import onnx

    shapes: dict[str, Shape] = {}
    sizes: dict[str, int] = {}
    for value in [*model.graph.input, *model.graph.value_info, *model.graph.output]:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            continue
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        if any(length < 0 for length in dims):
            continue
        try:
            name = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except KeyError:
            name = ""
        shapes[value.name] = tuple(dims)
        sizes[value.name] = prod(dims) * _BITS.get(name, _DEFAULT_BITS) // 8
    return shapes, sizes


def _stored_bytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) if tensor.raw_data else tensor.ByteSize()


def _carries_weights(node: onnx.NodeProto) -> bool:
    return node.op_type not in {
        "Reshape",
        "Slice",
        "Gather",
        "Expand",
        "Resize",
        "Split",
        "Pad",
        "Tile",
        "Constant",
    }


def _shape_of(node: onnx.NodeProto, place: int, shapes: Mapping[str, Shape]) -> Shape:
    return shapes.get(node.input[place], ()) if len(node.input) > place else ()


def _weight_of(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> Shape:
    return _shape_of(node, 3 if node.op_type in ("QLinearConv", "QLinearMatMul") else 1, shapes)


def multiply_accumulates(operator: str, read: Shape, weight: Shape, made: Shape) -> int:
    """Return the multiply-accumulates of one operator from the shapes of input, weight and result.

    0 for operators that are no layers, and where a shape is unknown (empty).
    """
    if not made:
        return 0
    if operator in _CONVOLUTIONS and weight:
        return prod(made) * prod(weight[1:])
    if operator == "ConvTranspose" and weight:
        return prod(read) * prod(weight[1:])
    if operator in _PRODUCTS and read:
        return prod(made) * read[-1]
    return 0


def _peak(model: onnx.ModelProto, sizes: Mapping[str, int]) -> int:
    last_reader = {name: index for index, node in enumerate(model.graph.node) for name in node.input}
    kept = {value.name for value in model.graph.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    alive = {
        value.name: sizes.get(value.name, 0) for value in model.graph.input if value.name not in constants
    }
    peak = sum(alive.values())
    for index, node in enumerate(model.graph.node):
        alive.update({name: sizes.get(name, 0) for name in node.output if name})
        peak = max(peak, sum(alive.values()))
        for name in [*node.input, *node.output]:
            if name in alive and name not in kept and last_reader.get(name, -1) <= index:
                del alive[name]
    return peak
