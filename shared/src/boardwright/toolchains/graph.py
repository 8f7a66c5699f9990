"""What is in an ONNX file. Files are hostile until read here: size and outside references come first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.precision import Precision, read_precision

if TYPE_CHECKING:
    import onnx

MAX_GRAPH_BYTES = (1 << 31) - 1
"""Protobuf holds no more in one message; a larger model needs external data, which a Variant has not."""

_SHOWN_NODES = 5


@dataclass(frozen=True, slots=True)
class OperatorUse:
    """How often a graph uses an operator. ``domain`` is empty for ONNX's own.

    ``version`` is the version of the operator's opset that the graph imports; ``nodes`` names the first few.
    """

    domain: str
    operator: str
    version: int
    count: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What a graph is made of."""

    ir_version: int
    opsets: dict[str, int]
    operators: tuple[OperatorUse, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int
    precision: Precision


def read_graph(path: Path) -> GraphFacts:
    """Read the facts of the ONNX file at ``path``, subgraphs included.

    Raises:
        ToolchainError: GRAPH_TOO_LARGE, GRAPH_UNREADABLE, GRAPH_EXTERNAL_DATA.
    """
    model = load_graph(path)
    opsets = {entry.domain.removeprefix("ai.onnx") or "": int(entry.version) for entry in model.opset_import}
    counts: Counter[tuple[str, str]] = Counter()
    names: dict[tuple[str, str], list[str]] = {}
    for graph in _graphs(model.graph):
        for node in graph.node:
            key = ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
            counts[key] += 1
            shown = names.setdefault(key, [])
            if len(shown) < _SHOWN_NODES:
                shown.append(node.name or (node.output[0] if node.output else ""))
    weights = {tensor.name for tensor in model.graph.initializer}
    return GraphFacts(
        ir_version=int(model.ir_version),
        opsets=opsets,
        operators=tuple(
            OperatorUse(domain, operator, opsets.get(domain, 1), count, tuple(names[domain, operator]))
            for (domain, operator), count in sorted(counts.items())
        ),
        inputs=tuple(value.name for value in model.graph.input if value.name not in weights),
        outputs=tuple(value.name for value in model.graph.output),
        parameters=sum(prod(tensor.dims) for tensor in model.graph.initializer),
        precision=read_precision(model.graph),
    )


def load_graph(path: Path) -> onnx.ModelProto:
    """Parse the ONNX file at ``path`` without touching any other file.

    Raises:
        ToolchainError: GRAPH_TOO_LARGE, GRAPH_UNREADABLE, GRAPH_EXTERNAL_DATA.
    """
    import onnx
    from google.protobuf.message import DecodeError

    size = path.stat().st_size
    if size > MAX_GRAPH_BYTES:
        raise ToolchainError(
            "GRAPH_TOO_LARGE",
            f"The graph is {size} bytes; an ONNX file holds at most {MAX_GRAPH_BYTES}. Split or quantize it.",
        )
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ToolchainError(
            "GRAPH_UNREADABLE", f"The file is not a readable ONNX graph ({error}). Push the checkpoint again."
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ToolchainError(
            "GRAPH_UNREADABLE", "The file holds no ONNX graph: it has no nodes or names no opset."
        )
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise ToolchainError(
                    "GRAPH_EXTERNAL_DATA",
                    f"Weight {tensor.name!r} lies outside the file. Save the graph as one file "
                    "(onnx.save_model(…, save_as_external_data=False)) and push again.",
                )
    return model


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.extend(_graphs(attribute.g))
            for inner in attribute.graphs:
                found.extend(_graphs(inner))
    return found
