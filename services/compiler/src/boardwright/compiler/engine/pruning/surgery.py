"""Remove units from a graph: stored tensors are cut, and the constants of Reshape, Split and kin follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.editing import (
    attributes,
    captured,
    copy_of,
    drop_unread,
    give_constant,
)
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.graph import noise_feed
from boardwright.compiler.engine.pruning.labels import Site

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

Masks = Mapping[int, "Array"]
"""By axis, which of its positions stay, (length,) bool."""
Change = Callable[["Array", Masks, str], "Array"]

_SAME_WITHIN = 1e-3
"""Of the outputs' largest value: kernels add up fewer numbers in another order. A wrong cut is far beyond."""


def remove_units(found: Dependencies, labels: Iterable[int]) -> onnx.ModelProto:
    """Return the graph without the units ``labels``, smaller by their rows, columns and biases.

    Raises:
        EngineError: PRUNED_MODEL_REFUSED, when the result does not load.
    """
    import onnx

    removed = set(labels)
    pruned = _with_changed_tensors(found, removed, _cut)
    patcher = _Patcher(found, removed, pruned.graph)
    for old, node in zip(found.model.graph.node, pruned.graph.node, strict=True):
        patcher.patch(old, node)
    drop_unread(pruned.graph)
    del pruned.graph.value_info[:]
    try:
        pruned = onnx.shape_inference.infer_shapes(pruned, strict_mode=False, data_prop=True)
        onnx.checker.check_model(pruned)
        open_session(pruned)
    except (EngineError, onnx.checker.ValidationError, RuntimeError) as error:
        raise EngineError(
            "PRUNED_MODEL_REFUSED",
            f"The pruned graph does not load: {str(error).splitlines()[0][:400]}. Exclude the layers that it "
            "names.",
        ) from error
    return pruned


def mask_units(found: Dependencies, labels: Iterable[int]) -> onnx.ModelProto:
    """Return the graph with the units zeroed instead of removed: it computes the same and keeps its shape."""
    return _with_changed_tensors(found, set(labels), _zero)


def check_equal(found: Dependencies, labels: Iterable[int], pruned: onnx.ModelProto) -> float:
    """Return the largest difference between the pruned and the zeroed graph on noise, over the outputs' size.

    Raises:
        EngineError: PRUNING_DIFFERS, when removing computes something else than zeroing.
    """
    import numpy as np

    feed = noise_feed(found.model)
    expected = open_session(mask_units(found, labels)).run(None, feed)
    actual = open_session(pruned).run(None, feed)
    worst = 0.0
    for ours, theirs in zip(actual, expected, strict=True):
        same_shape = np.shape(ours) == np.shape(theirs)
        scale = float(np.abs(theirs).max(initial=0.0)) if same_shape else 0.0
        off = (
            float(np.abs(np.subtract(ours, theirs, dtype=np.float64)).max(initial=0.0)) if same_shape else 1e9
        )
        worst = max(worst, off / max(scale, 1e-6))
    if not worst <= _SAME_WITHIN:
        raise EngineError(
            "PRUNING_DIFFERS",
            f"Removing channels changes the outputs by {worst:.2g} against zeroing them: an operator of this "
            "graph is not followed correctly. Exclude layers until it is found, and report the graph.",
        )
    return worst


def keep(labels: Array, removed: set[int]) -> Array:
    """Return which positions stay, (length,) bool."""
    import numpy as np

    stays: Array = ~np.isin(labels, list(removed))
    return stays


def _cut(tensor: Array, masks: Masks, role: str) -> Array:
    import numpy as np

    for axis, mask in masks.items():
        tensor = np.compress(mask, tensor, axis=axis)
    return np.ascontiguousarray(tensor)


def _zero(tensor: Array, masks: Masks, role: str) -> Array:
    import numpy as np

    if role == "value":
        return tensor
    zeroed = np.array(tensor)
    for axis, mask in masks.items():
        zeroed[(slice(None),) * axis + (~mask,)] = 0
    return zeroed


def _with_changed_tensors(found: Dependencies, removed: set[int], change: Change) -> onnx.ModelProto:
    """Change each use of a stored tensor; uses that change alike keep sharing it."""
    from onnx import numpy_helper

    changed = copy_of(found.model)
    stored = {tensor.name: tensor for tensor in found.model.graph.initializer}
    uses: dict[tuple[int, int], list[Site]] = {}
    for site in found.sites:
        if not keep(site.labels, removed).all():
            uses.setdefault((site.node, site.slot), []).append(site)
    total = Counter(_reads(found.model.graph))
    versions: dict[str, dict[bytes, tuple[str, list[tuple[int, int]]]]] = {}
    taken = set(stored)
    for (index, slot), sites in uses.items():
        masks = {site.axis: keep(site.labels, removed) for site in sites}
        key = b"".join(bytes([axis]) + mask.tobytes() for axis, mask in sorted(masks.items()))
        known = versions.setdefault(sites[0].tensor, {})
        if key not in known:
            name = _free_name(f"{sites[0].tensor}_pruned", taken)
            array = change(numpy_helper.to_array(stored[sites[0].tensor]), masks, sites[0].role)
            changed.graph.initializer.append(numpy_helper.from_array(array, name))
            known[key] = (name, [])
        changed.graph.node[index].input[slot] = known[key][0]
        known[key][1].append((index, slot))
    _restore_names(changed.graph, versions, total)
    return changed


def _free_name(base: str, taken: set[str]) -> str:
    """Return a name that no stored tensor has, an earlier round's among them, and take it."""
    name = next(name for number in count() if (name := f"{base}_{number}") not in taken)
    taken.add(name)
    return name


def _restore_names(
    graph: onnx.GraphProto,
    versions: Mapping[str, Mapping[bytes, tuple[str, list[tuple[int, int]]]]],
    total: Mapping[str, int],
) -> None:
    """Let a tensor keep its name where all of its uses changed alike: training finds weights by name."""
    new = {tensor.name: tensor for tensor in graph.initializer}
    dropped = set()
    for name, known in versions.items():
        ((temporary, places), *others) = known.values()
        if others or len(places) != total[name]:
            continue
        new[name].CopyFrom(new[temporary])
        new[name].name = name
        dropped.add(temporary)
        for index, slot in places:
            graph.node[index].input[slot] = name
    kept = [tensor for tensor in graph.initializer if tensor.name not in dropped]
    del graph.initializer[:]
    graph.initializer.extend(kept)


class _Patcher:
    """Lets the constants and attributes of a pruned graph's nodes follow what their inputs lost."""

    def __init__(self, found: Dependencies, removed: set[int], graph: onnx.GraphProto) -> None:
        self._found = found
        self._removed = removed
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}

    def patch(self, old: onnx.NodeProto, node: onnx.NodeProto) -> None:
        """Change ``node``, which is ``old`` in the graph that is pruned."""
        made, given = self._stays(old.output[0]), self._stays(old.input[0]) if old.input else {}
        if all(mask.all() for mask in [*made.values(), *given.values()]):
            return
        if old.op_type in ("Conv", "ConvTranspose"):
            self._groups(old, node, made)
        elif old.op_type in ("Reshape", "Expand"):
            self._shape(node, 1, {axis: int(mask.sum()) for axis, mask in made.items()})
        elif old.op_type in ("Resize", "Upsample"):
            self._resize(node, made)
        elif old.op_type == "Split":
            self._split(old, node)
        elif old.op_type == "Slice":
            self._slice(old, node, given)
        elif old.op_type == "Gather":
            self._gather(old, node, given, made)

    def _stays(self, tensor: str) -> Masks:
        """Return which positions of each labelled axis stay."""
        axes = self._found.axes.get(tensor, {})
        return {axis: keep(labels, self._removed) for axis, labels in axes.items()}

    def _groups(self, old: onnx.NodeProto, node: onnx.NodeProto, made: Masks) -> None:
        groups = attributes(old).get("group", 1)
        if groups > 1 and self._found.shapes[old.input[1]][1] == 1 and 1 in made:
            _set(node, "group", int(made[1].sum()) // (made[1].size // groups))

    def _shape(self, node: onnx.NodeProto, slot: int, lengths: Mapping[int, int]) -> None:
        value = self._value(node.input[slot])
        if value is None:
            return
        changed = value.copy()
        for axis, length in lengths.items():
            if changed[axis] > 0:
                changed[axis] = length
        self._store(node, slot, changed)

    def _resize(self, node: onnx.NodeProto, made: Masks) -> None:
        if len(node.input) < 4 or not node.input[3]:
            return
        axes = attributes(node).get("axes")
        lengths = {axis: int(mask.sum()) for axis, mask in made.items()}
        if axes is not None:
            lengths = {axes.index(axis): length for axis, length in lengths.items() if axis in axes}
        self._shape(node, 3, lengths)

    def _split(self, old: onnx.NodeProto, node: onnx.NodeProto) -> None:
        import numpy as np

        shapes = self._found.shapes
        along = attributes(old).get("axis", 0) % len(shapes[old.input[0]])
        sizes = []
        for output in old.output:
            mask = self._stays(output).get(along)
            sizes.append(shapes[output][along] if mask is None else int(mask.sum()))
        _set(node, "num_outputs", None)
        self._store(node, 1, np.array(sizes, np.int64))

    def _slice(self, old: onnx.NodeProto, node: onnx.NodeProto, given: Masks) -> None:
        import numpy as np

        shape = self._found.shapes[old.input[0]]
        starts, ends = self._value(old.input[1]), self._value(old.input[2])
        if starts is None or ends is None:
            return
        axes = self._value(old.input[3]) if len(old.input) > 3 and old.input[3] else None
        chosen = [int(axis) % len(shape) for axis in (axes if axes is not None else range(len(starts)))]
        starts, ends = starts.astype(np.int64), ends.astype(np.int64)
        for place, axis in enumerate(chosen):
            if axis in given:
                begin, stop, _ = slice(int(starts[place]), int(ends[place])).indices(shape[axis])
                starts[place], ends[place] = int(given[axis][:begin].sum()), int(given[axis][:stop].sum())
        if axes is not None and axes.dtype != np.int64:
            self._store(node, 3, axes.astype(np.int64))
        if len(old.input) > 4 and (steps := self._value(old.input[4])) is not None:
            self._store(node, 4, steps.astype(np.int64))
        self._store(node, 1, starts)
        self._store(node, 2, ends)

    def _gather(self, old: onnx.NodeProto, node: onnx.NodeProto, given: Masks, made: Masks) -> None:
        import numpy as np

        along = attributes(old).get("axis", 0) % len(self._found.shapes[old.input[0]])
        positions = self._value(old.input[1])
        if along not in given or positions is None:
            return
        positions = positions.astype(np.int64)
        positions = np.where(positions < 0, positions + given[along].size, positions)
        ranks = np.cumsum(given[along]) - 1
        stays = made.get(along, np.ones(positions.size, dtype=bool))
        self._store(node, 1, ranks[positions[stays]] if positions.ndim else ranks[positions])

    def _value(self, name: str) -> Array | None:
        from onnx import numpy_helper

        return numpy_helper.to_array(self._stored[name]) if name in self._stored else None

    def _store(self, node: onnx.NodeProto, slot: int, value: Array) -> None:
        give_constant(self._graph, self._stored, node, slot, f"{node.name}_pruned_{slot}", value)


def _set(node: onnx.NodeProto, name: str, value: int | None) -> None:
    """Replace an attribute; None takes it away."""
    import onnx

    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))


def _reads(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the name of a tensor for each node that reads it, itself or by its branches, and each output."""
    for node in graph.node:
        yield from node.input
        yield from captured(node)
    for value in graph.output:
        yield value.name
