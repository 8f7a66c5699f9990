"""Which Quantize/Dequantize pairs go on the way to OpenVINO, and which must stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.toolchains.openvino_graph import fuse_activations
from boardwright.toolchains.openvino_session import runtime_version

_CHANNELS = 8


class _Maker:
    """Writes Conv → activation → Conv, quantized everywhere, one dequantizer per reader or one for all."""

    def __init__(self, shared: bool = False) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._shared = shared
        self._random = np.random.default_rng(3)

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def quantized(self, name: str, low: float, high: float, readers: int = 1) -> list[str]:
        scale = np.float32((high - low) / 255)
        scales = self.constant(f"{name}.step", scale)
        zeros = self.constant(f"{name}.middle", np.uint8(round(-low / scale)))
        integers = self.node("QuantizeLinear", [name, scales, zeros], f"{name}.q")
        count = 1 if self._shared else readers
        ends = [
            self.node("DequantizeLinear", [integers, scales, zeros], f"{name}.dq{i}") for i in range(count)
        ]
        return ends * readers if self._shared else ends

    def conv(self, x: str, name: str, inside: int) -> str:
        values = self._random.normal(0, 0.2, (_CHANNELS, inside, 3, 3))
        scale = np.abs(values).max(axis=(1, 2, 3)) / 63  # 7 bits: no CPU's sums saturate
        integers = np.rint(values / scale[:, None, None, None]).astype(np.int8)
        inputs = [
            self.constant(f"{name}.int8", integers),
            self.constant(f"{name}.scale", scale.astype(np.float32)),
            self.constant(f"{name}.zero", np.zeros(_CHANNELS, np.int8)),
        ]
        weight = self.node("DequantizeLinear", inputs, f"{name}.weight", axis=0)
        return self.node("Conv", [x, weight], name, pads=[1, 1, 1, 1])

    def model(self, *outputs: str) -> onnx.ModelProto:
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, _CHANNELS, 8, 8]) for n in outputs]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
        graph = helper.make_graph(self.nodes, "g", [image], values, self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        onnx.checker.check_model(made, full_check=True)
        return made


def _silu(shared: bool = False, quantized_gate: bool = True, more: str = "") -> onnx.ModelProto:
    """Conv, SiLU written out, Conv; ``more`` is a second reader or a second output on the way."""
    maker = _Maker(shared)
    (x,) = maker.quantized("image", -1, 1)
    maker.conv(x, "first", 3)
    ends = maker.quantized("first", -3, 3, readers=3 if more == "reader" else 2)
    maker.node("Sigmoid", [ends[0]], "gate")
    gate = maker.quantized("gate", 0, 1)[0] if quantized_gate else "gate"
    maker.node("Mul", [ends[1], gate], "silu")
    (y,) = maker.quantized("silu", -0.3, 3)
    maker.conv(y, "second", _CHANNELS)
    outputs = ["second"]
    if more == "reader":
        outputs.append(maker.node("Abs", [ends[2]], "other"))
    if more == "output":
        outputs.append("first")
    return maker.model(*outputs)


def _single(activation: str) -> onnx.ModelProto:
    maker = _Maker()
    (x,) = maker.quantized("image", -1, 1)
    maker.conv(x, "first", 3)
    (z,) = maker.quantized("first", -3, 3)
    maker.node(activation, [z], "act")
    (y,) = maker.quantized("act", -1, 3)
    maker.conv(y, "second", _CHANNELS)
    return maker.model("second")


@pytest.mark.parametrize("shared", [False, True], ids=["own-dequantizers", "shared-dequantizer"])
@pytest.mark.parametrize("quantized_gate", [False, True], ids=["plain-gate", "quantized-gate"])
def test_nothing_stays_between_a_convolution_and_its_silu(shared: bool, quantized_gate: bool) -> None:
    model = _silu(shared, quantized_gate)
    fused = fuse_activations(model)
    onnx.checker.check_model(model, full_check=True)
    assert fused == (("first", "gate") if quantized_gate else ("first",))
    left = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert left == {"image", "silu"}
    product = next(node for node in model.graph.node if node.op_type == "Mul")
    assert list(product.input) == ["first", "gate"]


@pytest.mark.parametrize("activation", ["HardSwish", "Sigmoid", "Tanh"])
def test_nor_before_an_activation_of_one_operator(activation: str) -> None:
    assert fuse_activations(_single(activation)) == ("first",)


@pytest.mark.parametrize("activation", ["Abs", "Neg"])
def test_other_operators_keep_their_pair(activation: str) -> None:
    model = _single(activation)
    before = model.SerializeToString()
    assert fuse_activations(model) == () and model.SerializeToString() == before


@pytest.mark.parametrize("more", ["reader", "output"])
def test_a_tensor_that_is_needed_elsewhere_keeps_its_pair(more: str) -> None:
    assert fuse_activations(_silu(more=more)) == ()


def test_a_tensor_that_a_branch_reads_keeps_its_pair() -> None:
    model = _silu()
    taken = next(n.output[0] for n in model.graph.node if n.output[0].startswith("first.dq"))
    info = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, _CHANNELS, 8, 8])
    body = helper.make_graph([helper.make_node("Identity", [taken], ["b"])], "body", [], [info])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    branch = helper.make_node("If", ["yes"], ["chosen"], then_branch=body, else_branch=body)
    model.graph.node.append(branch)
    assert fuse_activations(model) == ()


@pytest.mark.skipif(not runtime_version(), reason="OpenVINO is not installed (pip install openvino)")
@pytest.mark.parametrize("make", [_silu, lambda: _single("HardSwish")], ids=["silu", "hard-swish"])
def test_openvino_then_runs_fewer_kernels_and_lies_nearer_to_float(make: Any, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    from boardwright.toolchains.openvino import OpenVinoToolchain
    from boardwright.toolchains.port import BuildRequest

    path = tmp_path / "g.onnx"
    path.write_bytes(make().SerializeToString())
    images = np.random.default_rng(0).uniform(-1, 1, (8, 1, 3, 8, 8)).astype(np.float32)
    exact = ReferenceEvaluator(_without_activation_quantization(make()))
    expected = [exact.run(None, {"image": image})[0] for image in images]
    kernels, errors = [], []
    for choice in ("as-quantized", "fused"):
        out = tmp_path / choice
        out.mkdir()
        toolchain = OpenVinoToolchain()
        built = toolchain.build(BuildRequest(path, "x86-64", "x86_64", out, {"activations": choice}))
        assert built.integer_kernels == 2
        assert bool(built.notes) == (choice == "fused")
        session = toolchain.open(built, threads=1)
        kernels.append(sum(built.kernels.values()))
        outputs = [session.run({"image": image})["second"] for image in images]
        errors.append(float(np.mean([(a - b) ** 2 for a, b in zip(outputs, expected, strict=True)])))
    assert kernels[1] < kernels[0]
    assert errors[1] < errors[0]


def _without_activation_quantization(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let every activation pass unrounded; weights stay as they are."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" or (
            node.op_type == "DequantizeLinear" and node.input[0] not in weights
        ):
            node.op_type = "Identity"
            del node.input[1:]
    return model
