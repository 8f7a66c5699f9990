"""Rule ``answer``: small last layers of a dense head.

A dense head answers for every cell of the image by last layers of its own, often one for each scale. What
such a layer's input is rounded to stands in the box and in the score: no pooling averages it, no later
layer corrects it. Where a last layer has few of the network's multiplications and weights, floating point
costs next to nothing there. The large ones, those of the finest scale, stay integers: on a CPU they would
cost latency, and there is the least to gain (many cells share what they say).
"""

from __future__ import annotations

import math

from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import Subject

_LAYER_MACS = 0.025
_ALL_MACS = 0.04
_LAYER_WEIGHTS = 0.05


def find_answers(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return the last convolutions over cells, the smallest first, while they cost next to nothing.

    CPU kernels alone take part: leaving an accelerator has a price that is not known here.
    """
    scheme = subject.scheme
    if not scheme.per_channel or scheme.activation_symmetric:
        return []
    macs = subject.macs
    weights = {index: _weights(subject, index) for index in subject.layers}
    all_macs, all_weights = max(sum(macs.values()), 1), max(sum(weights.values()), 1)
    chosen: set[int] = set()
    spent = 0.0
    for index in sorted(subject.topology.last_layers, key=lambda index: (macs[index], index)):
        share = macs[index] / all_macs
        if index in taken or not _is_dense(subject, index) or not macs[index]:
            continue
        if share > _LAYER_MACS or weights[index] / all_weights > _LAYER_WEIGHTS or spent + share > _ALL_MACS:
            continue
        chosen.add(index)
        spent += share
    if not chosen:
        return []
    names = subject.names(chosen)
    reason = (
        f"{', '.join(names[:3])}{'…' if len(names) > 3 else ''} answer for the cells of the image: no later "
        f"layer evens out their rounding, and they have {spent:.1%} of the multiplications."
    )
    return [(Exclusion("answer", names, reason), chosen)]


def has_dense_head(subject: Subject) -> bool:
    """Tell whether a last layer answers for every cell of an image, as those of detectors do."""
    return any(_is_dense(subject, index) for index in subject.topology.last_layers)


def _is_dense(subject: Subject, index: int) -> bool:
    node = subject.nodes[index]
    shape = subject.shape(node.output[0])
    return node.op_type == "Conv" and shape is not None and math.prod(shape[2:]) > 1


def _weights(subject: Subject, index: int) -> int:
    return max(
        (math.prod(subject.shape(name) or (0,)) for name in subject.nodes[index].input[1:2]), default=0
    )
