"""ONNX Runtime's quantizer with lookups by name.

Its ``ONNXModel`` (1.31) walks all nodes for each tensor that gets a Quantize, and all initializers for each
scale: 2500 nodes took two CPU-minutes per graph that was quantized, and the cost grew with the square of the
nodes. What ``indexed_model`` makes of it gives the same graph, byte by byte. Its quantizers also look tensors
up by a function, ``find_by_name``, over a list; that function learns to ask a list that knows its names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import replace_nodes

if TYPE_CHECKING:
    import onnx


def indexed_model(model: onnx.ModelProto) -> Any:
    """Return an ``onnxruntime.quantization.onnx_model.ONNXModel`` over ``model`` that finds things by name.

    For the time of quantization: nodes and initializers are to be added and renamed through it alone. The
    nodes of ``model`` have names that differ.
    """
    return _indexed_class()(model)


class _Named(list["onnx.TensorProto"]):
    """Tensors in order, the first of a name found at once."""

    def __init__(self, tensors: Iterable[onnx.TensorProto]) -> None:
        super().__init__(tensors)
        self.by_name: dict[str, onnx.TensorProto] = {}
        for tensor in self:
            self.by_name.setdefault(tensor.name, tensor)

    def append(self, tensor: onnx.TensorProto) -> None:
        super().append(tensor)
        self.by_name.setdefault(tensor.name, tensor)


def _find_by_name(name: str, items: Any) -> Any:
    """As ``onnxruntime.quantization.quant_utils.find_by_name``, whose walk it saves where it can."""
    if isinstance(items, _Named):
        return items.by_name.get(name)
    return next((item for item in items if item.name == name), None)


@cache
def _indexed_class() -> Any:
    from onnxruntime.quantization import base_quantizer, onnx_quantizer, qdq_quantizer
    from onnxruntime.quantization.onnx_model import ONNXModel

    for module in (base_quantizer, onnx_quantizer, qdq_quantizer):
        module.find_by_name = _find_by_name

    class IndexedModel(ONNXModel):  # type: ignore[misc]  # the runtime has no types
        """Overrides what looks for readers, makers and initializers, and what changes them."""

        def __init__(self, model: onnx.ModelProto) -> None:
            super().__init__(model)
            self._index_all()

        def _index_all(self) -> None:
            self._stored = _Named(self.model.graph.initializer)
            self._readers: dict[str, list[onnx.NodeProto]] = {}
            self._makers: dict[str, onnx.NodeProto] = {}
            for node in self.model.graph.node:
                self._index(node)

        def _index(self, node: onnx.NodeProto) -> None:
            for name in node.input:
                if name:
                    self._readers.setdefault(name, []).append(node)
            self._makers |= dict.fromkeys(node.output, node)

        def initializer(self) -> list[onnx.TensorProto]:
            return self._stored

        def get_initializer(self, name: str) -> onnx.TensorProto | None:
            return self._stored.by_name.get(name)

        def get_initializer_name_set(self) -> set[str]:
            return set(self._stored.by_name)

        def add_initializer(self, tensor: onnx.TensorProto) -> None:
            if tensor.name not in self._stored.by_name:
                self.initializer_extend([tensor])

        def initializer_extend(self, inits: list[onnx.TensorProto]) -> None:
            stored = self.model.graph.initializer
            for tensor in inits:
                stored.append(tensor)
                self._stored.append(stored[-1])

        def add_node(self, node: onnx.NodeProto) -> None:
            self.model.graph.node.append(self._check_node(node))
            self._index(self.model.graph.node[-1])

        def remove_nodes(self, nodes_to_remove: list[onnx.NodeProto]) -> None:
            # By name at first, which is fast; a Quantize may have been given the name of a node of the graph.
            removed = {node.name: node for node in nodes_to_remove}
            if removed:
                kept = [node for node in self.model.graph.node if removed.get(node.name) != node]
                replace_nodes(self.model.graph, kept)
                self._index_all()

        def clean_initializers(self) -> Any:
            cleaned = super().clean_initializers()
            self._index_all()  # the Dequantize of a bias makes a tensor of the name that the bias had
            return cleaned

        def input_name_to_nodes(self) -> dict[str, list[onnx.NodeProto]]:
            return self._readers

        def replace_node_input(self, node: onnx.NodeProto, old_input_name: str, new_input_name: str) -> None:
            self._rename(
                old_input_name, new_input_name, lambda other: other.name == node.name and other == node
            )

        def replace_input_of_all_nodes(self, old_input_name: str, new_input_name: str) -> None:
            self._rename(old_input_name, new_input_name, lambda _: True)

        def replace_input_of_nodes(
            self, old_input_name: str, new_input_name: str, node_names_set: set[str]
        ) -> None:
            self._rename(old_input_name, new_input_name, lambda node: node.name in node_names_set)

        def _rename(self, old: str, new: str, chosen: Any) -> None:
            nodes = self._readers.pop(old, [])
            for node in nodes:
                name = new if chosen(node) else old
                ONNXModel.replace_node_input(node, old, name)
                self._readers.setdefault(name, []).append(node)

        def replace_output_of_all_nodes(self, old_output_name: str, new_output_name: str) -> None:
            node = self._makers.pop(old_output_name, None)
            if node is not None:
                ONNXModel.replace_node_output(node, old_output_name, new_output_name)
                self._makers[new_output_name] = node

    return IndexedModel
