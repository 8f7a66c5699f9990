"""Activations are paired where both graphs look at the same place."""

from __future__ import annotations

import pytest
import torch

from boardwright.compiler.engine.distill.pairing import pair_features
from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.export import export_network
from boardwright.model import InputSpec

SMALL = InputSpec(height=32, width=32, name="images", batch=1)
LARGE = InputSpec(height=64, width=64, name="images", batch=1)


def convolutions(strides, spec, activation=torch.nn.SiLU):
    layers, channels = [], 3
    for stride in strides:
        layers += [torch.nn.Conv2d(channels, 8, 3, stride, 1), activation()]
        channels = 8
    pooled = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4)]
    return export_network(torch.nn.Sequential(*layers, *pooled), spec)


class Tokens(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.cut = torch.nn.Conv2d(3, width, 8, 8)
        self.mix = torch.nn.Linear(width, width)
        self.out = torch.nn.Linear(width, 4)

    def forward(self, images):
        tokens = self.cut(images).flatten(2).transpose(1, 2)
        return self.out(torch.nn.functional.relu(self.mix(tokens)).mean(1))


def test_the_deepest_activation_of_each_stride_at_most_three():
    student = convolutions([2, 1, 2, 2, 2], SMALL)
    teacher = convolutions([2, 2, 1, 2, 1, 2], LARGE, torch.nn.ReLU)
    pairs = pair_features(student, teacher, SMALL, LARGE)
    assert [pair.student.place for pair in pairs] == [("pixels", 4, 4), ("pixels", 8, 8), ("pixels", 16, 16)]
    assert [pair.student.name for pair in pairs] == ["/5/Mul_output_0", "/7/Mul_output_0", "/9/Mul_output_0"]
    assert [pair.teacher.name for pair in pairs] == [
        "/5/Relu_output_0",
        "/9/Relu_output_0",
        "/11/Relu_output_0",
    ]


def test_tokens_are_paired_by_their_number():
    pairs = pair_features(*(export_network(Tokens(width), SMALL) for width in (8, 16)), SMALL, SMALL)
    assert ("tokens", 16, 1) in [pair.student.place for pair in pairs]
    assert [(pair.student.channels, pair.teacher.channels) for pair in pairs] == [(8, 16)] * len(pairs)


def test_networks_that_share_no_stride_are_told_to_name_layers():
    with pytest.raises(EngineError, match="Name pairs with layers") as caught:
        pair_features(convolutions([4], SMALL), convolutions([2], SMALL), SMALL, SMALL)
    assert caught.value.reason == "DISTILL_LAYERS_DIFFER"
