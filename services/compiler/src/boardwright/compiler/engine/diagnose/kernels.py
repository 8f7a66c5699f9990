"""What the optimised graph runs: integer layers, float layers, and the conversions between them.

The Q/DQ nodes of a file say what was meant. What runs is decided when the runtime fuses them: a pattern that
it has no kernel for is computed on floats, with a conversion before and after.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.session import (
    CONVERSIONS,
    FLOAT_KERNELS,
    INTEGER_KERNELS,
    open_session,
)
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion that runs: its operator, and the operators it stands between."""

    node: str
    operator: str
    after: str
    before: str


@dataclass(frozen=True, slots=True)
class KernelReport:
    """The layers by how they are computed, by node name, and the conversions.

    ``activation_type`` and ``weight_type`` are those of the file's Quantize and Dequantize nodes (``uint8``,
    ``int8``), empty in a float graph. ``splits`` are the conversions that are not at the graph's own inputs
    and outputs.
    """

    integer_layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    conversions: tuple[Conversion, ...]
    activation_type: str
    weight_type: str

    @property
    def splits(self) -> tuple[Conversion, ...]:
        """The conversions in mid-graph."""
        return tuple(found for found in self.conversions if found.after and found.before)

    def count(self, operator: str) -> int:
        """Return how many conversions are of one operator."""
        return sum(found.operator == operator for found in self.conversions)

    def describe(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "integer_layers": list(self.integer_layers),
            "float_layers": list(self.float_layers),
            "conversions": [
                {"node": found.node, "operator": found.operator, "after": found.after, "before": found.before}
                for found in self.conversions
            ],
            "splits": len(self.splits),
            "activation_type": self.activation_type,
            "weight_type": self.weight_type,
        }


def report_kernels(model: onnx.ModelProto) -> KernelReport:
    """Return what a deployed session on this machine would run for ``model``.

    Raises:
        EngineError: RUNTIME_REFUSED.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(model, optimized_path=path, exact=False)
        optimised = onnx.load(path)
    topology = Topology(optimised.graph)
    conversions = []
    for index, node in enumerate(topology.nodes):
        if node.op_type in CONVERSIONS and node.input[0] not in topology.constants:
            producer = topology.producer_of(node.input[0])
            readers = topology.consumers(index)
            conversions.append(
                Conversion(
                    node.name or node.output[0],
                    node.op_type,
                    topology.nodes[producer].op_type if producer is not None else "",
                    topology.nodes[readers[0]].op_type if readers else "",
                )
            )
    activation, weight = _types(model)
    return KernelReport(
        tuple(node.name for node in topology.nodes if node.op_type in INTEGER_KERNELS),
        tuple(
            node.name
            for index, node in enumerate(topology.nodes)
            if node.op_type in FLOAT_KERNELS and _has_constant(topology, index)
        ),
        tuple(conversions),
        activation,
        weight,
    )


def _has_constant(topology: Topology, index: int) -> bool:
    """Tell whether a product has weights, as floats or as integers to dequantize."""
    for name in topology.nodes[index].input[1:]:
        producer = topology.producer_of(name)
        if name in topology.constants:
            return True
        if producer is not None and topology.nodes[producer].op_type == "DequantizeLinear":
            return topology.nodes[producer].input[0] in topology.constants
    return False


def _types(model: onnx.ModelProto) -> tuple[str, str]:
    """Return the integer types of activations and of weights that the file's Q/DQ nodes declare."""
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def name_of(zero_point: str) -> str:
        tensor = constants.get(zero_point)
        return str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) if tensor is not None else ""

    activation = weight = ""
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and not activation:
            activation = name_of(node.input[2])
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            found = str(onnx.helper.tensor_dtype_to_np_dtype(constants[node.input[0]].data_type))
            weight = weight or ("" if found == "int32" else found)
    return activation, weight
