"""The optimised graph with what reads its tensors: reductions, samples and means, gathered in few outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.prepare import opset_of
from boardwright.compiler.engine.observe.optimised import BLOCKED_DOMAIN, OptimisedGraph, Place
from boardwright.compiler.engine.observe.views import View, blocked_view, plain_view, sampled_view

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

LOW, HIGH, MEAN, SAMPLE = (f"boardwright_{part}" for part in ("low", "high", "mean", "sample"))
PHASE = "boardwright_phase"
_AXES_AS_INPUT = 18  # the opset from which reductions take their axes as an input


@dataclass(frozen=True, slots=True)
class Segment:
    """Where a tensor's figures are in a gathered output. ``taken`` counts the sampled positions."""

    tensor: str
    view: View
    start: int
    stop: int
    taken: int = 0

    def of(self, gathered: Array) -> Array:
        """Return this segment of an output whose last axis is the gathered one."""
        found: Array = gathered[..., self.start : self.stop]
        return found


@dataclass(slots=True)
class Probes:
    """A graph that gives figures instead of answers.

    ``ranges``, ``samples`` and ``means`` lay out the outputs LOW and HIGH, SAMPLE, and MEAN. ``whole`` maps
    tensors to outputs that hold all of their values, with their view where the shape is known.
    """

    model: onnx.ModelProto
    ranges: list[Segment] = field(default_factory=list)
    samples: list[Segment] = field(default_factory=list)
    means: list[Segment] = field(default_factory=list)
    whole: dict[str, tuple[str, View | None]] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """The outputs to ask for."""
        return [value.name for value in self.model.graph.output]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read: ranges of ``measured``, distributions of those and ``joined``, means of ``averaged``.

    ``shapes`` are the tensors' shapes as far as they are known, ``channels_last`` those whose channels are
    the last axis. ``checked`` are tensors whose mean is looked at for NaN alone, which a minimum may miss.
    """

    measured: Sequence[str]
    joined: Sequence[str]
    averaged: Sequence[str]
    checked: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]
    channels_last: frozenset[str]
    values_per_sample: int | None


def add_probes(graph: OptimisedGraph, wanted: Wanted) -> Probes:
    """Return ``graph`` with its probes; ``wanted.values_per_sample`` None reads every value."""
    return _Builder(graph, wanted).build()


class _Builder:
    def __init__(self, graph: OptimisedGraph, wanted: Wanted) -> None:
        self._graph, self._wanted = graph, wanted
        self._model = graph.model
        self._nodes_before = len(graph.model.graph.node)
        self._inputs = {value.name for value in self._model.graph.input}
        self._axes_as_input = opset_of(self._model) >= _AXES_AS_INPUT
        self._stored: set[str] = set()
        self._gathered: dict[str, list[str]] = {LOW: [], HIGH: [], MEAN: [], SAMPLE: []}
        self._lengths = dict.fromkeys(self._gathered, 0)
        self._probes = Probes(self._model)

    def build(self) -> Probes:
        import onnx

        graph = self._model.graph
        for name in self._wanted.measured:
            self._read(name, ranged=True)
        for name in self._wanted.joined:
            self._read(name, ranged=False)
        for name in self._wanted.averaged:
            self._average(name, per_channel=True)
        for name in self._wanted.checked:
            self._average(name, per_channel=False)
        for output, parts in self._gathered.items():
            if parts:
                self._node("Concat", parts, output, axis=0)
                graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
        if any(segment.taken < segment.view.positions for segment in self._probes.samples):
            graph.input.append(onnx.helper.make_tensor_value_info(PHASE, onnx.TensorProto.INT64, []))
        for output in dict.fromkeys(output for output, _ in self._probes.whole.values()):
            if output not in self._inputs:
                graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
        self._interleave()
        return self._probes

    def _interleave(self) -> None:
        """Put each probe right behind what it reads, which is in the cache then and freed afterwards."""
        nodes = list(self._model.graph.node)
        made_at: dict[str, int] = {}
        places = []
        for index, node in enumerate(nodes):
            place = index
            if index >= self._nodes_before:
                place = max((made_at.get(name, -1) for name in node.input), default=-1)
            made_at.update(dict.fromkeys(node.output, place))
            places.append((place, index))
        del self._model.graph.node[:]
        self._model.graph.node.extend(nodes[index] for _, index in sorted(places))

    def _read(self, name: str, ranged: bool) -> None:
        place, view = self._locate(name)
        if place is None:
            return
        if view is None:
            self._probes.whole[name] = (place.name, None)
            return
        if not view.size:
            return
        if ranged:
            self._range(name, place, view)
        if self._wanted.values_per_sample is None:
            self._probes.whole[name] = (place.name, view)
        else:
            self._sample(name, place, view, self._wanted.values_per_sample)

    def _locate(self, name: str) -> tuple[Place | None, View | None]:
        place = self._graph.places.get(name)
        shape = self._wanted.shapes.get(name)
        if place is None or shape is None:
            return place, None
        if place.blocked:
            return place, blocked_view(shape, self._graph.block)
        return place, plain_view(shape, name in self._wanted.channels_last)

    def _range(self, name: str, place: Place, view: View) -> None:
        shaped = self._reshape(place.name, _axes(view))
        for output, operator in ((LOW, "ReduceMin"), (HIGH, "ReduceMax")):
            start, stop = self._gather(output, self._reduce(operator, shaped, view, place), view.columns)
        self._probes.ranges.append(Segment(name, view, start, stop))

    def _average(self, name: str, per_channel: bool) -> None:
        place, view = self._locate(name)
        if place is None or view is None or not view.size:
            return
        if not per_channel:
            view = View(1, view.size, 1, 1, 1, None)
        if place.blocked and view.positions > 1 and per_channel:
            result = f"{MEAN}_of_{place.name}"
            self._node("GlobalAveragePool", [place.name], result, domain=BLOCKED_DOMAIN)
        else:
            shaped = self._reshape(place.name, _axes(view))
            result = self._reduce("ReduceMean", shaped, view, place)
        start, stop = self._gather(MEAN, result, view.columns)
        self._probes.means.append(Segment(name, view, start, stop))

    def _sample(self, name: str, place: Place, view: View, values: int) -> None:
        seen, taken = sampled_view(view, values)
        found = place.name
        if taken < seen.positions:
            shaped = self._reshape(place.name, (seen.outer, seen.positions, seen.lanes))
            found = f"{SAMPLE}_of_{name}"
            self._node("Gather", [shaped, self._positions(seen.positions, taken)], found, axis=1)
        start, stop = self._gather(SAMPLE, found, seen.outer * taken * seen.lanes)
        self._probes.samples.append(Segment(name, seen, start, stop, taken))

    def _positions(self, count: int, taken: int) -> str:
        """Return the positions to sample: a random one in each of ``taken`` strata, moved by the phase."""
        import numpy as np

        at = f"boardwright_at_{count}_{taken}"
        if at not in self._stored:
            edges = np.linspace(0, count, taken + 1)
            jitter = np.random.default_rng(count).random(taken)
            base = np.minimum((edges[:-1] + jitter * np.diff(edges)).astype(np.int64), count - 1)
            start = self._constant(f"{at}_base", base)
            length = self._constant(f"boardwright_count_{count}", np.array(count, np.int64))
            self._node("Add", [start, PHASE], f"{at}_moved")
            self._node("Mod", [f"{at}_moved", length], at)
        return at

    def _reduce(self, operator: str, shaped: str, view: View, place: Place) -> str:
        import numpy as np

        if view.positions == 1:
            return shaped
        result = f"boardwright_{operator}_{view.outer}_{view.lanes}_of_{place.name}"
        if self._axes_as_input:
            axis = self._constant("boardwright_axis_1", np.array([1], np.int64))
            self._node(operator, [shaped, axis], result, keepdims=0)
        else:
            self._node(operator, [shaped], result, keepdims=0, axes=[1])
        return result

    def _gather(self, output: str, found: str, length: int) -> tuple[int, int]:
        flat = self._reshape(found, (-1,))
        self._gathered[output].append(flat)
        start = self._lengths[output]
        self._lengths[output] = start + length
        return start, start + length

    def _reshape(self, name: str, shape: tuple[int, ...]) -> str:
        import numpy as np

        text = "_".join(map(str, shape)).replace("-1", "flat")
        result = f"boardwright_as_{text}_{name}"
        wanted = self._constant(f"boardwright_shape_{text}", np.array(shape, np.int64))
        self._node("Reshape", [name, wanted], result)
        return result

    def _constant(self, name: str, value: Array) -> str:
        from onnx import numpy_helper

        if name not in self._stored:
            self._stored.add(name)
            self._model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **options: Any) -> None:
        from onnx import helper

        if output not in self._stored:
            self._stored.add(output)
            node = helper.make_node(operator, inputs, [output], name=output, **options)
            self._model.graph.node.append(node)


def _axes(view: View) -> tuple[int, ...]:
    """Return the shape to reduce axis 1 of; an axis of length 1 would make the runtime far slower."""
    return (view.outer, view.positions, view.lanes) if view.lanes > 1 else (view.outer, view.positions)


def channels_last(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """Yield the tensors of three and more axes whose channels are the last one.

    Those are what MatMul and LayerNormalization read and write, and of three axes all that no Conv touches.
    """
    convolved, multiplied = set(), set()
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization"):
            convolved |= {*node.input[:1], *node.output[:1]}
        elif node.op_type in ("MatMul", "LayerNormalization", "Softmax"):
            multiplied |= {*node.input, *node.output}
    for name, shape in shapes.items():
        last = len(shape) == 3 or (len(shape) > 3 and name in multiplied)
        if last and name not in convolved:
            yield name
