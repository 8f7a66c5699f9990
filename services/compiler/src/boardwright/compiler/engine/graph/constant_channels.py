"""Channels that give one value whatever the input: their readers' weights must not set anybody's scale.

Training leaves channels behind that a Relu or Clip always shuts: after folded batch norms their own weights
are 1e-12 of the others', and their bias is below zero. The next layer multiplies them with weights that no
gradient ever reached, often the largest of the layer: under one scale per tensor these take all levels from
the weights that count. What such a channel gives is known without looking at an input, so its readers can do
without it: weights times zero are left out, weights times a constant go into the bias. The float function is
the same.

Which channels these are is proven by interval arithmetic (each layer's least and largest output, from its
input's), not observed: activations may reach ``_REACH`` times as far as calibration saw them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes, shapes_of, with_values
from boardwright.compiler.engine.graph.layers import LayerForm, layer_form
from boardwright.compiler.engine.graph.topology import Topology

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from boardwright.compiler.engine.observe import TensorRange

    Array = np.ndarray[Any, Any]
    Bounds = tuple[Array, Array]

_REACH = 4.0
_SAME = 1e-6
"""Of a tensor's span, below which two values are one: an 8-bit step is 4000 times as wide."""

_MOST_WEIGHTS = 1 << 24
"""Of a layer that is followed: bounds are computed in float64, beside the weights."""

_PASSING = frozenset({"MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"})
_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})


@dataclass(frozen=True, slots=True)
class ConstantChannels:
    """How many constant input channels each layer, by its node's name, was freed of."""

    layers: Mapping[str, int] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What was done in a sentence; empty where nothing was."""
        if not self.layers:
            return ""
        return (
            f"{sum(self.layers.values())} channels that {len(self.layers)} layers read never change, "
            "whatever the input: their weights are left out, and no longer widen the scale of the others."
        )


def drop_constant_channels(
    model: onnx.ModelProto, ranges: Mapping[str, TensorRange]
) -> tuple[onnx.ModelProto, ConstantChannels]:
    """Return ``model`` (prepared, float32) whose layers do not multiply channels that never change.

    ``ranges`` are those of a calibration record. A model without such channels is returned as it is.
    """
    finder = _Finder(model, ranges)
    changed: dict[str, Array] = {}
    layers = {}
    for index, node in enumerate(finder.topology.nodes):
        freed = finder.free(node, changed) if finder.is_private_layer(index) else 0
        if freed:
            layers[node.name] = freed
        finder.follow(node)
    if not changed:
        return model, ConstantChannels()
    return with_values(model, changed), ConstantChannels(layers)


class _Finder:
    """Follows the least and largest value of each channel (axis 1) through a graph."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> None:
        self.topology = Topology(model.graph)
        self._ranges = ranges
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._bounds: dict[str, Bounds] = {}
        self._shapes = shapes_of(model.graph)

    def is_private_layer(self, index: int) -> bool:
        """Tell whether a node is a Conv or plain Gemm whose constants nobody else reads."""
        node = self.topology.nodes[index]
        constants = [name for name in node.input[1:] if name]
        return (
            node.op_type in ("Conv", "Gemm")
            and self._form(node) is not None
            and bool(constants)
            and self._is_small(constants[0])
            and all(n in self._stored and len(self.topology.readers(n)) == 1 for n in constants)
        )

    def follow(self, node: onnx.NodeProto) -> None:
        """Find the bounds of a node's output where its kind is known."""
        try:
            found = self._of(node)
        except (ValueError, IndexError, KeyError):  # a shape that is not what it seems: nothing is known
            found = None
        if found is not None and len(node.output) > 0:
            self._bounds[node.output[0]] = self._within(node.output[0], found)

    def free(self, node: onnx.NodeProto, changed: dict[str, Array]) -> int:
        """Take constant channels out of a layer's weights, into ``changed``; return how many."""
        import numpy as np

        found = self._bounds.get(node.input[0])
        span = self._span(node.input[0])
        if found is None or span <= 0:
            return 0
        weight, bias = self._value(node.input[1]), self._bias(node)
        form = self._form(node)
        assert form is not None
        rows = form.grouped(weight)
        if form.groups * rows.shape[2] != found[0].size:
            return 0
        constant = (found[1] - found[0] <= _SAME * span).reshape(form.groups, -1)
        value = ((found[0] + found[1]) / 2).reshape(form.groups, -1)
        zero = constant & (np.abs(value) <= _SAME * span)
        known = constant & ~zero & (not form.padded and bias is not None)
        known &= ~(zero | known).all(axis=1, keepdims=True)  # weights of zeros alone would have no scale
        freed = (zero | known) & (np.abs(rows).max(axis=(1, 3)) > 0)
        if not freed.any():
            return 0
        if known.any():
            assert bias is not None
            extra = (rows.sum(axis=3) * np.where(known, value, 0)[:, None, :]).sum(axis=2).reshape(-1)
            changed[node.input[2]] = bias + extra.reshape(bias.shape)
        changed[node.input[1]] = form.stored(_without(rows, freed).reshape(form.rows(weight).shape))
        return int(freed.sum())

    def _of(self, node: onnx.NodeProto) -> Bounds | None:
        kind = node.op_type
        if kind in ("Conv", "Gemm"):
            return self._layer(node)
        if kind in _PASSING:
            return self._bounds.get(node.input[0])
        if kind == "AveragePool" and not any(attributes(node).get("pads", [])):
            return self._bounds.get(node.input[0])
        if kind in _FLATTENING:
            return self._flattened(node)
        if kind == "Concat" and attributes(node).get("axis") == 1:
            return self._joined(node)
        if kind in ("Mul", "Add"):
            return self._combined(node)
        function = self._monotone(node)
        given = self._bounds.get(node.input[0]) if function is not None else None
        return (
            (function(given[0]), function(given[1])) if function is not None and given is not None else None
        )

    def _layer(self, node: onnx.NodeProto) -> Bounds | None:
        import numpy as np

        form = self._form(node)
        if form is None or any(name and name not in self._stored for name in node.input[1:]):
            return None
        if not self._is_small(node.input[1]):
            return None
        rows = form.grouped(self._value(node.input[1]))
        given = self._given(node.input[0], form.groups * rows.shape[2])
        if given is None:
            return None
        low, high = given
        if form.padded:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        up, down = np.maximum(rows, 0).sum(axis=3), np.minimum(rows, 0).sum(axis=3)
        low, high = low.reshape(form.groups, 1, -1), high.reshape(form.groups, 1, -1)
        least = (up * low + down * high).sum(axis=2).reshape(-1)
        most = (up * high + down * low).sum(axis=2).reshape(-1)
        bias = self._bias(node)
        extra = 0.0 if bias is None else np.broadcast_to(bias.reshape(-1), least.shape)
        return least + extra, most + extra

    def _given(self, tensor: str, channels: int) -> Bounds | None:
        """Return the bounds of a layer's input, from calibration alone where nothing else is known."""
        import numpy as np

        found = self._bounds.get(tensor)
        if found is not None:
            return found if found[0].size == channels else None
        seen = self._ranges.get(tensor)
        if seen is None:
            return None
        return np.full(channels, _REACH * min(seen.low, 0)), np.full(channels, _REACH * max(seen.high, 0))

    def _within(self, tensor: str, found: Bounds) -> Bounds:
        """Return bounds as far as calibration reaches: intervals grow from layer to layer."""
        import numpy as np

        seen = self._ranges.get(tensor)
        if seen is None:
            return found
        low, high = _REACH * min(seen.low, 0), _REACH * max(seen.high, 0)
        return np.clip(found[0], low, high), np.clip(found[1], low, high)

    def _flattened(self, node: onnx.NodeProto) -> Bounds | None:
        before, after = self._shapes.get(node.input[0], ()), self._shapes.get(node.output[0], ())
        given = self._bounds.get(node.input[0])
        same = len(before) > 1 and len(after) > 1 and before[1] == after[1] == prod(after[1:]) > 0
        return given if same and prod(before[1:]) == before[1] else None

    def _joined(self, node: onnx.NodeProto) -> Bounds | None:
        import numpy as np

        parts = []
        for name in node.input:
            channels = (*self._shapes.get(name, ()), 0, 0)[1]
            part = self._given(name, channels) if channels else None
            if part is None:
                return None
            parts.append(part)
        return np.concatenate([low for low, _ in parts]), np.concatenate([high for _, high in parts])

    def _combined(self, node: onnx.NodeProto) -> Bounds | None:
        """Return the bounds of a sum or product of two tensors, or of a tensor and a constant."""
        import numpy as np

        sizes = [self._bounds[name][0].size for name in node.input if name in self._bounds]
        if not sizes or len(set(sizes)) != 1:
            return None
        parts: list[Bounds] = []
        for name in node.input:
            if name in self._bounds:
                parts.append(self._bounds[name])
            elif name in self._stored:
                value = self._value(name)
                if value.size != 1 and value.shape not in ((sizes[0], 1, 1), (1, sizes[0], 1, 1)):
                    return None
                parts.append((value.reshape(-1), value.reshape(-1)))
            else:
                return None
        (a, b), (c, d) = parts
        if node.op_type == "Add":
            return a + c, b + d
        corners = np.stack(np.broadcast_arrays(a * c, a * d, b * c, b * d))
        return corners.min(axis=0), corners.max(axis=0)

    def _monotone(self, node: onnx.NodeProto) -> Callable[[Array], Array] | None:
        import numpy as np

        options = attributes(node)
        if node.op_type == "Relu":
            return lambda x: np.maximum(x, 0)
        if node.op_type == "Clip":
            ends = [*node.input[1:], "", ""][:2]
            if any(name and name not in self._stored for name in ends):
                return None
            low, high = (self._value(name).item() if name else None for name in ends)
            return lambda x: np.clip(x, low, high) if (low, high) != (None, None) else x
        if node.op_type == "LeakyRelu" and options.get("alpha", 0.01) >= 0:
            return lambda x: np.where(x >= 0, x, options.get("alpha", 0.01) * x)
        if node.op_type == "Sigmoid":
            return lambda x: 1 / (1 + np.exp(-np.clip(x, -60, 60)))
        if node.op_type == "Tanh":
            return lambda x: np.tanh(x)
        if node.op_type == "HardSigmoid" and options.get("alpha", 0.2) >= 0:
            return lambda x: np.clip(options.get("alpha", 0.2) * x + options.get("beta", 0.5), 0, 1)
        return None

    def _form(self, node: onnx.NodeProto) -> LayerForm | None:
        weight = self._stored.get(node.input[1])
        return None if weight is None else layer_form(node, len(weight.dims))

    def _is_small(self, name: str) -> bool:
        return name not in self._stored or prod(self._stored[name].dims) <= _MOST_WEIGHTS

    def _span(self, tensor: str) -> float:
        seen = self._ranges.get(tensor)
        return max(seen.high, 0.0) - min(seen.low, 0.0) if seen is not None else 0.0

    def _value(self, name: str) -> Array:
        from onnx import numpy_helper

        value: Array = numpy_helper.to_array(self._stored[name]).astype("float64")
        return value

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        return self._value(node.input[2]) if len(node.input) > 2 and node.input[2] else None


def _without(rows: Array, freed: Array) -> Array:
    """Return ``rows`` with zeros for ``freed`` (groups, inputs of a group).

    An output channel that reads nothing else keeps weights, of a usual size: a quantizer that takes scales
    per channel gives none to zeros, and its bias is rounded by that scale.
    """
    import numpy as np

    kept = np.where(freed[:, None, :, None], 0.0, rows)
    lost: Array = np.all(freed, axis=1)
    if lost.any():
        largest = np.abs(rows).max(axis=(2, 3))
        usual = np.median(largest[~lost]) if not lost.all() else largest.min()
        factor = np.minimum(1.0, usual / np.maximum(largest, 1e-30))
        kept = np.where(lost[:, None, None, None], rows * factor[:, :, None, None], kept)
    return kept
