"""Learned rounding: for each weight up or down, so that the layer's output stays, not the weight.

(Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization",
https://arxiv.org/abs/2004.10568.) Rounding each weight to the nearest grid point ignores that errors of
weights that are read together can cancel. A soft choice per weight is learnt against the layer's own output
error, and hardened. What the rounded layers in front made of the input is the input here (the paper's
asymmetric reconstruction), given as second moments (see ``layer_statistics``), so that a step costs the same
however many samples there are. The mean of each output channel is put right in the bias.

The largest weight of each scale stays where it is: the quantizer then finds the same grid again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import copy_of
from boardwright.compiler.engine.graph.layers import layer_form
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.grid import weight_steps
from boardwright.compiler.engine.observe import CalibrationRecord, Feed
from boardwright.compiler.engine.recover.layer_statistics import Moments, Reader, gather
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_ZETA, _GAMMA = 1.1, -0.1
_HELPED = 0.995


@dataclass(frozen=True, slots=True)
class RoundingOptions:
    """``work`` bounds the multiplications of all updates of a layer; ``largest`` what it reads at once.

    ``penalty`` weighs how undecided a weight may stay, relative to the layer's error when it begins.
    """

    updates: int = 150
    work: float = 4e10
    largest: int = 2400
    rate: float = 0.03
    penalty: float = 0.05
    memory_bytes: float = 2.5e8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class LayerRounding:
    """A layer's relative output error on held-out samples: rounded to the nearest, and as learnt."""

    layer: str
    nearest: float
    learned: float
    applied: bool
    turned: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "layer": self.layer,
            "error_nearest": float(f"{self.nearest:.4g}"),
            "error_learned": float(f"{self.learned:.4g}"),
            "applied": self.applied,
            "weights_turned": self.turned,
        }


def learn_rounding(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    record: CalibrationRecord,
    scheme: QuantizationScheme,
    excluded: set[str],
    samples: Sequence[Feed],
    held_out: Sequence[Feed],
    options: RoundingOptions = RoundingOptions(),
    on_layer: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[onnx.ModelProto, list[LayerRounding]]:
    """Return ``model`` with weights on the grid as learnt, and a record per layer.

    ``original`` and ``model`` are the same prepared graph, with the weights to approximate and to begin with.
    """
    from onnx import numpy_helper

    from boardwright.compiler.engine.quantize import insert_quantization

    written = copy_of(model)
    if not scheme.has_symmetric_int8_weights:
        return written, []
    quantized = insert_quantization(model, record, scheme, excluded, spread=False)
    readers = _readers(model, quantized, excluded, options)
    stored = {tensor.name: tensor for tensor in written.graph.initializer}
    nodes = {node.name: node for node in written.graph.node}
    aims = {tensor.name: tensor for tensor in original.graph.initializer}
    biases = {
        node.name: numpy_helper.to_array(aims[node.input[2]])
        for node in original.graph.node
        if len(node.input) > 2 and node.input[2] in aims
    }
    told: list[LayerRounding] = []
    for part in _parts(readers, options):
        learnt = gather(original, quantized, part, samples, seed=options.seed)
        judged = gather(original, quantized, part, held_out, seed=options.seed + 1)
        for reader in part:
            node = nodes[reader.name]
            weight = reader.form.rows(numpy_helper.to_array(aims[node.input[1]]))
            found, rows = _learn(reader, weight, learnt[reader.name], judged[reader.name], scheme, options)
            told.append(found)
            if found.applied:
                value = reader.form.stored(rows).astype("float32")
                stored[node.input[1]].CopyFrom(numpy_helper.from_array(value.copy(), node.input[1]))
                _correct(written, node, (stored, biases.get(reader.name)), weight, rows, learnt[reader.name])
            on_layer(len(told), len(readers))
    return written, told


def _learn(
    reader: Reader,
    weight: Array,
    learnt: Moments,
    judged: Moments,
    scheme: QuantizationScheme,
    options: RoundingOptions,
) -> tuple[LayerRounding, Array]:
    import numpy as np

    groups, size = reader.form.groups, prod(reader.shape[1:])
    flat = weight.astype(np.float64).reshape(groups, -1, size)
    steps = np.broadcast_to(weight_steps(weight, scheme, groups), weight.shape).reshape(flat.shape)
    bound = scheme.weight_bound
    floor = np.floor(flat / steps + 1e-6)
    share = np.clip(flat / steps - floor, 0.0, 1.0)
    free = (share > 1e-3) & (floor < bound) & (floor >= -bound)
    nearest = np.clip(np.rint(flat / steps), -bound, bound)
    hessian, drift, _, _ = learnt.centred()
    up = _choose(flat, steps, floor, share, hessian, drift, options)
    chosen = np.where(free, floor + up, nearest)
    scale = float(np.einsum("gok,gkl,gol->", flat, judged.centred()[0], flat)) or 1.0
    before = _error(nearest * steps - flat, flat, judged) / scale
    after = _error(chosen * steps - flat, flat, judged) / scale
    applied = after < before - (1 - _HELPED) * abs(before)
    turned = int((chosen != nearest).sum()) if applied else 0
    rows = ((chosen if applied else nearest) * steps).reshape(weight.shape)
    return LayerRounding(reader.name, before, after, applied, turned), rows


def _error(change: Array, weight: Array, moments: Moments) -> float:
    """Return E |change·x - weight·(x' - x)|² but for what no change of weights can take back."""
    import numpy as np

    hessian, drift, _, _ = moments.centred()
    own = np.einsum("gok,gkl,gol->", change, hessian, change, optimize=True)
    return float(own - 2 * np.einsum("gok,gok->", change, weight @ drift))


def _choose(
    weight: Array,
    steps: Array,
    floor: Array,
    share: Array,
    hessian: Array,
    drift: Array,
    options: RoundingOptions,
) -> Array:
    """Return 1.0 where a weight goes up from ``floor``, 0.0 where it stays: (G, O, K)."""
    import numpy as np
    import torch

    from boardwright.compiler.engine.recover.descent import Descent

    steps_, floor_, weight_ = (
        torch.from_numpy(np.ascontiguousarray(v)).float() for v in (steps, floor, weight)
    )
    matrix = torch.from_numpy(hessian).float()
    pull = torch.from_numpy(weight @ drift).float()
    start = np.clip((share - _GAMMA) / (_ZETA - _GAMMA), 1e-4, 1 - 1e-4)
    soft = torch.from_numpy(np.log(start / (1 - start))).float().requires_grad_(True)
    nearest = (torch.from_numpy(np.rint(share)).float() + floor_) * steps_ - weight_
    unit = float((nearest * (nearest @ matrix)).sum()) or 1.0
    most = options.work / max(weight.size * weight.shape[-1], 1)
    updates = int(min(options.updates, max(most, 20)))
    descent = Descent([(soft, options.rate * options.updates / updates)], betas=(0.9, 0.999))
    for update in range(updates):
        progress = update / updates
        up = (torch.sigmoid(soft) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
        change = (floor_ + up) * steps_ - weight_
        loss = ((change * (change @ matrix)).sum() - 2 * (change * pull).sum()) / unit
        if progress > 0.2:
            sharpness = 2 + 18 * 0.5 * (1 + np.cos((progress - 0.2) / 0.8 * np.pi))
            undecided = (1 - (2 * up - 1).abs().pow(sharpness)).mean()
            loss = loss + options.penalty * undecided * (1 + 10 * progress)
        descent.step(loss)
    chosen: Array = (soft.detach() > 0).double().numpy()
    return chosen


def _correct(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    tensors: tuple[dict[str, onnx.TensorProto], Array | None],
    weight: Array,
    rows: Array,
    moments: Moments,
) -> None:
    """Put the mean of each output channel right in the bias, if the layer has one of its own.

    ``tensors`` are those to write and the float graph's bias, None where it has none. One that was corrected
    for the nearest grid points would be corrected twice.
    """
    import numpy as np
    from onnx import numpy_helper

    stored, exact_bias = tensors
    name = node.input[2] if len(node.input) > 2 else ""
    users = sum(name in other.input for other in model.graph.node)
    if name not in stored or users != 1:
        return
    _, _, mean, exact = moments.centred()
    groups, size = mean.shape
    wanted = np.einsum("gok,gk->go", weight.astype(np.float64).reshape(groups, -1, size), exact)
    made = np.einsum("gok,gk->go", rows.reshape(groups, -1, size), mean)
    bias = numpy_helper.to_array(stored[name])
    bias = exact_bias if exact_bias is not None else np.zeros_like(bias)
    if bias.size == wanted.size:
        new = bias.astype(np.float64) + (wanted - made).reshape(bias.shape)
        stored[name].CopyFrom(numpy_helper.from_array(new.astype(np.float32), name))


def _readers(
    model: onnx.ModelProto, quantized: onnx.ModelProto, excluded: set[str], options: RoundingOptions
) -> list[Reader]:
    topology = Topology(model.graph)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    inside = {node.name: node for node in quantized.graph.node}
    found = []
    for index, node in enumerate(topology.nodes):
        if node.name in excluded or index not in topology.layers or len(node.input) < 2:
            continue
        shape = shapes.get(node.input[1], ())
        form = layer_form(node, len(shape)) if shape else None
        ours = inside.get(node.name)
        if (
            form is None
            or form.auto_padded
            or ours is None
            or ours.input[0] == node.input[0]
            or len(topology.readers(node.input[1])) != 1
        ):
            continue
        rows = (shape[1], shape[0]) if form.turned else shape
        if prod(rows[1:]) <= options.largest:
            found.append(Reader(node.name, node.input[0], ours.input[0], form, rows))
    return found


def _parts(readers: Sequence[Reader], options: RoundingOptions) -> list[list[Reader]]:
    """Return the readers in parts whose moments fit into memory together."""
    parts: list[list[Reader]] = [[]]
    taken = 0.0
    for reader in readers:
        needed = 4.0 * 8 * reader.form.groups * prod(reader.shape[1:]) ** 2
        if parts[-1] and taken + needed > options.memory_bytes:
            parts.append([])
            taken = 0.0
        parts[-1].append(reader)
        taken += needed
    return [part for part in parts if part]
