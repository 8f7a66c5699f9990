"""Other toolchains read the record as if they had calibrated themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import load_tensors_data

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange, TensorStatistics
from boardwright.compiler.engine.observe.exporters import (
    EXPORTERS,
    export,
    to_litert,
    to_openvino,
    to_tensorrt,
)
from boardwright.compiler.engine.observe.histogram import FloatHistogram

RECORD = CalibrationRecord(
    "min-max", 4, {"x": TensorRange(-0.3, 12.7), "flat": TensorRange(0, 0), "up": TensorRange(2, 3)}
)


def test_onnx_runtime_loads_its_cache(tmp_path: Path):
    name, data = export(RECORD, "onnxruntime")
    path = tmp_path / name
    path.write_bytes(data)
    loaded = load_tensors_data(path)
    assert set(loaded.keys()) == {"x", "flat", "up"}
    for tensor, found in RECORD.ranges.items():
        assert loaded[tensor].range_value == (np.float32(found.low), np.float32(found.high))


def test_onnx_runtime_quantizes_from_it_without_a_sample(tmp_path: Path):
    """The runtime's own tool finds the cache and asks for no calibration data."""
    from onnxruntime.quantization import QuantType, quantize_static

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])],
        [numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    given = {"x": TensorRange(-0.3, 12.7), "c": TensorRange(-1, 4), "y": TensorRange(0, 5.1)}
    name, data = export(CalibrationRecord("min-max", 4, given), "onnxruntime")
    (tmp_path / name).write_bytes(data)
    onnx.save(model, tmp_path / "float.onnx")
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        None,
        calibration_cache_path=tmp_path / name,
        activation_type=QuantType.QUInt8,
    )
    quantized = onnx.load(tmp_path / "int8.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    scales = {n.input[0]: stored[n.input[1]] for n in quantized.graph.node if n.op_type == "QuantizeLinear"}
    assert scales["x"] == pytest.approx(13 / 255)
    assert 5.1 / 255 in [pytest.approx(float(scale)) for scale in scales.values()]


@pytest.mark.filterwarnings("ignore:.*preserve_all_tensors:UserWarning")
def test_litert_quantizes_from_it_without_a_sample(tmp_path: Path):
    pytest.importorskip("ai_edge_quantizer", reason="needs ai-edge-quantizer, which is not installed here")
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.utils import calibration_utils

    (tmp_path / "float.tflite").write_bytes(fully_connected_tflite())
    given = {"x": TensorRange(-0.3, 12.7), "y": TensorRange(-3, 5.5), "elsewhere": TensorRange(0, 1)}
    name, data = export(CalibrationRecord("min-max", 4, given), "litert")
    (tmp_path / name).write_bytes(data)
    found, _ = calibration_utils.load_calibration_results(str(tmp_path / name))
    tool = quantizer.Quantizer(str(tmp_path / "float.tflite"), recipe.static_wi8_ai8())
    done = tool.quantize(found, enable_progress_report=False)
    interpreter = Interpreter(model_content=bytes(done.quantized_model))
    interpreter.allocate_tensors()
    tensors = {entry["name"]: entry for entry in interpreter.get_tensor_details()}
    assert tensors["x"]["dtype"] == tensors["y"]["dtype"] == np.int8
    assert tensors["x"]["quantization"] == (pytest.approx(13 / 255), round(0.3 * 255 / 13) - 128)
    assert tensors["y"]["quantization"][0] == pytest.approx(8.5 / 255)


def fully_connected_tflite() -> bytes:
    """One layer, x (1, 4) to y (1, 3), written through the schema's own classes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph.name, graph.tensors = b"main", []
    constants = {"w": np.random.default_rng(0).normal(size=(3, 4)), "b": np.zeros(3)}
    for name, shape in {"x": [1, 4], "w": [3, 4], "b": [3], "y": [1, 3]}.items():
        buffer, tensor = schema.BufferT(), schema.TensorT()
        if name in constants:
            buffer.data = np.frombuffer(constants[name].astype(np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.name, tensor.shape, tensor.type = name.encode(), shape, schema.TensorType.FLOAT32
        tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    layer, code = schema.OperatorT(), schema.OperatorCodeT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    ends = []
    for name, index in ((b"x", 0), (b"y", 3)):
        end = schema.TensorMapT()
        end.name, end.tensorIndex = name, index
        ends.append(end)
    signature.inputs, signature.outputs = ends[:1], ends[1:]
    graph.operators, graph.inputs, graph.outputs = [layer], [0], [3]
    model.operatorCodes, model.subgraphs, model.signatureDefs = [code], [graph], [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_openvino_rounds_to_its_levels():
    """The fields are the inputs and the attribute of OpenVINO's FakeQuantize."""
    openvino = pytest.importorskip("openvino", reason="needs openvino, which is not installed here")
    from openvino import opset13 as operators

    values = np.linspace(-3, 15, 1001, dtype=np.float32).reshape(1, -1)
    core = openvino.Core()
    for name, found in json.loads(to_openvino(RECORD)).items():
        given = operators.parameter([1, 1001], np.float32, name=name)
        bounds = {end: np.float32(found[end]) for end in found if end != "levels"}
        rounded = operators.fake_quantize(given, **bounds, levels=found["levels"])
        compiled = core.compile_model(openvino.Model([rounded], [given], name), "CPU")
        made = compiled(values)[0]
        step = (found["input_high"] - found["input_low"]) / 255
        expected = np.clip(np.rint(values / step) * step, found["input_low"], found["input_high"])
        assert len(np.unique(made)) <= 256
        np.testing.assert_allclose(made, expected, atol=1.001 * step)
        assert np.abs(made[np.abs(values) < step / 4]).max(initial=0) <= 1e-6


def test_litert_gets_minima_and_maxima_under_its_own_names():
    assert json.loads(to_litert(RECORD))["x"] == {"min": [-0.3], "max": [12.7]}
    renamed = json.loads(to_litert(RECORD, {"serving_default_x:0": "x", "other": "gone"}))
    assert renamed == {"serving_default_x:0": {"min": [-0.3], "max": [12.7]}}


def test_openvino_ranges_hold_zero_on_a_level():
    for found in json.loads(to_openvino(RECORD)).values():
        step = (found["input_high"] - found["input_low"]) / (found["levels"] - 1)
        assert found["input_low"] / step == pytest.approx(round(found["input_low"] / step), abs=1e-6)
        assert found["input_low"] <= 0 <= found["input_high"]
        assert found["output_low"] == found["input_low"]


def test_tensorrt_scales_are_big_endian_floats_behind_a_header():
    header, *lines = to_tensorrt(RECORD).decode().splitlines()
    assert header == "TRT-100300-EntropyCalibration2"
    scales = {
        name: struct.unpack(">f", bytes.fromhex(scale))[0]
        for name, scale in (line.split(": ") for line in lines)
    }
    assert scales["x"] == pytest.approx(12.7 / 127)
    assert scales["flat"] > 0


PUBLISHED_TABLE = b"""TRT-7000-EntropyCalibration2
data: 3c008912
conv1: 3c88edfc
pool1: 3c88edfc
conv2: 3ddc858b
pool2: 3ddc858b
ip1: 3db6bd6e
ip2: 3e691968
prob: 3c010a14
"""
"""What NVIDIA's sampleINT8 prints in its README (TensorRT OSS 7.0)."""


def test_the_published_table_is_written_byte_by_byte():
    lines = PUBLISHED_TABLE.decode().splitlines()[1:]
    scales = {
        name: struct.unpack(">f", bytes.fromhex(scale))[0]
        for name, scale in (line.split(": ") for line in lines)
    }
    assert scales["prob"] == pytest.approx(1 / 127, rel=1e-3)  # Softmax: the magnitude over 127
    record = CalibrationRecord(
        "min-max", 1, {name: TensorRange(0, 127 * scale) for name, scale in scales.items()}
    )
    assert to_tensorrt(record, version="7000") == PUBLISHED_TABLE


def test_tensorrt_gets_the_methods_symmetric_range():
    values = np.concatenate([np.random.default_rng(0).laplace(size=9000), [40.0]])
    seen = {"x": TensorStatistics(values.min(), values.max(), FloatHistogram.from_values(values))}
    record = CalibrationRecord("min-max", 1, {"x": TensorRange(0, 0)}, {}, seen)
    scales = [to_tensorrt(record.with_method(method)).decode() for method in ("min-max", "mse")]
    assert scales[0] != scales[1]


def test_every_toolchain_gets_a_file_and_others_are_refused():
    assert len({export(RECORD, name)[0] for name in EXPORTERS}) == 4
    with pytest.raises(EngineError, match="it can to litert, onnxruntime, openvino, tensorrt"):
        export(RECORD, "ncnn")
