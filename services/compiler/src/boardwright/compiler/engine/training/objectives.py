"""What training minimises: losses bound to labels, or to a teacher's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.training import losses
from boardwright.compiler.engine.training.network import GraphNetwork
from boardwright.compiler.engine.training.options import LOSSES, ObjectiveOptions
from boardwright.model import OutputSpec

if TYPE_CHECKING:
    from boardwright.compiler.engine.training.data import Batch

Objective = Callable[[torch.nn.Module, "Batch"], "Tensor | Mapping[str, Tensor]"]
MakeObjective = Callable[[GraphNetwork, GraphNetwork], Objective]
"""From the teacher (the float network that training may learn from) and the trained network."""

_SMALLEST = 1e-8


def chosen(options: ObjectiveOptions, spec: OutputSpec, class_counts: Sequence[int] | None) -> MakeObjective:
    """Return what makes the objective that ``options`` ask for.

    ``class_counts`` says how many samples each class has, None where not every sample has a class: ``auto``
    then learns from the teacher.

    Raises:
        EngineError: OBJECTIVE_UNFIT, when labels are asked for and there are none, or the task has none here.
    """
    from_classes = spec.task == "classification" and class_counts is not None
    if options.objective == "self-distilled" or (options.objective == "auto" and not from_classes):
        return lambda teacher, network: from_teacher(
            teacher, spec, network, temperature=options.temperature, features=options.features
        )
    if class_counts is None:
        raise EngineError(
            "OBJECTIVE_UNFIT",
            "The objective is labels, and not every sample has a class label: label the dataset, or set "
            "objective to self-distilled.",
        )
    weights = losses.class_weights(class_counts, options.class_weights)
    return lambda teacher, network: from_labels(
        spec,
        network,
        loss=options.loss,
        weights=weights,
        smoothing=options.label_smoothing,
        gamma=options.focal_gamma,
    )


def from_labels(
    spec: OutputSpec,
    network: GraphNetwork,
    *,
    loss: str = "cross-entropy",
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    gamma: float = 2.0,
) -> Objective:
    """Return the objective of a labelled classifier.

    Raises:
        EngineError: OBJECTIVE_UNFIT, for tasks whose labels an imported graph cannot be trained on.
    """
    if spec.task != "classification":
        raise EngineError(
            "OBJECTIVE_UNFIT",
            f"A {spec.task} graph holds no loss for its labels: train it self-distilled "
            "(objective: self-distilled), or train the checkpoint in its own framework.",
        )
    if loss not in LOSSES:
        raise EngineError(
            "TRAINING_OPTIONS_UNFIT", f"Loss {loss!r} is not known; choose one of {', '.join(LOSSES)}."
        )
    place = output_place(spec, network)

    def objective(trained: torch.nn.Module, batch: Batch) -> Tensor:
        logits = as_logits(trained(batch.inputs)[place], spec)
        labels = batch.required_labels()
        if loss == "focal":
            return losses.focal_loss(logits, labels, gamma=gamma, weights=weights)
        return losses.cross_entropy(logits, labels, weights=weights, smoothing=smoothing)

    return objective


def from_teacher(
    teacher: torch.nn.Module,
    spec: OutputSpec,
    network: GraphNetwork,
    *,
    temperature: float = 4.0,
    features: Sequence[str] = (),
    feature_weight: float = 1.0,
) -> Objective:
    """Return the objective of answering as ``teacher`` does: no labels are needed.

    Classifiers learn the teacher's softened chances. Everything else learns what the teacher's last layers
    say (``last_tensors``; boxes and scores are still in layers' own scale there), each channel weighed by its
    own spread; where the two graphs do not share these, their raw outputs. ``features`` names further
    activations that both graphs have: each costs its memory, and holds a deep network's inner layers to
    their work.
    """
    place = output_place(spec, network)
    teacher.eval().requires_grad_(False)
    heads = () if spec.task == "classification" else last_tensors(network)
    if not isinstance(teacher, GraphNetwork) or any(name not in last_tensors(teacher) for name in heads):
        heads = ()
    watched = tuple(dict.fromkeys((*heads, *features)))

    def objective(trained: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted, wanted_inner = _answers(teacher, batch, watched)
        given, inner = _answers(trained, batch, watched)
        terms = {}
        if spec.task == "classification":
            terms["soft-labels"] = losses.soft_label_loss(
                as_logits(given[place], spec), as_logits(wanted[place], spec), temperature=temperature
            )
        elif heads:
            for name in heads:
                terms[name] = losses.matching_loss(inner[name], wanted_inner[name], axis=1) / len(heads)
        else:
            for number, (ours, theirs) in enumerate(zip(given, wanted, strict=True)):
                axis = column_axis(theirs, spec)
                terms[f"output-{number}"] = losses.matching_loss(ours, theirs, axis=axis)
        for name in features:
            matched = losses.matching_loss(inner[name], wanted_inner[name])
            terms[f"feature {name}"] = matched * feature_weight / len(features)
        return terms

    return objective


def last_tensors(network: GraphNetwork) -> tuple[str, ...]:
    """Return the outputs of layers that no other layer follows: what the graph decodes into its answer."""
    topology = Topology(network.graph.graph)
    return tuple(topology.nodes[index].output[0] for index in topology.last_layers)


def output_place(spec: OutputSpec, network: GraphNetwork) -> int:
    """Return which of the graph's outputs the OutputSpec speaks of."""
    return network.output_names.index(spec.name) if spec.name in network.output_names else 0


def as_logits(output: Tensor, spec: OutputSpec) -> Tensor:
    """Return a classifier's output as (N, C) logits; probabilities become their logarithms."""
    flat = output.flatten(1)
    return flat.clamp(min=_SMALLEST).log() if spec.head == "probabilities" else flat


def column_axis(output: Tensor, spec: OutputSpec) -> int | None:
    """Return a detector's axis of boxes beside scores in its raw output: the shorter of the last two."""
    if spec.task != "detection" or output.dim() != 3:
        return None
    return 1 if output.shape[1] < output.shape[2] else 2


def _answers(
    network: torch.nn.Module, batch: Batch, inner: Sequence[str]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    if not inner:
        return list(network(batch.inputs)), {}
    found = network.tensors(batch.inputs, inner)
    return [found[name] for name in network.output_names], found
