"""Rule ``answer``: small last layers of a dense head, and what feeds them.

A dense head answers for every cell of the image by last layers of its own, often one for each scale. What
such a layer's input is rounded to stands in the box and in the score: no pooling averages it, no later
layer corrects it. Where a last layer has few of the network's multiplications and weights, floating point
costs next to nothing there; so it does in the layer in front of it, whose output is then not rounded on
this way at all. The large ones, those of the finest scale, stay integers: on a CPU they would cost latency,
and there is the least to gain (many cells share what they say).

On YOLOv5n what feeds the last layers of the two coarse scales (2.3 % of the multiplications) made half of all
that rounding does to boxes: without it mAP against FP32's own boxes rises from 90.5 to 92.7 %, and the time
of a run by less than 0.01 of FP32's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from boardwright.compiler.engine.protect.exclusion import Exclusion
from boardwright.compiler.engine.protect.structure import Subject, with_followers

_LAYER_MACS = 0.025
_ALL_MACS = 0.06
_LAYER_WEIGHTS = 0.05


def find_answers(subject: Subject, taken: set[int]) -> list[tuple[Exclusion, set[int]]]:
    """Return last convolutions over cells, then what feeds them, each time the smallest first.

    All together cost next to nothing. CPUs take part, and what runs layers in float16 itself: leaving another
    accelerator has a price that is not known here.
    """
    scheme = subject.scheme
    leaves = not scheme.per_channel or scheme.activation_symmetric
    if leaves and scheme.float16 != "inside":
        return []
    macs, weights = subject.macs, {index: _weights(subject, index) for index in subject.layers}
    all_macs, most_weights = max(sum(macs.values()), 1), _LAYER_WEIGHTS * max(sum(weights.values()), 1)
    shares: dict[int, float] = {}
    chosen: set[int] = set()

    def take(candidates: Mapping[int, set[int]]) -> None:
        """Choose layers, the smallest first, each with the nodes that go with it, while they cost nothing."""
        for index in sorted(candidates.keys() - taken, key=lambda index: (macs[index], index)):
            share = macs[index] / all_macs
            is_small = 0 < share <= _LAYER_MACS and weights[index] <= most_weights
            if is_small and share + sum(shares.values()) <= _ALL_MACS:
                shares[index] = share
                chosen.update(candidates[index])

    take({index: {index} for index in subject.topology.last_layers if _is_dense(subject, index)})
    take({feeder: members for index in shares for feeder, members in _feeders(subject, index)})
    if not chosen:
        return []
    names, spent = subject.names(shares), sum(shares.values())
    reason = (
        f"{', '.join(names[:3])}{'…' if len(names) > 3 else ''} answer for the cells of the image, or feed "
        f"what does: no later layer evens out their rounding, and they have {spent:.1%} of the "
        "multiplications."
    )
    return [(Exclusion("answer", subject.names(chosen), reason), chosen)]


def _feeders(subject: Subject, index: int) -> Iterator[tuple[int, set[int]]]:
    """Give the convolution whose outputs, elementwise operators apart, are all that ``index`` reads."""
    topology = subject.topology
    between = topology.walk([index], topology.producers, lambda node: node in subject.layers)
    before = {producer for node in between | {index} for producer in topology.producers(node)} - between
    if len(before) == 1 and _is_dense(subject, feeder := before.pop()):
        members = with_followers(subject, feeder)
        if between <= members:
            yield feeder, members


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
