"""How a graph is quantized, read from its QuantizeLinear, DequantizeLinear and fused integer nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.toolchains.pairs import LARGEST_PAIR, largest_pairs

if TYPE_CHECKING:
    import numpy as np
    import onnx

_COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_NARROW = 64  # 2 × 255 × 64 < 2^15: a pair of uint8 × int8 products fits into 16 bits
_FUSED = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"})
_CONVOLUTIONS = frozenset({"Conv", "QLinearConv", "ConvInteger"})
_MATRICES = frozenset({"MatMul", "QLinearMatMul", "MatMulInteger", "Gemm", "QGemm"})


@dataclass(frozen=True, slots=True)
class Precision:
    """The integer types of a graph; all empty or zero for a float graph.

    ``activation_types`` and ``weight_types`` hold ONNX's lower-case names (``uint8``, ``int8``).
    ``asymmetric_activations`` tells that some activation has a zero point other than the middle of its
    type's range (0 for int8, 128 for uint8); ``asymmetric_weights`` that some weight has one other than 0.
    ``per_channel`` tells that some weight has more than one scale. ``wide_weights`` tells that some pair of
    products with 8-bit weights can overflow 16 bits (x86 without VNNI saturates there, see
    ``pairs_overflow``). ``other_scales`` tells that some scale is no power of two. ``quantized`` and
    ``compute`` count the Conv, ConvTranspose, Gemm and MatMul nodes with integer weights, and all of them.
    ``float16`` tells that some weight is in half precision.
    """

    activation_types: tuple[str, ...] = ()
    weight_types: tuple[str, ...] = ()
    asymmetric_activations: bool = False
    asymmetric_weights: bool = False
    per_channel: bool = False
    wide_weights: bool = False
    quantized: int = 0
    compute: int = 0
    dynamic: bool = False
    other_scales: bool = False
    float16: bool = False

    @property
    def is_integer(self) -> bool:
        return bool(self.activation_types or self.weight_types)

    @property
    def short(self) -> str:
        """``FP32``, ``FP16``, or such as ``U8S8``: activations first, then weights."""
        if not self.is_integer:
            return "FP16" if self.float16 else "FP32"
        return "".join(
            "/".join(sorted(_letter(name) for name in names)) or "F32"
            for names in (self.activation_types, self.weight_types)
        )


def read_precision(graph: onnx.GraphProto) -> Precision:
    """Read how ``graph`` is quantized. Subgraphs are left out: quantizers do not reach into them."""
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self._weights[node.output[0]] = attribute.t
        self._producer = {output: node for node in graph.node for output in node.output}
        self._activations: set[str] = set()
        self._weight_types: set[str] = set()
        self._asymmetric_activations = False
        self._asymmetric_weights = False
        self._per_channel = False
        self._wide_weights = False
        self._scales: set[str] = set()

    def read(self) -> Precision:
        quantized = compute = 0
        for node in self._graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._scales.add(node.input[1])
            if node.op_type == "QuantizeLinear":
                self._activation(node.input[2] if len(node.input) > 2 else "")
            if node.op_type in _COMPUTE:
                compute += 1
                quantized += self._weight_behind(node)
            elif node.op_type in _FUSED:
                compute += 1
                quantized += 1
                self._fused(node)
        return Precision(
            activation_types=tuple(sorted(self._activations)),
            weight_types=tuple(sorted(self._weight_types)),
            asymmetric_activations=self._asymmetric_activations,
            asymmetric_weights=self._asymmetric_weights,
            per_channel=self._per_channel,
            wide_weights=self._wide_weights,
            quantized=quantized,
            compute=compute,
            dynamic=any(node.op_type == "DynamicQuantizeLinear" for node in self._graph.node),
            other_scales=any(self._is_other(name) for name in self._scales),
            float16=any(_type_name(t) == "float16" and len(t.dims) > 1 for t in self._weights.values()),
        )

    def _is_other(self, scale: str) -> bool:
        """Whether a scale, or one of several, is no power of two."""
        import numpy as np
        from onnx import numpy_helper

        if scale not in self._weights:
            return True
        mantissa = np.frexp(numpy_helper.to_array(self._weights[scale]).astype(np.float64))[0]
        return bool((mantissa != 0.5).any())

    def _activation(self, zero_point: str) -> None:
        """Note an activation's type; ONNX's default without a zero point is uint8."""
        tensor = self._weights.get(zero_point)
        if tensor is None:
            self._activations.add("uint8")
            self._asymmetric_activations = True  # zero point 0 of uint8 is not the middle
            return
        from onnx import numpy_helper

        name = _type_name(tensor)
        self._activations.add(name)
        middle = 128 if name == "uint8" else 0
        self._asymmetric_activations |= bool((numpy_helper.to_array(tensor) != middle).any())

    def _weight_behind(self, node: onnx.NodeProto) -> bool:
        """Whether one of the inputs is a dequantized constant; its types are noted."""
        for name in node.input[:2]:
            source = self._producer.get(name)
            if source is None or source.op_type != "DequantizeLinear":
                continue
            quantized, scale, zero_point = (*source.input, "")[:3]
            if quantized in self._weights:
                self._weight(node, quantized, scale, zero_point)
                return True
        return False

    def _fused(self, node: onnx.NodeProto) -> None:
        # QLinear…: a, a_scale, a_zero, b, b_scale, b_zero. …Integer: a, b, a_zero, b_zero.
        inputs = list(node.input) + [""] * 8
        if node.op_type.endswith("Integer"):
            if inputs[1] in self._weights:
                self._weight(node, inputs[1], "", inputs[3])
            return
        self._activation(inputs[2])
        self._scales.update((inputs[1], inputs[4]))
        if inputs[3] in self._weights:
            self._weight(node, inputs[3], inputs[4], inputs[5])

    def _weight(self, node: onnx.NodeProto, name: str, scale: str, zero_point: str) -> None:
        import onnx
        from onnx import numpy_helper

        tensor = self._weights[name]
        self._weight_types.add(_type_name(tensor))
        zero = self._weights.get(zero_point)
        if zero is not None:
            self._asymmetric_weights |= bool(numpy_helper.to_array(zero).any())
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and not self._wide_weights:
            values = numpy_helper.to_array(tensor).astype("int16")
            middle = int(numpy_helper.to_array(zero).ravel()[0]) if zero is not None else 0
            self._wide_weights = pairs_overflow(node, values - middle)
        if scale in self._weights and any(int(dim) > 1 for dim in self._weights[scale].dims):
            self._per_channel = True


def pairs_overflow(node: onnx.NodeProto, weight: np.ndarray[Any, Any]) -> bool:
    """Whether a pair of products of uint8 and the integers ``weight`` of a layer can leave 16 bits.

    Weights are (O, I, kernel...), matrices pair along the axis that is summed over (see ``largest_pairs``).
    Where a layer's order is not known, any two weights count as a pair. ConvInteger is computed as a matrix
    product, whatever its groups.
    """
    if not weight.size or int(abs(weight).max()) <= _NARROW:
        return False
    groups = 1
    if node.op_type in _CONVOLUTIONS and weight.ndim > 2:
        rows = weight
        if node.op_type != "ConvInteger":
            groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
    elif node.op_type in _MATRICES and weight.ndim == 2:
        turned = any(entry.name == "transB" and entry.i for entry in node.attribute)
        rows = weight if turned else weight.T
    else:
        return True
    return bool(largest_pairs(rows, groups).max() > LARGEST_PAIR)


def _type_name(tensor: onnx.TensorProto) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(tensor.data_type)).lower()


def _letter(name: str) -> str:
    for prefix, letter in (("uint", "U"), ("int", "S"), ("float", "F")):
        if name.startswith(prefix):
            return letter + name.removeprefix(prefix)
    return name
