"""Remove units from a graph: stored tensors are cut, and the constants of Reshape, Split and kin follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.pruning.attributes import integer, integers, set_attribute
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.graph import zero_feed
from boardwright.compiler.engine.pruning.labels import Site

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

Change = Callable[["Array", Mapping[int, "Array"], str], "Array"]

_SAME_WITHIN = 1e-3


def remove_units(found: Dependencies, labels: Iterable[int]) -> onnx.ModelProto:
    """Return the graph without the units ``labels``, smaller by their rows, columns and biases.

    Raises:
        EngineError: PRUNED_MODEL_REFUSED, when the result does not load.
    """
    import onnx

    removed = set(labels)
    pruned = _with_changed_tensors(found, removed, _cut)
    for index, node in enumerate(found.model.graph.node):
        _patch(found, removed, node, pruned.graph, pruned.graph.node[index])
    _drop_unused(pruned.graph)
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

    feed = zero_feed(found.model)
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


def _cut(tensor: Array, masks: Mapping[int, Array], role: str) -> Array:
    import numpy as np

    for axis, mask in masks.items():
        tensor = np.compress(mask, tensor, axis=axis)
    return np.ascontiguousarray(tensor)


def _zero(tensor: Array, masks: Mapping[int, Array], role: str) -> Array:
    import numpy as np

    if role == "value":
        return tensor
    zeroed = np.array(tensor)
    for axis, mask in masks.items():
        zeroed[(slice(None),) * axis + (~mask,)] = 0
    return zeroed


def _with_changed_tensors(found: Dependencies, removed: set[int], change: Change) -> onnx.ModelProto:
    """Change each use of a stored tensor; uses that change alike keep sharing it."""
    import onnx
    from onnx import numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(found.model)
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


def _patch(
    found: Dependencies,
    removed: set[int],
    old: onnx.NodeProto,
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
) -> None:
    """Let the constants of one node follow what its inputs lost."""
    made = {axis: keep(labels, removed) for axis, labels in found.axes.get(old.output[0], {}).items()}
    given = (
        {axis: keep(labels, removed) for axis, labels in found.axes.get(old.input[0], {}).items()}
        if (old.input)
        else {}
    )
    if all(mask.all() for mask in [*made.values(), *given.values()]):
        return
    if old.op_type in ("Conv", "ConvTranspose"):
        _patch_groups(found, old, node, made)
    elif old.op_type in ("Reshape", "Expand"):
        _patch_shape(graph, node, 1, {axis: int(mask.sum()) for axis, mask in made.items()})
    elif old.op_type in ("Resize", "Upsample"):
        _patch_resize(graph, node, made)
    elif old.op_type == "Split":
        _patch_split(found, removed, old, graph, node)
    elif old.op_type == "Slice":
        _patch_slice(found, old, graph, node, given)
    elif old.op_type == "Gather":
        _patch_gather(found, old, graph, node, given, made)


def _patch_groups(
    found: Dependencies, old: onnx.NodeProto, node: onnx.NodeProto, made: Mapping[int, Array]
) -> None:
    groups = integer(old, "group", 1)
    weight = found.shapes[old.input[1]]
    if groups > 1 and weight[1] == 1 and 1 in made:
        per_group = made[1].size // groups
        set_attribute(node, "group", int(made[1].sum()) // per_group)


def _patch_shape(graph: onnx.GraphProto, node: onnx.NodeProto, slot: int, lengths: Mapping[int, int]) -> None:
    value = _stored(graph, node.input[slot])
    if value is None:
        return
    changed = value.copy()
    for axis, length in lengths.items():
        if changed[axis] > 0:
            changed[axis] = length
    _store(graph, node, slot, changed)


def _patch_resize(graph: onnx.GraphProto, node: onnx.NodeProto, made: Mapping[int, Array]) -> None:
    if len(node.input) < 4 or not node.input[3]:
        return
    axes = integers(node, "axes")
    lengths = {axis: int(mask.sum()) for axis, mask in made.items()}
    if axes is not None:
        lengths = {axes.index(axis): length for axis, length in lengths.items() if axis in axes}
    _patch_shape(graph, node, 3, lengths)


def _patch_split(
    found: Dependencies,
    removed: set[int],
    old: onnx.NodeProto,
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
) -> None:
    import numpy as np

    along = integer(old, "axis", 0) % len(found.shapes[old.input[0]])
    sizes = []
    for output in old.output:
        labels = found.axes.get(output, {}).get(along)
        sizes.append(found.shapes[output][along] if labels is None else int(keep(labels, removed).sum()))
    kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
    del node.attribute[:]
    node.attribute.extend(kept)
    _store(graph, node, 1, np.array(sizes, np.int64))


def _patch_slice(
    found: Dependencies,
    old: onnx.NodeProto,
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    given: Mapping[int, Array],
) -> None:
    import numpy as np

    shape = found.shapes[old.input[0]]
    starts, ends = _stored(graph, old.input[1]), _stored(graph, old.input[2])
    if starts is None or ends is None:
        return
    axes = _stored(graph, old.input[3]) if len(old.input) > 3 and old.input[3] else None
    chosen = [int(axis) % len(shape) for axis in (axes if axes is not None else range(len(starts)))]
    starts, ends = starts.astype(np.int64), ends.astype(np.int64)
    for place, axis in enumerate(chosen):
        if axis in given:
            begin, stop, _ = slice(int(starts[place]), int(ends[place])).indices(shape[axis])
            starts[place], ends[place] = int(given[axis][:begin].sum()), int(given[axis][:stop].sum())
    if axes is not None and axes.dtype != np.int64:
        _store(graph, node, 3, axes.astype(np.int64))
    if len(old.input) > 4 and (steps := _stored(graph, old.input[4])) is not None:
        _store(graph, node, 4, steps.astype(np.int64))
    _store(graph, node, 1, starts)
    _store(graph, node, 2, ends)


def _patch_gather(
    found: Dependencies,
    old: onnx.NodeProto,
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    given: Mapping[int, Array],
    made: Mapping[int, Array],
) -> None:
    import numpy as np

    along = integer(old, "axis", 0) % len(found.shapes[old.input[0]])
    positions = _stored(graph, old.input[1])
    if along not in given or positions is None:
        return
    positions = positions.astype(np.int64)
    positions = np.where(positions < 0, positions + given[along].size, positions)
    ranks = np.cumsum(given[along]) - 1
    stays = made.get(along, np.ones(positions.size, dtype=bool))
    _store(graph, node, 1, ranks[positions[stays]] if positions.ndim else ranks[positions])


def _stored(graph: onnx.GraphProto, name: str) -> Array | None:
    from onnx import numpy_helper

    found = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    return None if found is None else numpy_helper.to_array(found)


def _store(graph: onnx.GraphProto, node: onnx.NodeProto, slot: int, value: Array) -> None:
    """Give a node a constant of its own: others may read the one it had."""
    from onnx import numpy_helper

    name = f"{node.name}_pruned_{slot}"
    known = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    tensor = numpy_helper.from_array(value, name)
    if known is not None:
        known.CopyFrom(tensor)
    else:
        graph.initializer.append(tensor)
    while len(node.input) <= slot:
        node.input.append("")
    node.input[slot] = name


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = set(_reads(graph))
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _reads(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the name of a tensor as often as it is read, by nodes, by graphs within them, as an output."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _reads(inner)
    for value in graph.output:
        yield value.name
