"""Block-wise reconstruction: blocks of layers learn to give, rounded, what their float originals give.

(Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction",
https://arxiv.org/abs/2102.05426.) A block reads what the rounded blocks before it make, so that it takes
their errors back as well as its own; it is compared with the float graph on the same samples. Weights and
biases move within a few steps of their grid, activations learn where to be cut off. Nothing is labelled.

Blocks are judged on samples that they did not learn from; one that got worse there is put back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import with_values
from boardwright.compiler.engine.observe import CalibrationRecord, Feed
from boardwright.compiler.engine.recover.block import Block, BlockRecord, ReconstructionOptions
from boardwright.compiler.engine.recover.segments import Segment, cut
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from boardwright.compiler.engine.training.quantization_places import QuantizationPlaces

    State = dict[str, Tensor]


def reconstruct(
    original: onnx.ModelProto,
    model: onnx.ModelProto,
    record: CalibrationRecord,
    scheme: QuantizationScheme,
    excluded: set[str],
    samples: Sequence[Feed],
    held_out: Sequence[Feed],
    options: ReconstructionOptions,
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[onnx.ModelProto, CalibrationRecord, list[BlockRecord]]:
    """Return ``model`` and ``record`` with what the blocks learnt, and a record per block.

    ``original`` has the float weights that are the aim; ``model`` those to begin with (the same graph). Both
    are prepared. Memory holds the activations between two blocks of all samples.
    """
    import torch

    from boardwright.compiler.engine.quantize import insert_quantization
    from boardwright.compiler.engine.training.quantization_places import find_places

    places = find_places(insert_quantization(model, record, scheme, excluded, spread=False), model)
    places = _within_integers(places, model, excluded)
    updates, batch = options.updates(model)
    generator = torch.Generator().manual_seed(options.seed)
    everything = [*samples, *held_out]
    float_states: list[State] = [_start(feed) for feed in everything]
    rounded_states: list[State] = [_start(feed) for feed in everything]
    changed: dict[str, Any] = {}
    records = []
    aims, starts = cut(original, options.layers_per_block), cut(model, options.layers_per_block)
    needed = _needed_later(starts)
    inputs = {value.name for value in model.graph.input}
    for number, (aim, start) in enumerate(zip(aims, starts, strict=True)):
        learner = Block(aim, start, _of_segment(places, start, inputs), scheme, options)
        targets = learner.targets(float_states)
        told = learner.learn(rounded_states, targets, len(samples), updates, batch, generator)
        records.append(told)
        learner.advance(rounded_states)
        if told.applied:
            new, record = learner.read_out(record)
            changed |= new
        for state, target in zip(float_states, targets, strict=True):
            state.update(target)
        for state in [*float_states, *rounded_states]:
            for name in set(state) - needed[number]:
                del state[name]
        on_block(number + 1, len(starts))
    return with_values(model, changed), record, records


def _start(feed: Feed) -> State:
    import numpy as np
    import torch

    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feed.items()}


def _needed_later(segments: Sequence[Segment]) -> list[set[str]]:
    needed: list[set[str]] = []
    later: set[str] = set()
    for segment in reversed(segments):
        needed.append(set(later))
        later |= set(segment.inputs)
    return needed[::-1]


def _within_integers(
    places: QuantizationPlaces, model: onnx.ModelProto, excluded: set[str]
) -> QuantizationPlaces:
    """Leave out what leaves the integers: it is not rounded per tensor in the end."""
    from boardwright.compiler.engine.integer_outputs import leaving_layers

    leaving = {node.output[0] for node in leaving_layers(model, ("Conv", "Gemm", "MatMul"), excluded)}
    kept = tuple(place for place in places.activations if not set(place.tensors) & leaving)
    return replace(places, activations=kept)


def _of_segment(places: QuantizationPlaces, segment: Segment, graph_inputs: set[str]) -> QuantizationPlaces:
    """Return what a block rounds: what it makes, and the graph's inputs, which no block makes."""
    made = {name for node in segment.model.graph.node for name in node.output}
    made |= set(segment.inputs) & graph_inputs
    stored = {tensor.name for tensor in segment.model.graph.initializer}
    activations = tuple(
        replace(place, rounded=tuple(name for name in place.rounded if name in made))
        for place in places.activations
        if set(place.rounded) & made
    )
    weights = tuple(place for place in places.weights if place.tensor in stored)
    return replace(places, activations=activations, weights=weights)
