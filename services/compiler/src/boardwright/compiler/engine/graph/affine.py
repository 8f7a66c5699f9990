"""Batch norms and biases that an exporter wrote out as arithmetic, folded into the layer before them.

ONNX Runtime fuses BatchNormalization, and one Mul or Add at a time behind a Conv. Keras subtracts the mean,
multiplies and adds; converters of TensorFlow divide or add a bias. What is left between a layer and its
activation costs conversions, and a depthwise layer without its norm has channels too unlike for one scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_FOLDED = ("Add", "Sub", "Mul", "Div")
_LAYERS = ("Conv", "ConvTranspose", "Gemm")


def fold_affine(graph: onnx.GraphProto) -> int:
    """Fold constant arithmetic per output channel into the float layers before it, in place.

    Only where nothing else reads the layer's output or its weight (what subgraphs read has a node of its own:
    ``name_captured``), and where the new weights are finite. Returns how many operators are gone; the last
    one's output keeps its name.
    """
    from onnx import TensorProto

    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    gone: list[onnx.NodeProto] = []
    for layer in graph.node:
        axis = _channel_axis(layer, stored)
        if axis is None or len(readers[layer.input[1]]) > 1 or layer.input[1] in outputs:
            continue
        folded: tuple[Array, Array] | None = None
        while layer.output[0] not in outputs and len(readers.get(layer.output[0], ())) == 1:
            (node,) = readers[layer.output[0]]
            channels = stored[layer.input[1]].dims[axis]
            rank = len(stored[layer.input[1]].dims)
            constant = _per_channel(node, layer.output[0], stored, channels, rank)
            if constant is None:
                break
            changed = _apply(node.op_type, constant, *(folded or _start(layer, stored, channels)))
            if not _fits(stored[layer.input[1]], *changed):
                break
            folded = changed
            gone.append(node)
            layer.output[0] = node.output[0]
        if folded is not None:
            _store(graph, layer, stored, axis, *folded)
    if gone:
        _drop(graph, gone)
    return len(gone)


def _channel_axis(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> int | None:
    """Return the axis of output channels of a layer's weight; None where it is no layer that folds."""
    if node.op_type not in _LAYERS or node.domain not in ("", "ai.onnx"):
        return None
    constants = [name for name in node.input[1:] if name]
    if not constants or any(name not in stored for name in constants):
        return None
    if any(length != 1 for name in constants[1:] for length in stored[name].dims[:-1]):
        return None  # a bias that differs by row
    given = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if "group" not in given or given["group"].i == 1 else None
    if any(name in given and given[name].f != 1.0 for name in ("alpha", "beta")):
        return None
    return 0 if "transB" in given and given["transB"].i else 1


def _per_channel(
    node: onnx.NodeProto, read: str, stored: Mapping[str, onnx.TensorProto], channels: int, rank: int
) -> Array | None:
    """Return what ``node`` does to each channel of ``read``, as (channels,); None where it does more."""
    import numpy as np
    from onnx import numpy_helper

    if node.op_type not in _FOLDED or node.domain not in ("", "ai.onnx") or len(node.input) != 2:
        return None
    place = list(node.input).index(read)
    other = node.input[1 - place]
    if other not in stored or (place == 1 and node.op_type in ("Sub", "Div")):
        return None
    values = numpy_helper.to_array(stored[other]).astype(np.float64)
    if values.ndim > rank:
        return None
    full = values.reshape([1] * (rank - values.ndim) + list(values.shape))
    if full.size not in (1, channels) or full.size != full.shape[1]:
        return None
    if node.op_type == "Div" and not full.all():
        return None
    return np.broadcast_to(full.reshape(-1), (channels,))


def _start(
    layer: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto], channels: int
) -> tuple[Array, Array]:
    import numpy as np
    from onnx import numpy_helper

    bias = np.zeros(channels)
    if len(layer.input) > 2 and layer.input[2]:
        bias = bias + numpy_helper.to_array(stored[layer.input[2]]).astype(np.float64).reshape(-1)
    return np.ones(channels), bias


def _apply(operator: str, constant: Array, factor: Array, bias: Array) -> tuple[Array, Array]:
    if operator == "Add":
        return factor, bias + constant
    if operator == "Sub":
        return factor, bias - constant
    if operator == "Mul":
        return factor * constant, bias * constant
    return factor / constant, bias / constant


def _fits(weight: onnx.TensorProto, factor: Array, bias: Array) -> bool:
    """Whether float32 can hold the weight times the factor, and the bias."""
    import numpy as np
    from onnx import numpy_helper

    most, times, added = (
        float(np.abs(values).max(initial=0)) for values in (numpy_helper.to_array(weight), factor, bias)
    )
    limit = float(np.finfo(np.float32).max)
    return most * times < limit and added < limit


def _store(
    graph: onnx.GraphProto,
    layer: onnx.NodeProto,
    stored: dict[str, onnx.TensorProto],
    axis: int,
    factor: Array,
    bias: Array,
) -> None:
    import numpy as np
    from onnx import numpy_helper

    tensor = stored[layer.input[1]]
    weight = numpy_helper.to_array(tensor)
    shape = [1] * weight.ndim
    shape[axis] = -1
    tensor.CopyFrom(numpy_helper.from_array((weight * factor.reshape(shape)).astype(np.float32), tensor.name))
    taken = {name for node in graph.node for name in [*node.input, *node.output]} | set(stored)
    name = f"{layer.output[0]}_bias"
    while name in taken:
        name += "_"
    added = graph.initializer.add()
    added.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), name))
    stored[name] = added
    del layer.input[2:]
    layer.input.append(name)


def _drop(graph: onnx.GraphProto, gone: list[onnx.NodeProto]) -> None:
    for node in gone:
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    made = {name for node in graph.node for name in node.output}
    for field, kept in ((graph.initializer, read), (graph.value_info, made)):
        entries = [entry for entry in field if entry.name in kept]
        del field[:]
        field.extend(entries)
