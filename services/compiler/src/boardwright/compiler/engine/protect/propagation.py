"""How much of each tensor's noise reaches the last layers, computed from powers alone.

Noise is taken as white and independent: a layer lets the sum of its squared weights through, an Add the sum,
a Concat the share, a product the power of the other factor. What the model cannot know (coloured noise,
saturation) is fitted later from a few measured units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.topology import MOVEMENT_OPERATORS
from boardwright.compiler.engine.protect.structure import SUMS, Subject
from boardwright.compiler.engine.protect.weights import channels_first

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_KEPT = MOVEMENT_OPERATORS | {"Resize", "Relu", "Clip"}
_DAMPING = 0.5


@dataclass(frozen=True, slots=True)
class TensorPower:
    """Mean square, variance and number of elements of a tensor over the samples."""

    power: float
    variance: float
    elements: float


def noise_gains(subject: Subject, powers: Mapping[str, TensorPower]) -> dict[str, float]:
    """Return by tensor the noise-to-signal ratio that a unit of noise in it makes at the last layers."""
    return _backward(subject, powers, _white)


def path_shares(subject: Subject, powers: Mapping[str, TensorPower]) -> dict[str, float]:
    """Return by tensor its share in what the last layers see, halved by each layer on the way."""
    return _backward(subject, powers, _share)


def _backward(subject: Subject, powers: Mapping[str, TensorPower], gain: Any) -> dict[str, float]:
    ends = subject.topology.last_layers
    gains: dict[str, float] = {}
    for index in ends:
        name = subject.nodes[index].output[0]
        if name in powers:
            scale = powers[name].variance if gain is _white else 1.0
            gains[name] = 1 / max(scale, 1e-12) / len(ends)
    for index in range(len(subject.nodes) - 1, -1, -1):
        if not subject.topology.reaches_layer[index] and index not in subject.layers:
            continue
        node = subject.nodes[index]
        behind = sum(gains.get(name, 0.0) for name in node.output)
        if behind <= 0:
            continue
        for name in dict.fromkeys(node.input):
            if name in powers:
                gains[name] = gains.get(name, 0.0) + behind * gain(subject, powers, index, name)
    return gains


def _white(subject: Subject, powers: Mapping[str, TensorPower], index: int, name: str) -> float:
    """Return the power of the noise that one unit of noise power in the input ``name`` makes."""
    import numpy as np

    node = subject.nodes[index]
    output = node.output[0]
    if index in subject.layers:
        weight = channels_first(subject, index)
        return 1.0 if weight is None else float(np.square(weight.astype(np.float64)).sum(axis=1).mean())
    if node.op_type == "Mul":
        gain = 1.0
        for other in [found for found in node.input if found != name] or [name]:
            gain *= powers[other].power if other in powers else _constant_power(subject, other)
        return gain
    if node.op_type == "Concat" and output in powers:
        return powers[name].elements / max(powers[output].elements, 1.0)
    if node.op_type in SUMS | _KEPT or output not in powers:
        return 1.0
    return powers[output].variance / max(powers[name].variance, 1e-12)


def _share(subject: Subject, powers: Mapping[str, TensorPower], index: int, name: str) -> float:
    node = subject.nodes[index]
    gain = _DAMPING if index in subject.layers else 1.0
    if node.op_type not in SUMS and node.op_type != "Concat":
        return gain
    weights = {found: powers[found].power * powers[found].elements for found in node.input if found in powers}
    return gain * weights[name] / max(sum(weights.values()), 1e-12)


def _constant_power(subject: Subject, name: str) -> float:
    import numpy as np

    value = subject.constant(name)
    if value is None or value.dtype.kind != "f" or not value.size:
        return 1.0
    return float(np.square(value.astype(np.float64)).mean())
