"""What training minimises: losses bound to labels, or to a teacher's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training import losses
from boardwright.compiler.engine.training.network import GraphNetwork
from boardwright.model import OutputSpec

if TYPE_CHECKING:
    from boardwright.compiler.engine.training.data import Batch

Objective = Callable[[torch.nn.Module, "Batch"], "Tensor | Mapping[str, Tensor]"]

LOSSES = ("cross-entropy", "focal")
_SMALLEST = 1e-8


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

    Classifiers learn the teacher's softened chances, everything else its raw outputs, each column weighed by
    its own spread. ``features`` names activations that both graphs have (self-distillation) and that are
    matched as well: each costs its memory, and holds a deep network's inner layers to their work.
    """
    place = output_place(spec, network)
    teacher.eval().requires_grad_(False)

    def objective(trained: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            wanted, wanted_features = _answers(teacher, batch, features)
        given, given_features = _answers(trained, batch, features)
        terms = {}
        if spec.task == "classification":
            terms["soft-labels"] = losses.soft_label_loss(
                as_logits(given[place], spec), as_logits(wanted[place], spec), temperature=temperature
            )
        else:
            for number, (ours, theirs) in enumerate(zip(given, wanted, strict=True)):
                terms[f"output-{number}"] = losses.matching_loss(ours, theirs, axis=column_axis(theirs, spec))
        for name in features:
            matched = losses.matching_loss(given_features[name], wanted_features[name])
            terms[name] = matched * feature_weight / len(features)
        return terms

    return objective


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
    network: torch.nn.Module, batch: Batch, features: Sequence[str]
) -> tuple[list[Tensor], dict[str, Tensor]]:
    if not features:
        return list(network(batch.inputs)), {}
    found = network.tensors(batch.inputs, features)
    return [found[name] for name in network.output_names], found
