"""What distillation minimises, as objectives of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from boardwright.compiler.engine.distill.options import DistillOptions
from boardwright.compiler.engine.distill.pairing import Feature, FeaturePair
from boardwright.compiler.engine.training.data import UNLABELLED, Batch
from boardwright.compiler.engine.training.losses import cross_entropy, matching_loss, soft_label_loss
from boardwright.compiler.engine.training.network import GraphNetwork
from boardwright.compiler.engine.training.objectives import as_logits, output_place
from boardwright.model import OutputSpec

if TYPE_CHECKING:
    from boardwright.compiler.engine.distill.teacher import Answer

Terms = dict[str, Tensor]
AnswerTerms = Callable[[Sequence[Tensor], Sequence["Answer"], Batch], Terms]
AskTeacher = Callable[[Batch], Sequence["Answer"]]


def soft_labels(
    spec: OutputSpec, teacher_spec: OutputSpec, teacher_name: str, place: int, options: DistillOptions
) -> AnswerTerms:
    """Return the terms of a classifier: the teacher's softened chances, and class labels of those samples
    that have one (Hinton et al. 2015). ``teacher_name`` is the teacher's output, ``place`` the student's."""

    def terms(outputs: Sequence[Tensor], answers: Sequence[Answer], batch: Batch) -> Terms:
        logits = as_logits(outputs[place], spec)
        theirs = as_logits(stack(answers, teacher_name), teacher_spec)
        learnt = soft_label_loss(logits, theirs, temperature=options.temperature)
        known = batch.labels != UNLABELLED if batch.labels is not None else torch.zeros(len(batch)).bool()
        share = float(known.float().mean()) * (1 - options.alpha)
        if batch.labels is None or not bool(known.any()):
            return {"soft-labels": learnt}
        hard = cross_entropy(logits[known], batch.labels[known])
        return {"soft-labels": learnt * (1 - share), "labels": hard * share}

    return terms


def raw_outputs(names: Sequence[str]) -> AnswerTerms:
    """Return the terms of any model whose outputs (``names``, the teacher's) have the teacher's shapes."""

    def terms(outputs: Sequence[Tensor], answers: Sequence[Answer], batch: Batch) -> Terms:
        found = {}
        for number, (ours, name) in enumerate(zip(outputs, names, strict=True)):
            theirs = stack(answers, name)
            axis = 1 if theirs.dim() == 3 and theirs.shape[1] < theirs.shape[2] else -1
            found[f"output-{number}"] = matching_loss(ours, theirs, axis=axis if theirs.dim() == 3 else None)
        return found

    return terms


class FeatureMatching(torch.nn.Module):  # type: ignore[misc]
    """The distance of paired activations; its 1x1 adapters learn beside the student and are dropped.

    ``match`` (FitNets): the student's activation through an adapter against the teacher's, over the teacher's
    variance. ``attention`` (Zagoruyko and Komodakis 2017): where both are strong, over all channels.
    """

    def __init__(self, pairs: Sequence[FeaturePair], options: DistillOptions) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self._options = options
        generator = torch.Generator().manual_seed(0)
        self.adapters = torch.nn.ParameterList()
        if options.feature_loss == "match":
            for pair in self.pairs:
                shape = (pair.teacher.channels, pair.student.channels)
                noise = torch.randn(shape, generator=generator) / pair.student.channels**0.5
                self.adapters.append(torch.nn.Parameter(noise))

    def terms(self, ours: dict[str, Tensor], answers: Sequence[Answer]) -> Terms:
        """Return one term per pair, together weighing ``feature_weight``."""
        weight = self._options.feature_weight / len(self.pairs)
        found = {}
        for number, pair in enumerate(self.pairs):
            given = _channels_first(ours[pair.student.name], pair.student)
            wanted = _channels_first(stack(answers, pair.teacher.name), pair.teacher)
            wanted = _to_size(wanted, given)
            if self._options.feature_loss == "attention":
                loss = (_attention(given) - _attention(wanted)).square().sum(1).mean()
            else:
                adapted = torch.einsum("nc...,tc->nt...", given, self.adapters[number])
                loss = matching_loss(adapted, wanted)
            found[f"feature {pair.student.name}"] = loss * weight
        return found


@dataclass(slots=True)
class Distillation:
    """The objective ``distillation(network, batch)``: terms of the answers, and of features where given."""

    ask: AskTeacher
    answer_terms: AnswerTerms
    features: FeatureMatching | None = None

    def __call__(self, network: torch.nn.Module, batch: Batch) -> Terms:
        """Return the named terms, to be summed."""
        answers = self.ask(batch)
        if self.features is None:
            return self.answer_terms(network(batch.inputs), answers, batch)
        names = [pair.student.name for pair in self.features.pairs]
        found = network.tensors(batch.inputs, names)
        outputs = [found[name] for name in network.output_names]
        return {**self.answer_terms(outputs, answers, batch), **self.features.terms(found, answers)}


def stack(answers: Sequence[Answer], name: str) -> Tensor:
    """Return the tensor ``name`` of all answers, (N, …)."""
    return torch.from_numpy(np.stack([answer.tensors[name] for answer in answers]))


def place_of(spec: OutputSpec, network: GraphNetwork) -> int:
    """Return which of the student's outputs its OutputSpec speaks of."""
    return output_place(spec, network)


def _channels_first(value: Tensor, feature: Feature) -> Tensor:
    return value.transpose(1, 2) if feature.channels_last else value


def _to_size(wanted: Tensor, given: Tensor) -> Tensor:
    """Bring the teacher's map to the student's size: another input size gives another grid."""
    if wanted.shape[2:] == given.shape[2:] or wanted.dim() != 4:
        return wanted
    return functional.interpolate(wanted, size=given.shape[2:], mode="bilinear", align_corners=False)


def _attention(value: Tensor) -> Tensor:
    """(N, C, …) to (N, cells): the mean square over channels, of length 1."""
    return functional.normalize(value.square().mean(1).flatten(1), dim=1)
