"""The calibration record in the words of other toolchains: what they would have found had they calibrated.

Each exporter gives text or bytes of a file that the toolchain reads. Ranges are the record's, by its own
method; toolchains that quantize symmetrically get the method's symmetric ranges where the record can tell.

- ``onnxruntime``: the JSON that ``onnxruntime.quantization.calibrate.load_tensors_data`` reads
  (``quantize_static(..., calibration_cache_path=...)``).
- ``litert``: ai-edge-quantizer's calibration result, ``{tensor: {"min": [...], "max": [...]}}``, which its
  ``calibration_utils.load_calibration_results`` reads and ``Quantizer.quantize`` takes.
- ``openvino``: the four bounds and levels of each tensor's FakeQuantize, by the operator's own names.
- ``tensorrt``: an INT8 calibration cache: a header and ``tensor: scale`` with the float32 scale in big-endian
  hexadecimal, as NVIDIA's samples document it (TensorRT OSS, sampleINT8). TensorRT 11 has no calibrators any
  more; 10 still reads it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.observe.record import CalibrationRecord, TensorRange
from boardwright.compiler.engine.scheme import QuantizationScheme

Names = Mapping[str, str]

TENSORRT_VERSION = "100300"
"""TensorRT 10.3.0, JetPack 6's, as its caches write it. The builder wants its own version there."""

_LEVELS = 256
_LEAST_RANGE = 1e-8


def to_onnxruntime(record: CalibrationRecord) -> bytes:
    """Return ONNX Runtime's calibration cache. Its method is MinMax: ranges are taken as they are."""

    def scalar(value: float) -> dict[str, Any]:
        return {"CLS": "numpy.array", "data": value, "dtype": "float32"}

    data = {
        name: {"CLS": "TensorData", "lowest": scalar(found.low), "highest": scalar(found.high)}
        for name, found in record.ranges.items()
    }
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    return _json({"CLS": "TensorsData", "calibration_method": method, "data": data, "smooth_quant": False})


def to_litert(record: CalibrationRecord, names: Names | None = None) -> bytes:
    """Return ai-edge-quantizer's calibration result.

    ``names`` maps tensors of the TFLite graph to tensors of the record, where a converter renamed them; the
    others are left out then.
    """
    ranges = _renamed(record.ranges, names)
    return _json({name: {"min": [found.low], "max": [found.high]} for name, found in ranges.items()})


def to_openvino(record: CalibrationRecord, names: Names | None = None) -> bytes:
    """Return each tensor's inputs of a FakeQuantize: ``input_low`` = ``output_low`` and so on, ``levels``.

    Zero falls on a level: the range is widened to it and moved by less than a step.
    """
    found = {}
    for name, taken in _renamed(record.ranges, names).items():
        low, high = _with_zero(taken)
        found[name] = {
            "input_low": low,
            "input_high": high,
            "output_low": low,
            "output_high": high,
            "levels": _LEVELS,
        }
    return _json(found)


def to_tensorrt(
    record: CalibrationRecord, names: Names | None = None, *, version: str = TENSORRT_VERSION
) -> bytes:
    """Return a TensorRT calibration cache: one symmetric INT8 scale per tensor, magnitude / 127."""
    symmetric = QuantizationScheme(activation_type="int8", activation_symmetric=True)
    ranges = record.ranges_for(record.method, symmetric) if record.statistics else record.ranges
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, found in _renamed(ranges, names).items():
        scale = max(found.magnitude, _LEAST_RANGE) / (_LEVELS / 2 - 1)
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return ("\n".join(lines) + "\n").encode()


EXPORTERS: Mapping[str, tuple[str, Callable[[CalibrationRecord], bytes]]] = {
    "onnxruntime": ("calibration-onnxruntime.json", to_onnxruntime),
    "litert": ("calibration-litert.json", to_litert),
    "openvino": ("calibration-openvino.json", to_openvino),
    "tensorrt": ("calibration-tensorrt.cache", to_tensorrt),
}
"""File name and function by toolchain."""


def export(record: CalibrationRecord, toolchain: str) -> tuple[str, bytes]:
    """Return the file's name and content that gives ``record`` to ``toolchain``.

    Raises:
        EngineError: EXPORT_UNKNOWN.
    """
    if toolchain not in EXPORTERS:
        raise EngineError(
            "EXPORT_UNKNOWN",
            f"A calibration record cannot be given to {toolchain!r}; it can to "
            f"{', '.join(sorted(EXPORTERS))}.",
        )
    name, write = EXPORTERS[toolchain]
    return name, write(record)


def _renamed(ranges: Mapping[str, TensorRange], names: Names | None) -> Mapping[str, TensorRange]:
    if names is None:
        return ranges
    return {theirs: ranges[ours] for theirs, ours in names.items() if ours in ranges}


def _with_zero(found: TensorRange) -> tuple[float, float]:
    """Return the range with zero on one of its levels."""
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    if high - low < _LEAST_RANGE:
        return 0.0, _LEAST_RANGE
    step = (high - low) / (_LEVELS - 1)
    below = round(-low / step)
    return -below * step, (_LEVELS - 1 - below) * step


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
