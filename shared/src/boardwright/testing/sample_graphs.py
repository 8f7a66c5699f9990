"""Small ONNX graphs for tests: an image classifier in float, and the same quantized by hand.

Weights are drawn from a fixed seed, so the files are the same bytes everywhere.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 16
CLASSES = 10
INPUT_NAME = "image"
OUTPUT_NAME = "logits"

_CHANNELS = (3, 8, 16)


def sample_images(count: int, seed: int = 7) -> npt.NDArray[np.float32]:
    """Return ``count`` images, float32 [count, 3, 16, 16] from -1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, SIDE, SIDE)).astype(np.float32)


def write_classifier(path: Path, batch: int | str = 1) -> Path:
    """Write Conv, Relu, Conv, Relu, GlobalAveragePool, Flatten, Gemm in float32.

    A str as ``batch`` leaves that axis open.
    """
    return _Builder(path, batch).write()


def write_quantized_classifier(
    path: Path,
    activation_type: str = "uint8",
    per_channel: bool = True,
    symmetric: bool = False,
    weight_bits: int = 8,
) -> Path:
    """Write the same network with quantize/dequantize pairs and int8 weights.

    ``activation_type`` is ``uint8`` or ``int8``. ``symmetric`` puts the zero point mid-range.
    """
    return _Builder(path, 1, activation_type, per_channel, symmetric, weight_bits).write()


def write_with_unknown_operator(path: Path) -> Path:
    """Write a graph whose one operator no runtime has."""
    from onnx import TensorProto, helper

    node = helper.make_node("FrobnicateImage", [INPUT_NAME], [OUTPUT_NAME], name="frob", domain="acme")
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in (INPUT_NAME, OUTPUT_NAME)
    ]
    graph = helper.make_graph([node], "unknown", [value[0]], [value[1]])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def write_with_external_weights(path: Path, location: str = "../../etc/passwd") -> Path:
    """Write a classifier whose first weight claims to lie in another file."""
    import onnx

    model = onnx.load(str(write_classifier(path)))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path


class _Builder:
    def __init__(
        self,
        path: Path,
        batch: int | str,
        activation_type: str = "",
        per_channel: bool = True,
        symmetric: bool = False,
        weight_bits: int = 8,
    ) -> None:
        self._path = path
        self._batch = batch
        self._activation_type = activation_type
        self._per_channel = per_channel
        self._symmetric = symmetric
        self._limit = 2 ** (weight_bits - 1) - 1
        self._random = np.random.default_rng(20261121)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def write(self) -> Path:
        from onnx import TensorProto, helper

        x = self._activation(INPUT_NAME, -1.0, 1.0)
        for index, (inside, outside) in enumerate(pairwise(_CHANNELS)):
            weight = self._weight(f"conv{index}.weight", (outside, inside, 3, 3))
            bias = self._bias(f"conv{index}.bias", outside)
            self._node("Conv", [x, weight, bias], f"conv{index}", pads=[1, 1, 1, 1], strides=[2, 2])
            self._node("Relu", [f"conv{index}"], f"relu{index}")
            x = self._activation(f"relu{index}", 0.0, 3.0)
        self._node("GlobalAveragePool", [x], "pool")
        pool = self._activation("pool", 0.0, 3.0)
        self._node("Flatten", [pool], "flat", axis=1)
        weight = self._weight("head.weight", (CLASSES, _CHANNELS[-1]))
        self._node(
            "Gemm",
            [self._activation("flat", 0.0, 3.0), weight, self._bias("head.bias", CLASSES)],
            "gemm",
            transB=1,
        )
        self._activation("gemm", -3.0, 3.0)
        self._nodes[-1].output[0] = OUTPUT_NAME
        inputs = [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [self._batch, 3, SIDE, SIDE])]
        outputs = [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [self._batch, CLASSES])]
        graph = helper.make_graph(self._nodes, "classifier", inputs, outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
        self._path.write_bytes(model.SerializeToString(deterministic=True))
        return self._path

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def _bias(self, name: str, size: int) -> str:
        return self._constant(name, self._random.normal(0, 0.1, size).astype(np.float32))

    def _weight(self, name: str, shape: tuple[int, ...]) -> str:
        fan_in = int(np.prod(shape[1:]))
        values = self._random.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        if not self._activation_type:
            return self._constant(name, values)
        axes = tuple(range(1, len(shape))) if self._per_channel else None
        scale = (np.abs(values).max(axis=axes) / self._limit).astype(np.float32)
        spread = scale.reshape((-1,) + (1,) * (len(shape) - 1)) if self._per_channel else scale
        integers = np.clip(np.rint(values / spread), -self._limit, self._limit).astype(np.int8)
        inputs = [
            self._constant(f"{name}.int8", integers),
            self._constant(f"{name}.scale", np.asarray(scale)),
            self._constant(f"{name}.zero", np.zeros_like(scale, dtype=np.int8)),
        ]
        self._node("DequantizeLinear", inputs, name, **({"axis": 0} if self._per_channel else {}))
        return name

    def _activation(self, name: str, low: float, high: float) -> str:
        if not self._activation_type:
            return name
        dtype = np.dtype(self._activation_type)
        smallest = int(np.iinfo(dtype).min)
        if self._symmetric:
            scale = max(-low, high) / 127
            zero = smallest + 128
        else:
            scale = (high - low) / 255
            zero = round(smallest - low / scale)
        scales = self._constant(f"{name}.q.scale", np.asarray(scale, np.float32))
        zeros = self._constant(f"{name}.q.zero", np.asarray(zero, dtype))
        self._node("QuantizeLinear", [name, scales, zeros], f"{name}.q")
        self._node("DequantizeLinear", [f"{name}.q", scales, zeros], f"{name}.dq")
        return f"{name}.dq"
