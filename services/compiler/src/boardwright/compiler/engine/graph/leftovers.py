"""What converters leave in a graph that says nothing of the network and that later tools stumble over.

- ``drop_leftovers``: declared shapes of weights, and empty inputs of Resize.
- ``unwrap_maps``: scores that ZipMap wrapped into dictionaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_ROI, _SCALES, _SIZES = 1, 2, 3
"""Places among a Resize's inputs."""


def drop_leftovers(graph: onnx.GraphProto) -> None:
    """Remove, in place, what opset 13 and newer need not have.

    PyTorch's exporter by ``torch.export`` declares the shapes of weights; ONNX Runtime's dynamic quantizer
    (1.31) turns a weight around and keeps the shape. A Resize of opset 11 had to have scales, empty where it
    has sizes; float16's converter casts them, and both count as given then.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kept = [value for value in graph.value_info if value.name not in stored]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)
    for node in graph.node:
        if node.op_type != "Resize" or len(node.input) <= _SIZES or not node.input[_SIZES]:
            continue
        for place in (_ROI, _SCALES):
            tensor = stored.get(node.input[place])
            if tensor is not None and 0 in tensor.dims:
                node.input[place] = ""


def unwrap_maps(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Put out the scores that each ZipMap reads in place of its list of dictionaries, in place.

    Converters of classical classifiers end graphs in dictionaries from class to score, which no board takes
    and no pass reads. Returns the names of the classes by the output's name; empty where they are numbers.
    """
    import onnx

    graph = model.graph
    outputs = {value.name: value for value in graph.output}
    found: dict[str, tuple[str, ...]] = {}
    for node in [node for node in graph.node if node.op_type == "ZipMap" and node.output[0] in outputs]:
        given = {attribute.name: attribute for attribute in node.attribute}
        names = tuple(text.decode(errors="replace") for text in given["classlabels_strings"].strings) if (
            "classlabels_strings" in given
        ) else ()  # fmt: skip
        count = len(names) or len(given["classlabels_int64s"].ints)
        value = outputs[node.output[0]]
        value.type.CopyFrom(
            onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [None, count])  # (N, C), says ZipMap
        )
        plain = onnx.helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name)
        node.CopyFrom(plain)
        found[value.name] = names
    return found
