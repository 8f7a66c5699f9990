"""Rule ``weights``: layers whose channels differ too much for one scale, where the kernels want one scale.

Under a per-tensor scheme a channel whose weights are 1/64 of the largest keeps two of 127 levels. Depthwise
layers after folded batch norms are like that. Equalisation (pass ``recover``) often heals them and is cheaper
than floating point: this rule speaks of what is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.layers import output_axis
from boardwright.compiler.engine.graph.topology import describe
from boardwright.compiler.engine.grid import round_weight
from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import Subject
from boardwright.compiler.engine.scheme import QuantizationScheme
from boardwright.compiler.engine.sqnr import decibels

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_HOPELESS_DB = 6.0
_HOPELESS_SHARE = 0.25
"""Once channels that never change are gone, MobileNetV1 has no such layer, nor at 12 dB and 5 %. YOLOv5n,
YOLOv8n, YOLO11n and YOLO26n have no such channel, nor at 12 dB. No network that needs the rule was swept."""
_DEAD = 1e-5  # below this share of the largest weight a channel gives its bias and nothing else


def find_spread_weights(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the layers of which a quarter of the channels would keep less than 6 dB under one scale."""
    import numpy as np

    if subject.scheme.per_channel:
        return []
    found = []
    for index in sorted(subject.layers - taken):
        weight = channels_first(subject, index)
        if weight is None or weight.shape[0] < 2:
            continue
        kept = per_tensor_sqnr_db(weight, subject.scheme)
        magnitudes = np.abs(weight).max(axis=1)
        hopeless = (kept < _HOPELESS_DB) & (magnitudes > _DEAD * magnitudes.max())
        if hopeless.mean() < _HOPELESS_SHARE:
            continue
        least = float(magnitudes[hopeless].min())
        found.append(
            (
                Exclusion(
                    "weights",
                    subject.names({index}),
                    f"{describe(subject.nodes[index])} has {weight.shape[0]} channels whose weights reach "
                    f"from {least:.3g} to {float(magnitudes.max()):.3g}: under the one scale that "
                    f"{subject.scheme.label} allows, {int(hopeless.sum())} of them drown in their own "
                    "rounding. Equalising the layers first (pass recover) may let it be quantized.",
                ),
                {index},
            )
        )
    return found


def per_tensor_sqnr_db(weight: Array, scheme: QuantizationScheme) -> Array:
    """Return what each channel of ``weight`` (O, I) keeps under one scale, in decibels (O,)."""
    import numpy as np

    exact = weight.astype(np.float64)
    signal = np.square(exact).sum(axis=1)
    noise = np.square(round_weight(weight, replace(scheme, per_channel=False)) - exact).sum(axis=1)
    return np.array([decibels(*of_channel) for of_channel in zip(noise, signal, strict=True)])


def channels_first(subject: Subject, index: int) -> Array | None:
    """Return a layer's constant weight as (output channels, rest), or None where it is of another form."""
    node: onnx.NodeProto = subject.nodes[index]
    name = node.input[1] if len(node.input) > 1 else ""
    weight = subject.constant(name)
    if weight is None or weight.dtype.kind != "f" or weight.ndim < 2:
        return None
    axis = output_axis(node, weight.ndim)
    if axis is None:
        return None
    import numpy as np

    rows: Array = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return rows
