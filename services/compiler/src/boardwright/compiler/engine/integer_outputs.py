"""What leaves the integers: outputs of integer layers that only floating-point nodes read.

Such an output is rounded once more on its way out, to 256 steps for all channels together, though nothing
behind it needs integers. Two things keep more of it, at no cost at run time:

- a Gemm or MatMul gives floats straight from its 32-bit sums: its Quantize and Dequantize go;
- a Conv has no kernel that does so. Its channels are scaled to fill the range (in weights and bias), and the
  Dequantize behind it takes one scale per channel back.

Detection heads and logits are the usual case. Schemes of one scale per tensor, or without zero points, are
left alone: their compilers refuse a Dequantize per channel on activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import copy_of, replace_nodes
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_LARGEST_FACTOR = 1e3


def takes_part(scheme: QuantizationScheme) -> bool:
    """Tell whether graphs of ``scheme`` may leave the integers by these ways."""
    return scheme.per_channel and scheme.weight_symmetric and not scheme.activation_symmetric


def leaving_layers(
    model: onnx.ModelProto, operators: tuple[str, ...], excluded: set[str]
) -> list[onnx.NodeProto]:
    """Return the quantized layers of these operators whose output is read in floating point alone."""
    topology = Topology(model.graph)
    return [
        node
        for index, node in enumerate(topology.nodes)
        if node.op_type in operators
        and node.name not in excluded
        and topology.is_weighted(index)
        and all(topology.nodes[reader].name in excluded for reader in topology.readers(node.output[0]))
    ]


def spread_channels(
    model: onnx.ModelProto, record: CalibrationRecord, excluded: set[str]
) -> tuple[onnx.ModelProto, CalibrationRecord, dict[str, Array]]:
    """Scale the channels of Convs that leave the integers so that each fills the tensor's range.

    Returns the graph, the record with those tensors' ranges, and the factors (C,) by tensor, which
    ``take_back`` gives to the Dequantize nodes. Channels that the record does not know stay.
    """
    import numpy as np
    from onnx import numpy_helper

    spread = copy_of(model)
    stored = {tensor.name: tensor for tensor in spread.graph.initializer}
    topology = Topology(spread.graph)
    ranges, factors = dict(record.ranges), {}
    for node in leaving_layers(spread, ("Conv",), excluded):
        name = node.output[0]
        found, whole = record.statistics.get(name), record.ranges.get(name)
        own = [constant for constant in node.input[1:] if constant]
        known = found is not None and found.channels is not None and found.channels.axis == 1
        if (
            not known
            or whole is None
            or any(constant not in stored or len(topology.readers(constant)) != 1 for constant in own)
        ):
            continue
        low = np.clip(np.asarray(found.channels.low), whole.low, 0.0)  # type: ignore[union-attr]
        high = np.clip(np.asarray(found.channels.high), 0.0, whole.high)  # type: ignore[union-attr]
        factor, common = _factors(low, high)
        for constant in own:
            value = numpy_helper.to_array(stored[constant])
            scaled = value * factor.reshape(-1, *[1] * (value.ndim - 1))
            stored[constant].CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), constant))
        ranges[name], factors[name] = common, factor
    return spread, replace(record, ranges=ranges), factors


def _factors(low: Array, high: Array) -> tuple[Array, TensorRange]:
    """Return by how much each channel can grow within the range of all, and that range."""
    import numpy as np

    common = TensorRange(float(low.min()), float(high.max()))
    with np.errstate(divide="ignore"):
        upward = np.where(high > 0, common.high / np.where(high > 0, high, 1), np.inf)
        downward = np.where(low < 0, common.low / np.where(low < 0, low, 1), np.inf)
    factor = np.minimum(upward, downward)
    factor = np.where(np.isfinite(factor), factor, 1.0)
    return np.clip(factor, 1.0, _LARGEST_FACTOR).astype(np.float32), common


def take_back(quantized: onnx.ModelProto, factors: Mapping[str, Array]) -> None:
    """Give each Dequantize behind a spread tensor one scale per channel, in place."""
    import numpy as np
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    rounded = _rounded_tensors(quantized)
    for node in quantized.graph.node:
        name = rounded.get(node.input[0], "") if node.op_type == "DequantizeLinear" else ""
        if name not in factors:
            continue
        factor = factors[name]
        scale, zero = (numpy_helper.to_array(stored[constant]) for constant in node.input[1:3])
        new = [(scale / factor).astype(np.float32), np.full(factor.shape, zero, zero.dtype)]
        for place, value in enumerate(new, start=1):
            constant = f"{node.input[place]}_per_channel"
            if constant not in stored:
                quantized.graph.initializer.append(numpy_helper.from_array(value, constant))
                stored[constant] = quantized.graph.initializer[-1]
            node.input[place] = constant
        node.attribute.append(helper.make_attribute("axis", 1))


def give_floats(quantized: onnx.ModelProto, model: onnx.ModelProto, excluded: set[str]) -> int:
    """Take Quantize and Dequantize away behind matrix products that leave the integers, in place."""
    names = {node.output[0] for node in leaving_layers(model, ("Gemm", "MatMul"), excluded)}
    rounded = _rounded_tensors(quantized)
    topology = Topology(quantized.graph)
    removed: set[int] = set()
    for index, node in enumerate(topology.nodes):
        if node.op_type != "DequantizeLinear" or rounded.get(node.input[0]) not in names:
            continue
        (source,) = topology.producers(index)
        exact = topology.nodes[source].input[0]
        made = topology.producer_of(exact)
        users = set(topology.readers(node.input[0]))
        if made is None or len(set(topology.readers(exact))) != 1 or len(users) != 1:
            continue
        layer = topology.nodes[made]
        if layer.op_type not in ("Gemm", "MatMul"):
            continue
        if node.output[0] in topology.outputs:
            layer.output[0] = node.output[0]
        else:  # the tensor keeps the name that it has in the float graph: whoever compares looks for it
            for reader in topology.readers(node.output[0]):
                inputs = topology.nodes[reader].input
                inputs[:] = [exact if name == node.output[0] else name for name in inputs]
        removed |= {source, index}
    if removed:
        replace_nodes(quantized.graph, [n for i, n in enumerate(topology.nodes) if i not in removed])
    return len(removed) // 2


def _rounded_tensors(quantized: onnx.ModelProto) -> dict[str, str]:
    """Return the float graph's name of what each QuantizeLinear rounds, by its output.

    A graph output keeps its name behind the Dequantize; the tensor in front of the Quantize is renamed.
    """
    dequantized = {
        node.input[0]: node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"
    }
    outputs = {value.name for value in quantized.graph.output}
    found = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear":
            behind = dequantized.get(node.output[0], "")
            found[node.output[0]] = behind if behind in outputs else node.input[0]
    return found
