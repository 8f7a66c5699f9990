"""What happens before the first sample and after the last: plan what to read, and assemble what was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from boardwright.compiler.engine.graph.editing import copy_of
from boardwright.compiler.engine.graph.inspect import fix_input_shape, graph_inputs
from boardwright.compiler.engine.observe.derived import Derivation
from boardwright.compiler.engine.observe.graph_values import layer_inputs
from boardwright.compiler.engine.observe.optimised import (
    OptimisedGraph,
    fuse,
    lay_out,
    leave_as_is,
    tensors_of,
)
from boardwright.compiler.engine.observe.plan import ObservationPlan, plan_observation
from boardwright.compiler.engine.observe.probes import Probes, Wanted, add_probes, channels_last
from boardwright.compiler.engine.observe.record import ChannelStatistics, TensorStatistics, taken_over_from

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Setup:
    """How every tensor is known: the plan, its functions, and the tensors whose channel means are kept."""

    tensors: tuple[str, ...]
    plan: ObservationPlan
    derivation: Derivation
    averaged: frozenset[str]


def set_up(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    shapes: Mapping[str, Shape],
    values_per_sample: int | None,
    *,
    optimised: bool = True,
) -> tuple[Setup, Probes]:
    """Return how to know ``tensors`` for inputs of ``shapes``, and the graph to run for it.

    ``optimised`` False reads from the graph as it was given, which is slower.

    Raises:
        EngineError: RUNTIME_REFUSED, see ``open_session``.
    """
    fixed = _with_shapes(model, shapes)
    averaged = [name for name in layer_inputs(fixed) if name in set(tensors)]
    plan, graph = _look(fixed, tensors, averaged, optimised)
    known = _known_shapes(fixed)
    outputs = [value.name for value in fixed.graph.output if value.name in set(tensors)]
    wanted = Wanted(
        plan.measured,
        tuple(plan.joined),
        averaged,
        [name for name in outputs if name not in averaged],
        known,
        frozenset(channels_last(fixed, known)),
        values_per_sample,
    )
    setup = Setup(tuple(tensors), plan, Derivation(fixed, plan), frozenset(averaged))
    return setup, add_probes(graph, wanted)


def assemble(setup: Setup, known: dict[str, TensorStatistics]) -> dict[str, TensorStatistics]:
    """Return the statistics of all tensors from those that were read; joins among them lack their range."""
    plan = setup.plan
    roots = set(plan.derived.values())
    known |= setup.derivation.derive({name: known[name] for name in plan.measured})
    for name, inputs in plan.joined.items():
        known |= _taken_over(plan, known)
        known[name] = _join(known[name], [known[entry] for entry in inputs], inputs, name in plan.stacked)
        if name in roots:
            known |= setup.derivation.derive({name: known[name]})
    known |= _taken_over(plan, known)
    return {name: known[name] for name in setup.tensors if name in known}


def _with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    declared = graph_inputs(model)
    if all(tuple(declared[name][0]) == shape for name, shape in shapes.items()):
        return model
    fixed = copy_of(model)
    for name, shape in shapes.items():
        fix_input_shape(fixed, name, shape)
    return fixed


def _look(
    model: onnx.ModelProto, tensors: Sequence[str], averaged: Iterable[str], optimised: bool
) -> tuple[ObservationPlan, OptimisedGraph]:
    outputs = [value.name for value in model.graph.output]
    if optimised:
        plan, graph, wanted = _look_optimised(model, tensors, averaged, outputs)
        if not plan.hidden and graph.places.keys() >= set(wanted):
            return plan, graph
    # The runtime's optimisers lost a tensor for good: the graph as it was given has them all.
    plan = plan_observation(model, tensors, tensors_of(model))
    wanted = list(dict.fromkeys([*plan.measured, *plan.joined, *averaged, *outputs]))
    return plan, leave_as_is(model, wanted)


def _look_optimised(
    model: onnx.ModelProto, tensors: Sequence[str], averaged: Iterable[str], outputs: Sequence[str]
) -> tuple[ObservationPlan, OptimisedGraph, list[str]]:
    fused = fuse(model)
    plan = plan_observation(model, tensors, tensors_of(fused))
    hidden = {*plan.hidden, *averaged} - tensors_of(fused)
    if hidden:
        fused = fuse(model, sorted(hidden))
        plan = plan_observation(model, tensors, tensors_of(fused))
    wanted = list(dict.fromkeys([*plan.measured, *plan.joined, *averaged, *outputs]))
    return plan, lay_out(fused, wanted), wanted


def _known_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    graph = model.graph
    shapes = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        tensor = value.type.tensor_type
        axes = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim]
        if tensor.HasField("shape") and min(axes, default=0) >= 0:
            shapes[value.name] = tuple(axes)
    return shapes


def _taken_over(plan: ObservationPlan, known: Mapping[str, TensorStatistics]) -> dict[str, TensorStatistics]:
    """Return the tensors that have another's statistics, as far as those are known."""
    found: dict[str, TensorStatistics] = {}
    for source, entries in (("clipped", plan.clipped), ("same", plan.same)):
        for name, of in entries.items():
            while of in plan.same or of in plan.clipped:
                of = plan.same.get(of) or plan.clipped[of]
            if of in known:
                found[name] = taken_over_from(source, of, known[of])
    return found


def _join(
    joined: TensorStatistics, parts: Sequence[TensorStatistics], names: Sequence[str], stacked: bool
) -> TensorStatistics:
    """Return a Concat's statistics; those that are ``stacked`` have the channels of all parts in turn."""
    channels = None
    known = [part.channels for part in parts if part.channels is not None and part.channels.axis == 1]
    if stacked and len(known) == len(parts):
        lows = tuple(value for part in known for value in part.low)
        highs = tuple(value for part in known for value in part.high)
        channels = ChannelStatistics(1, lows, highs)
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    values = sum(part.values for part in parts) if all(part.values for part in parts) else 0
    return replace(joined, low=low, high=high, of=tuple(names), channels=channels, values=values)
