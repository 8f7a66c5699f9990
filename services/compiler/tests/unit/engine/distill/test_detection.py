"""Candidates of every head are read alike, and a teacher's boxes find the candidates that fit them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boardwright.compiler.engine.distill.detection import decoded_boxes, split
from boardwright.compiler.engine.distill.teacher import Answer
from boardwright.compiler.engine.training.data import Batch
from boardwright.model import InputSpec, OutputSpec

INPUT = InputSpec(height=64, width=32, name="images")
BATCH = Batch({}, None)


def spec(head, **changes):
    return OutputSpec(task="detection", head=head, num_classes=2, **changes)


@pytest.mark.parametrize(
    ("head", "row", "changes"),
    [
        ("yolov8", [10, 20, 4, 8, 0.1, 0.6], {}),
        ("yolov5", [10, 20, 4, 8, 0.5, 0.2, 1.2], {}),
        ("yolo-end2end", [8, 16, 12, 24, 0.6, 1], {}),
        ("yolov8", [8, 16, 12, 24, 0.1, 0.6], {"box_format": "xyxy"}),
        ("yolov8", [16, 8, 24, 12, 0.1, 0.6], {"box_format": "yxyx"}),
        ("yolov8", [10 / 32, 20 / 64, 4 / 32, 8 / 64, 0.1, 0.6], {"boxes_normalized": True}),
    ],
)
def test_heads_give_the_same_candidates(head, row, changes):
    output = torch.tensor([[row] * 9], dtype=torch.float32)
    for laid_out in [output] if head == "yolo-end2end" else [output, output.transpose(1, 2)]:
        found = split(laid_out, spec(head, **changes), INPUT)
        assert found.boxes[0, 4].tolist() == pytest.approx([8, 16, 12, 24])
        assert found.chances.shape == (1, 9, 2)
        assert float(found.chances[0, 4, 1]) == pytest.approx(0.6)


def test_the_candidate_that_fits_learns_the_box_and_the_others_learn_silence():
    raw = torch.tensor(
        [[[10.0, 10, 8, 8, 0.3, 0.3], [50, 20, 8, 8, 0.3, 0.3], [10, 60, 8, 8, 0.3, 0.3]]]
    ).transpose(1, 2)
    raw = raw.requires_grad_(True)
    box = np.array([[7, 6, 15, 14, 0.9, 1]], np.float32)
    terms = decoded_boxes(spec("yolov8"), INPUT, 0)([raw], [Answer({}, box)], BATCH)
    sum(terms.values()).backward()
    wish = -raw.grad[0]  # where gradient descent leads
    assert wish[5, 0] > 0 > wish[4, 0]  # the near candidate says class 1, not class 0
    assert wish[5, 1] < 0 and wish[5, 2] < 0
    assert wish[0, 0] > 0 and not (wish[:4, 1:].abs() > 1e-6).any()  # and moves right, to the box


def test_an_image_without_boxes_teaches_silence():
    raw = torch.full((1, 6, 4), 0.3, requires_grad=True)
    terms = decoded_boxes(spec("yolov8"), INPUT, 0)([raw], [Answer({}, np.zeros((0, 6), np.float32))], BATCH)
    sum(terms.values()).backward()
    assert (raw.grad[0, 4:] > 0).all()
    assert not terms["boxes"].detach().any()
