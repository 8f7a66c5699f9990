"""Other toolchains read the record as if they had calibrated themselves."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import load_tensors_data

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange, TensorStatistics
from boardwright.compiler.engine.observe.exporters import (
    EXPORTERS,
    export,
    onnxruntime_ranges,
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
    for tensor, found in onnxruntime_ranges(RECORD).items():
        assert loaded[tensor].range_value == found.range_value
        assert found.lowest.dtype == np.float32


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
