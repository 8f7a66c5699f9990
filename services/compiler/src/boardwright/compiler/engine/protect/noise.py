"""Where quantization adds noise, and graphs that measure or inject exactly that noise.

A unit is a node that rounds: a layer (its weights and its output), or an operator whose output gets a scale
of its own. An activation fused to it belongs to it. Beside each unit of interest the graphs compute the same
node once more with rounded weights and a rounded output; the difference is the unit's noise.

- The measuring graph gives, per run, the power of each unit's noise and the power and mean of each tensor.
- The injecting graph has one more input, the strength of each unit's noise: 1 quantizes that unit alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes, copy_of
from boardwright.compiler.engine.graph.layers import output_axis
from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS
from boardwright.compiler.engine.grid import round_weight
from boardwright.compiler.engine.observe import TensorRange
from boardwright.compiler.engine.power_of_two import rounded_up
from boardwright.compiler.engine.protect.conversions import integer_nodes
from boardwright.compiler.engine.protect.structure import FUSED_ACTIVATIONS, Subject
from boardwright.compiler.engine.scheme import LEAST_RANGE, QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

STRENGTH = "boardwright_strength"
NOISE, POWER, MEAN, SIZE = (
    "boardwright_noise_",
    "boardwright_power_",
    "boardwright_mean_",
    "boardwright_size_",
)

_SAME_SCALE = MOVEMENT_OPERATORS | FUSED_ACTIVATIONS | {"MaxPool", "Max", "Min"}


@dataclass(frozen=True, slots=True)
class Unit:
    """A node that adds noise when it runs on integers: its index, and the tensor that is rounded.

    ``fused`` is the activation behind it that runs within it, or None.
    """

    node: int
    name: str
    tensor: str
    fused: int | None = None


def noisy_units(subject: Subject, excluded: Iterable[str] = ()) -> list[Unit]:
    """Return the units of a graph in its order, without the ``excluded`` nodes."""
    left_out = set(excluded)
    out = {index for index, node in enumerate(subject.nodes) if node.name in left_out}
    units = []
    for index in sorted(integer_nodes(subject, out)):
        node = subject.nodes[index]
        if node.op_type in _SAME_SCALE:
            continue
        fused = _fused_activation(subject, index)
        tensor = subject.nodes[fused].output[0] if fused is not None else node.output[0]
        if tensor in subject.ranges:
            units.append(Unit(index, node.name, tensor, fused))
    return units


def measuring_graph(subject: Subject, units: Sequence[Unit]) -> tuple[onnx.ModelProto, list[str]]:
    """Return a graph that measures the noise of ``units``, and the names of its outputs to ask for."""
    from onnx import helper

    probe = _Probe(subject)
    noises = {}
    complete = _by_completion(units)
    for index in range(len(subject.nodes)):
        probe.copy(index)
        for unit in complete.get(index, ()):
            noises[unit.tensor] = probe.add_noise(unit)
    names = []
    for tensor in subject.ranges:
        asked = [(POWER, "ReduceSumSquare", tensor), (MEAN, "ReduceMean", tensor)]
        if tensor in noises:
            asked.append((NOISE, "ReduceSumSquare", noises[tensor]))
        for prefix, operator, source in asked:
            probe.nodes.append(helper.make_node(operator, [source], [prefix + tensor], keepdims=0))
            names.append(prefix + tensor)
        probe.nodes.append(helper.make_node("Size", [tensor], [SIZE + tensor]))
        names.append(SIZE + tensor)
    return probe.finish(names), names


def injecting_graph(
    subject: Subject, units: Sequence[Unit], answers: Sequence[str]
) -> tuple[onnx.ModelProto, list[str]]:
    """Return a graph whose input ``STRENGTH`` (len(units),) float32 scales each unit's noise.

    ``answers`` are the tensors to judge by; the second value are their names in the new graph.
    """
    import numpy as np
    from onnx import TensorProto, helper

    probe = _Probe(subject)
    strengths = helper.make_tensor_value_info(STRENGTH, TensorProto.FLOAT, [len(units)])
    probe.model.graph.input.append(strengths)
    order = {unit.tensor: number for number, unit in enumerate(units)}
    complete = _by_completion(units)
    for index in range(len(subject.nodes)):
        probe.copy(index)
        for unit in complete.get(index, ()):
            tensor = unit.tensor
            noise = probe.add_noise(unit)
            number = probe.constant(f"{tensor}_unit", np.int64(order[tensor]))
            probe.node("Gather", [STRENGTH, number], f"{tensor}_strength", axis=0)
            probe.node("Mul", [noise, f"{tensor}_strength"], f"{tensor}_scaled")
            probe.renamed[tensor] = probe.node("Add", [tensor, f"{tensor}_scaled"], f"{tensor}_injected")
    names = [probe.renamed.get(tensor, tensor) for tensor in answers]
    return probe.finish(names), names


def scale_of(found: TensorRange, scheme: QuantizationScheme) -> tuple[np.float32, Array]:
    """Return the scale and zero point that ``scheme`` gives a tensor of this range."""
    import numpy as np

    dtype = np.int8 if scheme.activation_type == "int8" else np.uint8
    low, high = min(found.low, 0.0), max(found.high, 0.0, found.low + LEAST_RANGE)
    if scheme.activation_symmetric:
        largest = max(-low, high)
        if scheme.power_of_two:
            largest = rounded_up(found).high
        return (np.float32(largest / 127), np.array(0 if dtype is np.int8 else 128, dtype))
    scale = (high - low) / 255
    zero = round(-low / scale) - (128 if dtype is np.int8 else 0)
    return np.float32(scale), np.array(zero, dtype)


class _Probe:
    """A copy of a graph that grows nodes beside its own."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.model = copy_of(subject.model)
        self.nodes: list[onnx.NodeProto] = []
        self.renamed: dict[str, str] = {}

    def copy(self, index: int) -> None:
        """Take over a node, reading injected tensors where there are some."""
        import onnx

        node = onnx.NodeProto()
        node.CopyFrom(self.subject.nodes[index])
        for position, name in enumerate(node.input):
            node.input[position] = self.renamed.get(name, name)
        self.nodes.append(node)

    def add_noise(self, unit: Unit) -> str:
        """Add what computes a unit's noise; return the noise's name."""
        rounded = self._rounded(unit.node, None)
        if unit.fused is not None and rounded != self.subject.nodes[unit.node].output[0]:
            rounded = self._rounded(unit.fused, rounded)
        elif unit.fused is not None:
            rounded = unit.tensor
        tensor = unit.tensor
        scale, zero = scale_of(self.subject.ranges[tensor], self.subject.scheme)
        parameters = [self.constant(f"{tensor}_scale", scale), self.constant(f"{tensor}_zero", zero)]
        stored = self.node("QuantizeLinear", [rounded, *parameters], f"{tensor}_stored")
        read = self.node("DequantizeLinear", [stored, *parameters], f"{tensor}_read")
        return self.node("Sub", [read, tensor], f"{tensor}_noise")

    def _rounded(self, index: int, source: str | None) -> str:
        """Repeat a node with rounded weights, or on ``source``; the name of its output if nothing differs."""
        import onnx

        node = onnx.NodeProto()
        node.CopyFrom(self.subject.nodes[index])
        original: str = node.output[0]
        for position, name in enumerate(node.input):
            node.input[position] = self.renamed.get(name, name)
        if source is not None:
            node.input[0] = source
        elif not self._round_weight(node, index):
            return original
        node.output[0] = f"{original}_rounded"
        node.name = f"{node.name}_rounded"
        self.nodes.append(node)
        return f"{original}_rounded"

    def _round_weight(self, node: onnx.NodeProto, index: int) -> bool:
        import numpy as np

        if index not in self.subject.layers or len(node.input) < 2:
            return False
        weight = self.subject.constant(node.input[1])
        if weight is None or weight.dtype != np.float32 or weight.ndim < 2:
            return False
        axis = output_axis(node, weight.ndim)
        if axis is None:
            return False
        groups = attributes(node).get("group", 1) if node.op_type == "Conv" else 1
        rounded = round_weight(np.moveaxis(weight, axis, 0), self.subject.scheme, groups)
        node.input[1] = self.constant(
            f"{node.output[0]}_weight", np.ascontiguousarray(np.moveaxis(rounded, 0, axis), np.float32)
        )
        return True

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node; return its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        """Store a constant; return its name."""
        import numpy as np
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def finish(self, outputs: list[str]) -> onnx.ModelProto:
        """Return the graph with exactly these outputs."""
        import onnx
        from onnx import helper

        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.output[:]
        for name in dict.fromkeys(outputs):
            kind = onnx.TensorProto.INT64 if name.startswith(SIZE) else onnx.TensorProto.FLOAT
            graph.output.append(helper.make_tensor_value_info(name, kind, None))
        return self.model


def _by_completion(units: Sequence[Unit]) -> dict[int, list[Unit]]:
    """Return the units by the node that completes them when it has run."""
    found: dict[int, list[Unit]] = {}
    for unit in units:
        found.setdefault(unit.node if unit.fused is None else unit.fused, []).append(unit)
    return found


def _fused_activation(subject: Subject, index: int) -> int | None:
    node = subject.nodes[index]
    consumers = subject.topology.consumers(index)
    if len(consumers) != 1 or node.output[0] in subject.topology.outputs:
        return None
    return consumers[0] if subject.nodes[consumers[0]].op_type in FUSED_ACTIVATIONS else None
