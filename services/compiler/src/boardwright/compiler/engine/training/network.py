"""An ONNX graph as a torch network with trainable layers, and back.

The graph is interpreted node by node: layers are torch modules, everything else is a function of
``operators``. An interpreter keeps the graph's own tensor and node names, which quantization, pruning and
distillation speak of, and takes any opset from 11 on. (onnx2torch 1.5.15 was tried: it renames tensors, binds
the batch to 1, and has no Split, Resize, Pad or reductions of opset 18 and later.)
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.prepare import name_nodes, prepare_graph, raise_opset
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.training.batching import BatchKeeper
from boardwright.compiler.engine.training.layers import Layer, make_layer
from boardwright.compiler.engine.training.operators import Operator, find_operator, read_attributes

Inputs: TypeAlias = "Tensor | Mapping[str, Tensor]"

_FOLDS_BATCH_NORMS = ("ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "MatmulBNFusion")


@dataclass(frozen=True, slots=True)
class _Call:
    """One node: what runs it, and the tensors that nobody reads after it."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    operator: Operator | None
    layer: Layer | None
    spent: tuple[str, ...]


class GraphNetwork(torch.nn.Module):  # type: ignore[misc]
    """A float32 ONNX graph whose layers can be trained; see the package's contract.

    ``layers`` holds the modules by a key made of the node's name, ``extra`` the trained constants that belong
    to no module (biases added behind a MatMul, PRelu slopes). ``constants`` are not trained.
    """

    def __init__(self, graph: onnx.ModelProto) -> None:
        super().__init__()
        self.graph = graph
        self.layers = torch.nn.ModuleDict()
        self.extra = torch.nn.ParameterDict()
        self.constants: dict[str, Tensor] = _constants(graph.graph)
        self.taps: dict[str, Callable[[Tensor], Tensor]] = {}
        self.input_names = tuple(
            value.name for value in graph.graph.input if value.name not in self.constants
        )
        self.output_names = tuple(value.name for value in graph.graph.output)
        self._extra_of: dict[str, str] = {}
        self.layers_by_node: dict[str, Layer] = {}
        self._calls = self._make_calls(Topology(graph.graph))
        self._keeper = BatchKeeper(_native_batch(graph.graph, self.input_names))

    def layer(self, node: str) -> torch.nn.Module:
        """Return the module of the node ``node``; KeyError where the node is no layer."""
        return self.layers_by_node[node].module

    def constant(self, name: str) -> Tensor:
        """Return a constant that is no layer's weight, trained or not; KeyError where there is none."""
        key = self._extra_of.get(name)
        found: Tensor = self.constants[name] if key is None else self.extra[key]
        return found

    def forward(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return the outputs in the graph's order. A bare tensor is the graph's only, or first, input."""
        values = self._run(inputs, frozenset())
        return tuple(values[name] for name in self.output_names)

    def tensors(self, inputs: Inputs, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the activations ``names`` and the outputs, by name.

        Raises:
            EngineError: TENSOR_UNKNOWN, when the graph has no such tensor.
        """
        wanted = tuple(names)
        values = self._run(inputs, frozenset(wanted))
        missing = [name for name in wanted if name not in values]
        if missing:
            raise EngineError(
                "TENSOR_UNKNOWN", f"The graph has no tensor {missing[0]!r}. Name one that a node makes."
            )
        return {name: values[name] for name in (*wanted, *self.output_names)}

    def takes_size(self, height: int, width: int, layout: str = "NCHW") -> bool:
        """Tell whether the graph runs on images of another size, and gives outputs of the same shapes."""
        native = self._example()
        axes = (2, 3) if layout == "NCHW" else (1, 2)
        shape = list(native.shape)
        if len(shape) != 4:
            return False
        shape[axes[0]], shape[axes[1]] = height, width
        with torch.no_grad(), _evaluating(self):
            try:
                expected = [tuple(output.shape) for output in self(native)]
                return [tuple(output.shape) for output in self(native.new_zeros(shape))] == expected
            except (EngineError, RuntimeError):
                return False

    def _example(self) -> Tensor:
        """Return zeros of the first input's shape."""
        value = next(v for v in self.graph.graph.input if v.name == self.input_names[0])
        return torch.zeros([axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim])

    def _run(self, inputs: Inputs, keep: frozenset[str]) -> dict[str, Tensor]:
        given = {self.input_names[0]: inputs} if isinstance(inputs, Tensor) else dict(inputs)
        first = given[self.input_names[0]]
        if self._keeper.must_learn(first, self):
            with torch.no_grad(), _evaluating(self):
                sliced = {name: self._keeper.native(value) for name, value in given.items()}
                with self._keeper.learning():
                    self._interpret(sliced, frozenset())
        with self._keeper.keeping(first, self):
            return self._interpret(given, keep)

    def _interpret(self, given: Mapping[str, Tensor], keep: frozenset[str]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {name: self._tap(name, value) for name, value in given.items()}
        for index, call in enumerate(self._calls):
            arguments = [self._value(name, values) for name in call.inputs]
            if call.layer is None:
                arguments = self._keeper.adapt(index, call.kind, arguments, call.attributes)
            try:
                made: Any
                if call.layer is not None:
                    made = call.layer(arguments)
                else:
                    assert call.operator is not None
                    made = call.operator(call.attributes, arguments)
            except (RuntimeError, TypeError, IndexError, ValueError) as error:
                raise _failed(call, arguments, error) from error
            results = made if isinstance(made, (tuple, list)) else (made,)
            for name, value in zip(call.outputs, results, strict=False):
                if name:
                    values[name] = self._tap(name, value)
            for name in call.spent:
                if name not in keep:
                    values.pop(name, None)
        return values

    def _tap(self, name: str, value: Tensor) -> Tensor:
        tap = self.taps.get(name)
        return value if tap is None else tap(value)

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        return self._tap(name, self.constant(name))

    def _make_calls(self, topology: Topology) -> list[_Call]:
        last_use: dict[str, int] = {}
        for index, node in enumerate(topology.nodes):
            last_use.update(dict.fromkeys(node.input, index))
        calls = []
        shared: dict[str, torch.nn.Parameter] = {}
        for index, node in enumerate(topology.nodes):
            if node.op_type == "Constant":
                continue
            layer = make_layer(node, self.constants, _ranks(self.graph.graph))
            inputs = tuple(node.input)
            if layer is not None:
                if index not in topology.layers and node.op_type in ("Conv", "Gemm", "MatMul"):
                    layer.module.requires_grad_(False)
                layer.share(shared)
                self.layers[_key(node.name, self.layers)] = layer.module
                self.layers_by_node[node.name] = layer
                inputs = layer.inputs
            else:
                self._train_extra(node, topology)
            operator = None if layer is not None else find_operator(node)
            spent = tuple(
                name for name in set(inputs) if last_use.get(name) == index and name not in topology.outputs
            )
            calls.append(
                _Call(
                    node.name, node.op_type, inputs, tuple(node.output),
                    {**read_attributes(node), "outputs": len(node.output)}, operator, layer, spent,
                )
            )  # fmt: skip
        read = {name for call in calls if call.layer is None for name in call.inputs}
        for layer in self.layers_by_node.values():
            for name, own in layer.owned.items():
                if (
                    name in read
                ):  # an embedding tied to a projection: one of them must not drift from the other
                    getattr(layer.module, own).requires_grad_(False)
                else:
                    self.constants.pop(name, None)
        return calls

    def _train_extra(self, node: onnx.NodeProto, topology: Topology) -> None:
        """Make a constant trainable that is a layer's in all but its place in the graph."""
        for name in node.input:
            value = self.constants.get(name)
            if value is None or not value.is_floating_point() or name in self._extra_of:
                continue
            if node.op_type == "PRelu" or (node.op_type == "Add" and self._behind_matmul(node, topology)):
                self._extra_of[name] = _key(name, self.extra)
                self.extra[self._extra_of[name]] = torch.nn.Parameter(value.clone())

    def _behind_matmul(self, node: onnx.NodeProto, topology: Topology) -> bool:
        for name in node.input:
            producer = topology.producer_of(name)
            if producer is None or topology.nodes[producer].op_type != "MatMul":
                continue
            layer = self.layers_by_node.get(topology.nodes[producer].name)
            other = next((self.constants[o] for o in node.input if o in self.constants), None)
            return layer is not None and other is not None and other.numel() == layer.module.out_features
        return False


def to_torch(model: onnx.ModelProto, *, fold_batch_norms: bool = True) -> GraphNetwork:
    """Return ``model`` as a network in evaluation mode.

    Raises:
        EngineError: TRAINING_OPERATOR_UNSUPPORTED, naming the operator; TRAINING_TYPE_UNSUPPORTED for weights
            that are not float32; RUNTIME_REFUSED.
        QuantizationFailed: OPSET_TOO_OLD.
    """
    graph = prepare_for_training(model, fold_batch_norms=fold_batch_norms)
    network = GraphNetwork(graph)
    network.eval()
    return network


def prepare_for_training(model: onnx.ModelProto, *, fold_batch_norms: bool = True) -> onnx.ModelProto:
    """Return the graph at opset 13 or newer with constants folded, nodes named and shapes inferred."""
    if fold_batch_norms:
        return prepare_graph(model)
    raised = raise_opset(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.onnx"
        open_session(raised, level="basic", optimized_path=path, disabled=_FOLDS_BATCH_NORMS)
        prepared = onnx.load(path)
    name_nodes(prepared.graph)
    return onnx.shape_inference.infer_shapes(prepared)


def to_onnx(network: GraphNetwork, like: onnx.ModelProto | None = None) -> onnx.ModelProto:
    """Return ``like`` (default: ``network.graph``) with the network's weights and constants in it, by name.

    Weights may have changed their shape (pruning): shapes that the graph declares for activations are
    inferred again.
    """
    written = onnx.ModelProto()
    written.CopyFrom(like if like is not None else network.graph)
    values = weights(network)
    changed_shape = False
    for tensor in written.graph.initializer:
        new = values.get(tensor.name)
        if new is not None:
            changed_shape |= list(new.shape) != list(tensor.dims)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    for node in written.graph.node:
        if node.op_type == "Constant" and node.output[0] in values and node.attribute[0].name == "value":
            new = values[node.output[0]]
            changed_shape |= list(new.shape) != list(node.attribute[0].t.dims)
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(new, ""))
    if changed_shape:
        del written.graph.value_info[:]
        written = onnx.shape_inference.infer_shapes(written)
    return written


def weights(network: GraphNetwork) -> dict[str, np.ndarray[Any, Any]]:
    """Return weights and constants by the names and in the layouts that they have in the graph."""
    found = {name: value.detach().cpu().numpy() for name, value in network.constants.items()}
    for layer in network.layers_by_node.values():
        found |= layer.stored()
    for name, key in network._extra_of.items():
        found[name] = network.extra[key].detach().cpu().numpy()
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in found.items()}


class _evaluating:
    """Evaluation mode for a while, and then each module's own mode again."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._modes = [(module, module.training) for module in network.modules()]

    def __enter__(self) -> None:
        for module, _ in self._modes:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module, mode in self._modes:
            module.training = mode


def _constants(graph: onnx.GraphProto) -> dict[str, Tensor]:
    found = {}
    for tensor in graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE):
            raise EngineError(
                "TRAINING_TYPE_UNSUPPORTED",
                f"The weight {tensor.name!r} is no float32. Export the checkpoint in float32 to train it.",
            )
        found[tensor.name] = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    for node in graph.node:
        if node.op_type == "Constant":
            value = read_attributes(node).get("value")
            if value is None:
                value = np.asarray(next(iter(read_attributes(node).values())))
                value = value.astype(np.float32 if value.dtype.kind == "f" else np.int64)
            found[node.output[0]] = torch.from_numpy(np.array(value))
    return found


def _native_batch(graph: onnx.GraphProto, inputs: tuple[str, ...]) -> int:
    for value in graph.input:
        if value.name in inputs and value.type.tensor_type.shape.dim:
            return value.type.tensor_type.shape.dim[0].dim_value or 1
    return 1


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    values = [*graph.value_info, *graph.input, *graph.output]
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}


def _key(name: str, taken: Container[str]) -> str:
    """Return a name that torch accepts for a submodule (no dots, not empty), and that is not taken."""
    key = re.sub(r"[^A-Za-z0-9_/:-]", "_", name) + "_"
    while key in taken:
        key += "_"
    return key


def _failed(call: _Call, arguments: list[Tensor | None], error: Exception) -> EngineError:
    shapes = [tuple(value.shape) if value is not None else None for value in arguments]
    return EngineError(
        "TRAINING_OPERATOR_FAILED",
        f"{call.kind} {call.name!r} does not take inputs of the shapes {shapes} in training: "
        f"{str(error).splitlines()[0][:300]}. Train with the graph's own batch size and input size.",
    )
