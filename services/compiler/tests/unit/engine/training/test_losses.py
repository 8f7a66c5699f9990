"""Losses against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training import losses


def test_class_weights_balance_what_classes_contribute():
    counts = [90, 9, 1, 0]
    inverse = losses.class_weights(counts, "inverse")
    shares = inverse * torch.tensor(counts)
    torch.testing.assert_close(shares[:3], torch.full((3,), 100 / 3))
    assert inverse[3] == 0
    median = losses.class_weights(counts, "median-frequency")
    torch.testing.assert_close(median[:3], torch.tensor([0.1, 1.0, 9.0]))
    assert losses.class_weights(counts, "none") is None
    with pytest.raises(EngineError, match="choose one of none, inverse, median-frequency"):
        losses.class_weights(counts, "average")


def test_focal_loss_is_cross_entropy_without_focus_and_passes_over_what_is_right():
    logits, labels = torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 0])
    plain = losses.focal_loss(logits, labels, gamma=0.0)
    torch.testing.assert_close(plain, losses.cross_entropy(logits, labels))
    chances = functional.softmax(logits, 1)[:, 0]
    expected = (-((1 - chances) ** 2) * chances.log()).mean()
    torch.testing.assert_close(losses.focal_loss(logits, labels), expected)
    easy, hard = (losses.focal_loss(logits[place : place + 1], labels[:1]) for place in (0, 1))
    plain_easy, plain_hard = (losses.cross_entropy(logits[p : p + 1], labels[:1]) for p in (0, 1))
    assert hard / easy > 10 * plain_hard / plain_easy


def test_weights_of_classes_reach_both_losses():
    logits, labels = torch.randn(6, 3, generator=torch.manual_seed(0)), torch.tensor([0, 0, 0, 0, 1, 2])
    weights = torch.tensor([0.0, 6.0, 0.0])
    only = logits[4:5], labels[4:5]
    torch.testing.assert_close(
        losses.cross_entropy(logits, labels, weights=weights), losses.cross_entropy(*only)
    )
    torch.testing.assert_close(losses.focal_loss(logits, labels, weights=weights), losses.focal_loss(*only))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.focal_loss])
def test_a_rare_class_weighs_the_same_whatever_its_batch(loss):
    """A batch of one, or of parts: torch's mean over weights would let the weight cancel out."""
    logits, labels = torch.randn(6, 3, generator=torch.manual_seed(0)), torch.tensor([0, 0, 0, 0, 1, 2])
    weights = losses.class_weights([40, 10, 10], "inverse")
    whole = loss(logits, labels, weights=weights)
    parts = [loss(logits[part], labels[part], weights=weights) for part in torch.arange(6).split(1)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    torch.testing.assert_close(parts[4], weights[1] * loss(logits[4:5], labels[4:5]))


def test_soft_labels_are_learnt_when_answers_are_equal_up_to_a_shift():
    teacher = torch.randn(4, 5, generator=torch.manual_seed(0))
    assert losses.soft_label_loss(teacher + 3, teacher) < 1e-6
    student = torch.zeros(4, 5, requires_grad=True)
    sizes = []
    for temperature in (2.0, 20.0):
        (gradient,) = torch.autograd.grad(
            losses.soft_label_loss(student, teacher, temperature=temperature), student
        )
        sizes.append(float(gradient.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.3)  # T² keeps the gradient's size


def test_matching_weighs_kinds_alike_whatever_their_unit():
    generator = torch.manual_seed(0)
    wanted = torch.stack(
        [torch.rand(200, generator=generator) * 640, torch.rand(200, generator=generator)], 1
    )
    off_boxes, off_scores = wanted.clone(), wanted.clone()
    off_boxes[:, 0] += 64
    off_scores[:, 1] += 0.1
    boxes, scores = (losses.matching_loss(off, wanted, axis=1) for off in (off_boxes, off_scores))
    assert float(boxes) == pytest.approx(float(scores), rel=0.3)
    assert losses.matching_loss(wanted, wanted) == 0
    mean = torch.full_like(wanted[:, 0], float(wanted[:, 0].mean()))
    assert float(losses.matching_loss(mean, wanted[:, 0])) == pytest.approx(1.0)


def test_an_entry_that_never_varies_does_not_outweigh_the_others():
    wanted = torch.randn(50, 10, generator=torch.manual_seed(0))
    wanted[:, 0] = 1.0
    given = wanted + 0.1
    assert losses.matching_loss(given, wanted, axis=1) < 0.2
    assert math.isfinite(float(losses.matching_loss(given[:, :1], wanted[:, :1], axis=1)))


def test_terms_are_summed_and_told_by_name():
    loss, terms = losses.total({"a": torch.tensor(1.0), "b": torch.tensor(0.5)})
    assert (float(loss), terms) == (1.5, {"a": 1.0, "b": 0.5})
    assert losses.total(torch.tensor(2.0))[1] == {}
