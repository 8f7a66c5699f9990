"""Bias correction: take back the shift that rounding a layer's weights gives its outputs.

(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
https://arxiv.org/abs/1906.04721, section 4.2.) Rounding a layer's weights shifts the mean of each output
channel by (W_q - W) E[x]. The shift is known once the mean of each input channel is, and goes into the
bias. It costs nothing at inference. Depthwise layers, whose few weights per channel do not average out,
gain most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import copy_of, drop_unread
from boardwright.compiler.engine.graph.layers import layer_form
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.grid import round_weight
from boardwright.compiler.engine.observe import CalibrationRecord
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]


def correct_bias(
    model: onnx.ModelProto, record: CalibrationRecord, scheme: QuantizationScheme, exclude: set[str]
) -> tuple[onnx.ModelProto, int]:
    """Return ``model`` with the biases of its Conv and Gemm layers corrected, and how many were.

    Layers in ``exclude`` keep their float weights, and so their biases. Schemes with asymmetric weights
    are left alone.
    """
    import numpy as np
    from onnx import numpy_helper

    corrected = copy_of(model)
    if not scheme.has_symmetric_int8_weights:
        return corrected, 0
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    topology = Topology(model.graph)
    count = 0
    for index, node in enumerate(corrected.graph.node):
        if node.name in exclude or not topology.is_weighted(index) or node.input[1] not in stored:
            continue
        means = record.means.get(node.input[0])
        bias_name = node.input[2] if len(node.input) > 2 else ""
        if means is None or (bias_name and bias_name not in stored):
            continue
        weight = numpy_helper.to_array(stored[node.input[1]])
        shift = mean_shift(node, weight, np.asarray(means), scheme)
        if shift is None:
            continue
        bias = numpy_helper.to_array(stored[bias_name]) if bias_name else np.zeros_like(shift)
        if bias.size != shift.size:
            continue
        name = f"{node.output[0]}_corrected_bias"
        new = (bias.astype(np.float64) - shift.reshape(bias.shape)).astype(np.float32)
        corrected.graph.initializer.append(numpy_helper.from_array(new, name))
        del node.input[2:]
        node.input.append(name)
        count += 1
    drop_unread(corrected.graph)
    return corrected, count


def mean_shift(node: onnx.NodeProto, weight: Array, means: Array, scheme: QuantizationScheme) -> Array | None:
    """Return by how much rounding ``weight`` shifts each output channel's mean; None where it is not known.

    ``weight`` is (O, I / groups, ...) for Conv and (I, O), or (O, I) with transB, for Gemm. ``means`` is
    (I,); the result is (O,).
    """
    form = layer_form(node, weight.ndim)
    if form is None or form.operator == "MatMul":
        return None
    rows, groups = form.rows(weight), form.groups
    if rows.shape[1] * groups != means.size or rows.shape[0] % groups:
        return None
    error = (round_weight(rows, scheme, groups) - rows).reshape(*rows.shape[:2], -1).sum(axis=2)
    per_group = error.reshape(groups, rows.shape[0] // groups, rows.shape[1])
    shift: Array = (per_group @ means.reshape(groups, rows.shape[1], 1)).reshape(-1)
    return shift
