"""Activation-aware scales: channels that see large activations are rounded more finely.

Source: Lin et al., "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and
Acceleration", MLSys 2024. For y = x W, with s per input channel, y = (x / s) (s W): the product is the same,
and rounding s W hurts the channels with a large s less. s = mean(abs(x)) ** alpha, and alpha is searched on
the layer's own output error over the calibration samples; 0 leaves the layer as it was, so that no layer
becomes worse by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.weight_only.layers import Layer, weight_values
from boardwright.compiler.engine.weight_only.rounding import round_in_blocks

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_ALPHAS = tuple(number / 10 for number in range(10))
_SMALLEST = 1e-4
"""What a channel that hardly ever speaks counts as: its scale would be 0 otherwise."""


@dataclass(frozen=True, slots=True)
class ScaleSearch:
    """What was found for the layers that read one tensor: ``alpha``, and the error with it over without."""

    reads: str
    layers: tuple[str, ...]
    alpha: float
    error_ratio: float
    folded: bool


def scale_weights(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    activations: Mapping[str, Array],
    *,
    bits: int,
    block_size: int,
    symmetric: bool,
) -> list[ScaleSearch]:
    """Scale the weights of ``layers`` and divide what they read, in place; return what was chosen.

    ``activations`` maps each tensor that a layer reads to sampled rows of it, float32 [rows, K]. Layers
    that read one tensor share their scales. The division goes into the LayerNormalization in front where it
    serves these layers alone, else a Mul is added.
    """

    weights = weight_values(model)
    reads_of = Counter(name for node in model.graph.node for name in set(node.input))
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.reads, []).append(layer)
    found = []
    for reads, group in groups.items():
        # A weight that several nodes read (tied embeddings): scaling it for one would change the others.
        if reads not in activations or any(reads_of[layer.weight] > 1 for layer in group):
            continue
        alpha, ratio, scale = _search(
            activations[reads], [weights[layer.weight] for layer in group], bits, block_size, symmetric
        )
        folded = False
        if alpha > 0:
            scaled = {layer.weight: weights[layer.weight] * scale[:, None] for layer in group}
            factors, folded = _divide(model, reads, {layer.node for layer in group}, scale, weights)
            _store(model, {**scaled, **factors})
        found.append(ScaleSearch(reads, tuple(layer.node for layer in group), alpha, ratio, folded))
    return found


def _search(
    rows: Array,
    weights: Sequence[Array],
    bits: int,
    block_size: int,
    symmetric: bool,
) -> tuple[float, float, Array]:
    """Return the best alpha, its squared output error over that of plain rounding, and the scales [K]."""
    import numpy as np

    weight = np.concatenate(weights, axis=1)
    exact = rows @ weight
    magnitude = np.maximum(np.abs(rows).mean(axis=0), _SMALLEST)
    best = (0.0, 1.0, np.ones_like(magnitude))
    plain = 0.0
    for alpha in _ALPHAS:
        scale = magnitude**alpha
        scale = scale / np.sqrt(scale.max() * scale.min())  # so that weights stay about as large as they were
        rounded = round_in_blocks(weight * scale[:, None], bits, block_size, symmetric)
        error = float(np.square((rows / scale) @ rounded - exact).sum())
        if alpha == 0:
            plain = error
        ratio = error / plain if plain > 0 else 1.0
        if ratio < best[1]:
            best = (alpha, ratio, scale)
    return best


def _divide(
    model: onnx.ModelProto, reads: str, readers: set[str], scale: Array, weights: Mapping[str, Array]
) -> tuple[dict[str, Array], bool]:
    """Let ``readers`` read the tensor ``reads`` divided by ``scale`` (last axis).

    Returns the constants that this takes, to be stored, and whether the division went into a normalization.
    """
    from onnx import helper

    graph = model.graph
    producer = next((node for node in graph.node if reads in node.output), None)
    all_readers = {node.name for node in graph.node if reads in node.input}
    alone = all_readers == readers and reads not in {value.name for value in graph.output}
    if alone and producer is not None and producer.op_type == "LayerNormalization":
        affine = {place: producer.input[place] for place in (1, 2) if len(producer.input) > place}
        if all(name in weights for name in affine.values()):
            factors = {}
            for place, name in affine.items():
                own = f"{name}_{reads}_boardwright_awq"  # exporters let equal constants serve many nodes
                factors[own] = weights[name] / scale
                producer.input[place] = own
            return factors, True
    factor, divided = f"{reads}_boardwright_awq_factor", f"{reads}_boardwright_awq"
    place = min(index for index, node in enumerate(graph.node) if node.name in readers)
    for node in graph.node:
        if node.name in readers:
            node.input[0] = divided
    graph.node.insert(place, helper.make_node("Mul", [reads, factor], [divided], name=divided))
    return {factor: 1 / scale}, False


def _store(model: onnx.ModelProto, values: Mapping[str, Array]) -> None:
    """Set initializers by name, those that are new behind the others, in place."""
    import numpy as np
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in values.items():
        tensor = numpy_helper.from_array(value.astype(np.float32), name)
        if name in stored:
            stored[name].CopyFrom(tensor)
        else:
            model.graph.initializer.append(tensor)
