"""How operators that move values pass labels of channels on: Reshape, Transpose, Concat, Split and kin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes
from boardwright.compiler.engine.pruning.labels import fixed

if TYPE_CHECKING:
    import numpy as np

    from boardwright.compiler.engine.pruning.dependencies import Trace

    Array = np.ndarray[Any, Any]

_THROUGH = frozenset(
    {"Mul", "Div", "Add", "Sub", "Softmax", "Cast", "Identity", "Sqrt", "Relu", "Split", "Slice", "Gather"}
)


def concat(trace: Trace, index: int) -> None:
    """Labels one after the other; on the other axes all inputs are tied."""
    import numpy as np

    node = trace.nodes[index]
    made = node.output[0]
    rank = trace.rank(made)
    joined = attributes(node).get("axis", 0) % max(1, rank)
    for axis in range(rank):
        found = [trace.labels_of(name, axis) for name in node.input]
        labelled = [labels for labels in found if labels is not None]
        if not labelled:
            continue
        if axis == joined:
            parts = [
                labels if labels is not None else fixed(trace.shapes[name][axis])
                for name, labels in zip(node.input, found, strict=True)
            ]
            trace.put(made, axis, np.concatenate(parts))
            continue
        for labels in labelled[1:]:
            trace.labels.unite(labelled[0], labels)
        if len(labelled) < len(found):
            trace.labels.freeze(labelled[0])
        trace.put(made, axis, labelled[0])


def split(trace: Trace, index: int) -> None:
    """Each output takes its part."""
    node = trace.nodes[index]
    name = node.input[0]
    along = attributes(node).get("axis", 0) % max(1, trace.rank(name))
    for axis, labels in list(trace.axes.get(name, {}).items()):
        start = 0
        for output in node.output:
            length = trace.shapes[output][axis]
            trace.put(output, axis, labels[start : start + length] if axis == along else labels)
            start += length if axis == along else 0


def cut(trace: Trace, index: int) -> None:
    """Slice: positions from start to end by step."""
    import numpy as np

    node = trace.nodes[index]
    name, rank = node.input[0], trace.rank(node.input[0])
    ranges = slice_ranges(trace, index)
    for axis in range(rank):
        labels = trace.labels_of(name, axis)
        if labels is None:
            continue
        if ranges is None:
            trace.freeze(name, "Slice", axis)
        elif axis not in ranges:
            trace.put(node.output[0], axis, labels)
        else:
            start, end, step = ranges[axis]
            if step != 1:
                trace.freeze(name, "Slice with steps", axis)
            trace.put(node.output[0], axis, np.asarray(labels[slice(start, end, step)]))


def slice_ranges(trace: Trace, index: int) -> dict[int, tuple[int, int, int]] | None:
    """Return (start, end, step) by axis with negative places resolved, None where they are not constant."""
    node = trace.nodes[index]
    shape = trace.shapes[node.input[0]]
    values = [trace.value(name) if name else None for name in node.input[1:]]
    given = [bool(name) for name in node.input[1:]]
    if any(there and value is None for there, value in zip(given, values, strict=True)) or len(values) < 2:
        return None
    starts, ends = values[0], values[1]
    if starts is None or ends is None:
        return None
    axes = values[2] if len(values) > 2 and values[2] is not None else range(len(starts))
    steps = values[3] if len(values) > 3 and values[3] is not None else [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = int(axis) % len(shape)
        if int(step) < 0:
            return None
        begin, stop, stride = slice(int(start), int(end), int(step)).indices(shape[place])
        found[place] = (begin, stop, stride)
    return found


def gather(trace: Trace, index: int) -> None:
    """Constant positions of one axis; what looks up by an activation freezes that axis."""
    import numpy as np

    node = trace.nodes[index]
    name = node.input[0]
    rank = trace.rank(name)
    along = attributes(node).get("axis", 0) % max(1, rank)
    positions = trace.value(node.input[1])
    width = trace.rank(node.input[1])
    for axis, labels in list(trace.axes.get(name, {}).items()):
        if axis != along:
            trace.put(node.output[0], axis if axis < along else axis + width - 1, labels)
        elif positions is None or width != 1:
            trace.freeze(name, "Gather", axis)
        else:
            trace.put(node.output[0], axis, np.asarray(labels[positions.astype(np.int64)]))


def transpose(trace: Trace, index: int) -> None:
    """Axes change places."""
    node = trace.nodes[index]
    rank = trace.rank(node.input[0])
    for place, axis in enumerate(attributes(node).get("perm") or range(rank - 1, -1, -1)):
        trace.put(node.output[0], place, trace.labels_of(node.input[0], axis))


def reshape(trace: Trace, index: int) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: axes are merged and split in row-major order."""
    node = trace.nodes[index]
    name, made = node.input[0], node.output[0]
    if not trace.axes.get(name):
        return
    if node.op_type == "Reshape" and trace.value(node.input[1]) is None:
        trace.freeze(name, "Reshape to a computed shape")
        return
    runs = matching_runs(trace.shapes[name], trace.shapes[made])
    if runs is None:
        trace.freeze(name, node.op_type)
        return
    for before, after in runs:
        _fold(trace, name, made, before, after)


def matching_runs(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Return the smallest runs of axes of equal size in both shapes, without axes of length 1.

    >>> matching_runs((1, 6, 4, 4), (1, 2, 3, 16))
    [((1,), (1, 2)), ((2, 3), (3,))]
    """
    if math.prod(before) != math.prod(after) or not math.prod(before):
        return None
    left = [(axis, length) for axis, length in enumerate(before) if length > 1]
    right = [(axis, length) for axis, length in enumerate(after) if length > 1]
    runs = []
    while left and right:
        first, second = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(n for _, n in first)) != (b := math.prod(n for _, n in second)):
            if a < b:
                first.append(left.pop(0))
            else:
                second.append(right.pop(0))
        runs.append((tuple(axis for axis, _ in first), tuple(axis for axis, _ in second)))
    return runs


def _fold(trace: Trace, name: str, made: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    import numpy as np

    labelled = [axis for axis in before if trace.labels_of(name, axis) is not None]
    if not labelled:
        return
    shape = trace.shapes[name]
    chosen = max(labelled, key=lambda axis: shape[axis])
    for axis in labelled:
        if axis != chosen:
            trace.freeze(name, "Reshape of two pruned axes", axis)
    labels = trace.labels_of(name, chosen)
    if labels is None:
        return
    spread = [1] * len(before)
    spread[before.index(chosen)] = -1
    whole = np.broadcast_to(labels.reshape(spread), [shape[axis] for axis in before])
    if len(after) == 1:
        trace.put(made, after[0], whole.reshape(-1))
        return
    folded = whole.reshape([trace.shapes[made][axis] for axis in after])
    place = _place_to_prune(trace, made, folded, after)
    rows = np.moveaxis(folded, place, 0).reshape(folded.shape[place], -1)
    for row in rows:
        trace.labels.unite_all(row)
    trace.put(made, after[place], np.ascontiguousarray(rows[:, 0]))


def _place_to_prune(trace: Trace, made: str, folded: Array, after: tuple[int, ...]) -> int:
    """Choose along which of the new axes a folded axis may still be pruned.

    An axis along which the labels differ already (a Flatten undone); else the axis of attention heads; else
    the longest (a channel shuffle's channels, not its groups).
    """
    import numpy as np

    for place in range(folded.ndim):
        rows = np.moveaxis(folded, place, 0).reshape(folded.shape[place], -1)
        if (rows == rows[:, :1]).all() and np.unique(rows[:, 0]).size > 1:
            return place
    heads = [place for place, axis in enumerate(after) if _is_batch_of_product(trace, made, axis)]
    if heads:
        return heads[-1]
    return int(np.argmax(folded.shape))


def _is_batch_of_product(trace: Trace, tensor: str, axis: int, depth: int = 12) -> bool:
    """Tell whether an axis becomes a leading axis of a MatMul of two activations: attention's heads."""
    if depth == 0:
        return False
    for index in trace.readers.get(tensor, []):
        node = trace.nodes[index]
        if node.op_type == "MatMul" and not any(map(trace.is_constant, node.input)):
            if axis < trace.rank(tensor) - 2:
                return True
            continue
        following = _place_after(trace, index, tensor, axis)
        if following is not None and any(
            _is_batch_of_product(trace, output, following, depth - 1) for output in node.output if output
        ):
            return True
    return False


def _place_after(trace: Trace, index: int, tensor: str, axis: int) -> int | None:
    """Return where an axis is behind a node, None where it is gone or the node is not looked through."""
    node = trace.nodes[index]
    if node.op_type == "Transpose":
        order = attributes(node).get("perm") or list(range(trace.rank(tensor) - 1, -1, -1))
        return order.index(axis)
    if node.op_type in ("Squeeze", "Unsqueeze", "Reshape"):
        runs = matching_runs(trace.shapes[tensor], trace.shapes[node.output[0]]) or []
        return next((new[0] for old, new in runs if old == (axis,) and len(new) == 1), None)
    if node.op_type not in _THROUGH or node.input[0] != tensor:
        return None
    if node.op_type == "Gather":
        along = attributes(node).get("axis", 0) % trace.rank(tensor)
        dropped = trace.rank(node.input[1]) == 0
        return None if axis == along else axis - 1 if dropped and axis > along else axis
    return axis + trace.rank(node.output[0]) - trace.rank(tensor)


def expand(trace: Trace, index: int) -> None:
    """Expand: axes that keep their length keep their labels."""
    node = trace.nodes[index]
    if trace.value(node.input[1]) is None:
        trace.freeze(node.input[0], node.op_type)
        return
    shift = trace.rank(node.output[0]) - trace.rank(node.input[0])
    for axis, labels in list(trace.axes.get(node.input[0], {}).items()):
        trace.put(node.output[0], axis + shift, labels)


def tile(trace: Trace, index: int) -> None:
    """Tile: labels are repeated."""
    import numpy as np

    node = trace.nodes[index]
    repeats = trace.value(node.input[1])
    if repeats is None:
        trace.freeze(node.input[0], node.op_type)
        return
    for axis, labels in list(trace.axes.get(node.input[0], {}).items()):
        trace.put(node.output[0], axis, np.tile(labels, int(repeats[axis])))


def pad(trace: Trace, index: int) -> None:
    """Constant padding of a pruned axis stays; other modes repeat channels and freeze."""
    import numpy as np

    node = trace.nodes[index]
    name, rank = node.input[0], trace.rank(node.input[0])
    pads = trace.value(node.input[1])
    constant = attributes(node).get("mode", b"constant") == b"constant"
    chosen = list(range(rank))
    if len(node.input) > 3 and node.input[3]:
        axes = trace.value(node.input[3])
        chosen = [] if axes is None else [int(axis) % rank for axis in axes]
        pads = None if axes is None else pads
    for axis, labels in list(trace.axes.get(name, {}).items()):
        if pads is None:
            trace.freeze(name, node.op_type, axis)
            continue
        place = chosen.index(axis) if axis in chosen else None
        low, high = (0, 0) if place is None else (int(pads[place]), int(pads[place + len(chosen)]))
        if (low or high) and (not constant or low < 0 or high < 0):
            trace.freeze(name, node.op_type, axis)
        else:
            trace.put(node.output[0], axis, np.concatenate([fixed(low), labels, fixed(high)]))


def resize(trace: Trace, index: int) -> None:
    """Resize: batch and channels pass."""
    node = trace.nodes[index]
    for axis, labels in list(trace.axes.get(node.input[0], {}).items()):
        if axis > 1 or trace.shapes[node.output[0]][axis] != labels.size:
            trace.freeze(node.input[0], node.op_type, axis)
        else:
            trace.put(node.output[0], axis, labels)


def depth_to_space(trace: Trace, index: int) -> None:
    """Channels that become one channel's block of pixels are tied."""
    node = trace.nodes[index]
    labels = trace.labels_of(node.input[0], 1)
    if labels is None:
        return
    block = attributes(node).get("blocksize", 1) ** 2
    by_depth = attributes(node).get("mode", b"DCR") == b"DCR"
    places = labels.reshape(block, -1) if by_depth else labels.reshape(-1, block).T
    for row in places[1:]:
        trace.labels.unite(places[0], row)
    trace.put(node.output[0], 1, places[0].copy())


def space_to_depth(trace: Trace, index: int) -> None:
    """Each channel becomes one per pixel of a block."""
    import numpy as np

    node = trace.nodes[index]
    labels = trace.labels_of(node.input[0], 1)
    if labels is not None:
        trace.put(node.output[0], 1, np.tile(labels, attributes(node).get("blocksize", 1) ** 2))


RULES: dict[str, Callable[[Trace, int], None]] = {
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Transpose": transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
