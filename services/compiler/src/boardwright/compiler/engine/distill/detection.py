"""Detectors: a student's raw candidates learn a teacher's boxes, weighed by the teacher's scores.

Where both graphs have the same head, size and number of candidates, candidate learns from candidate.
Otherwise the teacher's boxes are decoded, brought into the student's tensor and assigned to the candidates
that fit them best (task-aligned assignment, Feng et al., https://arxiv.org/abs/2108.07755). Scores learn by
the quality focal loss (Li et al., https://arxiv.org/abs/2006.04388): many empty candidates do not drown
the few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from boardwright.compiler.engine.distill.objectives import AnswerTerms, Terms, stack
from boardwright.compiler.engine.training.data import Batch
from boardwright.model import InputSpec, OutputSpec

if TYPE_CHECKING:
    from boardwright.compiler.engine.distill.teacher import Answer


SPLIT_HEADS = ("yolov5", "yolov8", "yolo-end2end")
_ASSIGNED = 9
_BOX_WEIGHT = 2.0
_ALMOST = 1e-6


@dataclass(frozen=True, slots=True)
class Candidates:
    """``boxes`` (N, M, 4) xyxy in pixels of the tensor, ``chances`` (N, M, C) of each class, 0 to 1: the
    objectness of heads that have one is multiplied in."""

    boxes: Tensor
    chances: Tensor


def split(output: Tensor, spec: OutputSpec, input_spec: InputSpec) -> Candidates:
    """Return a head's raw output (N, …) as candidates; differentiable.

    An end-to-end head says one class per candidate: the others have a chance of 0.
    """
    if spec.head == "yolo-end2end":
        kinds = output[..., 5].detach().round().long().clamp(0, spec.num_classes - 1)
        one_hot = functional.one_hot(kinds, spec.num_classes).to(output.dtype)
        boxes, chances = output[..., :4], output[..., 4:5] * one_hot
    else:
        width = spec.num_classes + (5 if spec.head == "yolov5" else 4)
        transposed = output.shape[1] == width and (spec.head == "yolov8" or output.shape[2] != width)
        rows = output.transpose(1, 2) if transposed else output
        boxes = rows[..., :4]
        chances = rows[..., 5:] * rows[..., 4:5] if spec.head == "yolov5" else rows[..., 4:]
    if spec.box_format == "yxyx":
        boxes = boxes[..., [1, 0, 3, 2]]
    if spec.box_format == "xywh":
        half = boxes[..., 2:] / 2
        boxes = torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)
    if spec.boxes_normalized:
        boxes = boxes * boxes.new_tensor([input_spec.width, input_spec.height] * 2)
    return Candidates(boxes, chances)


def raw_candidates(
    spec: OutputSpec, teacher_spec: OutputSpec, input_spec: InputSpec, teacher_name: str, place: int
) -> AnswerTerms:
    """Return the terms where candidate learns from candidate."""

    def terms(outputs: Sequence[Tensor], answers: Sequence[Answer], batch: Batch) -> Terms:
        ours = split(outputs[place], spec, input_spec)
        theirs = split(stack(answers, teacher_name), teacher_spec, input_spec)
        return _terms(ours, theirs.boxes, theirs.chances)

    return terms


def decoded_boxes(spec: OutputSpec, input_spec: InputSpec, place: int) -> AnswerTerms:
    """Return the terms where the teacher's decoded boxes are assigned to candidates."""

    def terms(outputs: Sequence[Tensor], answers: Sequence[Answer], batch: Batch) -> Terms:
        ours = split(outputs[place], spec, input_spec)
        assigned = 1 if spec.head == "yolo-end2end" else _ASSIGNED
        boxes, chances = ours.boxes.detach().clone(), torch.zeros_like(ours.chances)
        for row, answer in enumerate(answers):
            if answer.boxes is not None and len(answer.boxes):
                found = torch.from_numpy(answer.boxes)
                _assign(
                    found,
                    ours.boxes[row].detach(),
                    ours.chances[row].detach(),
                    boxes[row],
                    chances[row],
                    assigned,
                )
        return _terms(ours, boxes, chances)

    return terms


def _terms(ours: Candidates, boxes: Tensor, chances: Tensor) -> Terms:
    """Return the loss of scores, and that of boxes weighed by the wanted score."""
    weight = chances.amax(-1)
    total = weight.sum().clamp(min=1.0)
    given = ours.chances.clamp(_ALMOST, 1 - _ALMOST)
    entropy = functional.binary_cross_entropy(given, chances.clamp(0, 1), reduction="none")
    scores = (entropy * (chances - given).detach().abs().square()).sum() / total
    overlap = _generous_iou(ours.boxes, boxes)
    return {"scores": scores, "boxes": _BOX_WEIGHT * (weight * (1 - overlap)).sum() / total}


def _assign(
    found: Tensor, boxes: Tensor, chances: Tensor, wanted_boxes: Tensor, wanted: Tensor, count: int
) -> None:
    """Write each of the teacher's boxes (T, 6) to the ``count`` candidates that fit it best.

    A candidate wanted by several takes the one it overlaps most. Candidates beyond the first of a box want a
    score that falls with their fit, so that one of them stands out for suppression.
    """
    overlap = _iou(found[:, None, :4], boxes[None])  # (T, M)
    kinds = found[:, 5].long().clamp(0, chances.shape[1] - 1)
    fit = chances[:, kinds].T.clamp(min=1e-3).sqrt() * overlap.clamp(min=1e-4) ** 3
    best = fit.topk(min(count, fit.shape[1]), dim=1)
    chosen = torch.zeros_like(overlap).scatter_(1, best.indices, 1.0) * (overlap + 1e-4)
    strongest, owner = chosen.max(0)
    for candidate in torch.nonzero(strongest > 0)[:, 0].tolist():
        box = int(owner[candidate])
        share = fit[box, candidate] / best.values[box, 0].clamp(min=1e-12)
        wanted[candidate, kinds[box]] = found[box, 4] * share
        wanted_boxes[candidate] = found[box, :4]


def _iou(left: Tensor, right: Tensor) -> Tensor:
    inner = (
        torch.minimum(left[..., 2:], right[..., 2:]) - torch.maximum(left[..., :2], right[..., :2])
    ).clamp(0)
    shared = inner.prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(0).prod(-1) for box in (left, right)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)


def _generous_iou(left: Tensor, right: Tensor) -> Tensor:
    """Generalised intersection over union (Rezatofighi et al., https://arxiv.org/abs/1902.09630), -1 to 1."""
    outer = torch.maximum(left[..., 2:], right[..., 2:]) - torch.minimum(left[..., :2], right[..., :2])
    inner = (
        torch.minimum(left[..., 2:], right[..., 2:]) - torch.maximum(left[..., :2], right[..., :2])
    ).clamp(0)
    shared = inner.prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(0).prod(-1) for box in (left, right)]
    union = (areas[0] + areas[1] - shared).clamp(min=1e-9)
    hull = outer.clamp(min=0).prod(-1).clamp(min=1e-9)
    return shared / union - (hull - union) / hull
