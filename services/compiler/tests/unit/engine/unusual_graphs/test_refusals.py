"""What cannot be done is refused with a clear error, never half done."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boardwright.compiler.engine.dynamic import quantize_dynamic
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.float16 import convert_float16
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.pruning import sparsify
from boardwright.compiler.engine.quantize import quantize
from boardwright.compiler.engine.scheme import PROFILES
from boardwright.compiler.engine.weight_only import WeightOnlyOptions, quantize_weights

SIZE = 16


def test_an_operator_that_no_opset_has_is_named(network, imported):
    model = network(middle=lambda read: [helper.make_node("Frobnicate", [read], ["x"])])
    with pytest.raises(EngineError, match="the operator Frobnicate, which opset 17") as caught:
        imported(model)
    assert caught.value.reason == "CHECKPOINT_UNKNOWN_OPERATOR"


def test_nan_weights_are_noted_at_import_and_stop_the_calibration(network, imported, feeds):
    kernel = np.random.default_rng(0).normal(size=(8, 3, 3, 3))
    kernel[0, 0, 0, 0] = np.nan
    found = imported(network(kernel=kernel))
    assert "kernel hold NaN" in found.notes[0]
    with pytest.raises(EngineError) as caught:
        quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert caught.value.reason == "CALIBRATION_NOT_FINITE"


@pytest.mark.parametrize(
    "compress",
    [
        pytest.param(
            lambda model: quantize_dynamic(model, PROFILES["x86-vnni"], convolutions=True), id="dynamic"
        ),
        pytest.param(lambda model: quantize_weights(model, WeightOnlyOptions()), id="weight-only"),
        pytest.param(convert_float16, id="float16"),
        pytest.param(lambda model: sparsify(model, 0.5), id="sparse"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_passes_that_run_no_sample_refuse_weights_that_are_no_numbers(network, compress, value):
    kernel = np.random.default_rng(0).normal(size=(8, 3, 3, 3))
    kernel[0, 0, 0, 0] = value
    with pytest.raises(EngineError, match="The weights 'kernel' hold NaN or infinity") as caught:
        compress(network(kernel=kernel))
    assert caught.value.reason == "WEIGHTS_NOT_FINITE"


def test_an_image_of_another_size_is_no_sample(network, imported):
    found = imported(network())
    wrong = [{"input": np.zeros((1, 3, SIZE + 1, SIZE), np.float32)}]
    with pytest.raises(EngineError) as caught:
        quantize(found.model, wrong, PROFILES["x86-vnni"])
    assert caught.value.reason == "CALIBRATION_INPUT_UNFIT"
    assert "has the shape 1x3x17x16" in caught.value.message


def test_a_graph_none_of_whose_layers_is_rounded_is_not_called_quantized(network, imported, feeds):
    found = imported(network())
    layers = [node.name for node in found.model.graph.node if node.op_type in ("Conv", "Gemm")]
    with pytest.raises(EngineError, match="No layer of the graph would be quantized") as caught:
        quantize(found.model, feeds(found), PROFILES["x86-vnni"], exclude=layers)
    assert caught.value.reason == "NOTHING_TO_QUANTIZE"


def test_a_graph_that_loads_and_fails_when_it_runs_is_told(network, imported, feeds):
    """Its Reshape asks for what only a run shows; an input without which it fails says nothing of INT8."""

    def middle(read: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("ReduceMax", [read], ["largest"], keepdims=0),
            helper.make_node("Greater", ["largest", "least"], ["wide"]),
            helper.make_node("Where", ["wide", "fitting", "odd"], ["wanted"]),
            helper.make_node("Reshape", [read, "wanted"], ["x"]),
        ]

    model = network(middle=middle)
    fitting, odd = [1, 8, SIZE, SIZE], [1, 8, SIZE, 7]
    constants = {"least": np.array(1e-6, np.float32), "fitting": np.array(fitting), "odd": np.array(odd)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    found = imported(model)
    with pytest.raises(EngineError, match=r"loads and fails when it runs.*Reshape") as caught:
        open_session(found.model).run(None, {"input": np.zeros((1, 3, SIZE, SIZE), np.float32)})
    assert caught.value.reason == "MODEL_FAILED"
    assert quantize(found.model, feeds(found), PROFILES["x86-vnni"]).kernels["integer_layers"] == 2


def test_a_graph_that_the_runtime_refuses_is_told_once_with_what_to_do(network, capfd):
    model = network(middle=lambda read: [helper.make_node("Relu", [read], ["x"], swirl=1)])
    with pytest.raises(EngineError, match=r"does not accept .*swirl.* in exclude\.$") as caught:
        open_session(model)
    assert caught.value.reason == "RUNTIME_REFUSED"
    assert capfd.readouterr().err == ""


def test_a_quantized_graph_that_would_only_load_is_refused(network, imported, feeds, monkeypatch):
    from boardwright.compiler.engine import quantize as module

    model = network()
    found = imported(model)
    monkeypatch.setattr(module, "insert_quantization", _with_a_wrong_reshape(module.insert_quantization))
    with pytest.raises(EngineError, match="does not run") as caught:
        quantize(found.model, feeds(found), PROFILES["x86-vnni"])
    assert caught.value.reason == "QUANTIZED_MODEL_REFUSED"


def test_a_graph_of_any_pass_that_would_only_load_is_refused(network, monkeypatch):
    from onnxruntime.transformers import float16 as converter

    from boardwright.compiler.engine import dynamic
    from boardwright.compiler.engine.weight_only import quantizing

    model = network(middle=_wide)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((SIZE, 64), np.float32), "wide"))
    monkeypatch.setattr(dynamic, "drop_metadata", _reshape_wrongly)
    monkeypatch.setattr(quantizing, "drop_metadata", _reshape_wrongly)
    convert = converter.convert_float_to_float16
    monkeypatch.setattr(converter, "convert_float_to_float16", _with_a_wrong_reshape(convert))
    for compress in (
        lambda: quantize_dynamic(model, PROFILES["x86-vnni"]),
        lambda: quantize_weights(model, WeightOnlyOptions(block_size=16)),
        lambda: convert_float16(model),
    ):
        with pytest.raises(EngineError, match="does not load or run"):
            compress()


def _wide(read: str) -> list[onnx.NodeProto]:
    return [helper.make_node("MatMul", [read, "wide"], ["x"], name="matmul")]


def _with_a_wrong_reshape(insert: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Let the last layer's Reshape ask for more values than there are."""

    def broken(*given: object, **options: object) -> onnx.ModelProto:
        made = insert(*given, **options)
        _reshape_wrongly(made)
        return made

    return broken


def _reshape_wrongly(made: onnx.ModelProto) -> None:
    last = made.graph.node[-1]
    name = last.output[0]
    last.output[0] = "before"
    constants = {"none": np.zeros(1, np.float32), "seven": np.array([1, 7], np.float32)}
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    made.graph.node.extend(
        [
            helper.make_node("Mul", ["before", "none"], ["zeros"]),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], axes=[0, 1], keepdims=0),
            helper.make_node("Add", ["zero", "seven"], ["length"]),
            helper.make_node("Cast", ["length"], ["whole"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["before", "whole"], [name]),
        ]
    )
    for number, axis in enumerate(made.graph.output[0].type.tensor_type.shape.dim):
        axis.dim_param = f"free{number}"
