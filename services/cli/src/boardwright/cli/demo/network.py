"""The network of the digits demonstration: four convolutions, 32×32 grey pixels in, ten logits out."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def build_network() -> nn.Module:
    """The untrained network. Input: float32 [N, 1, 32, 32]. Output: logits [N, 10]."""

    def block(inputs: int, outputs: int, *, pool: bool) -> nn.Module:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        if pool:
            layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers)

    return nn.Sequential(
        OrderedDict(
            [
                ("block1", block(1, 32, pool=True)),
                ("block2", block(32, 64, pool=True)),
                ("block3", block(64, 96, pool=False)),
                ("block4", block(96, 96, pool=True)),
                ("flatten", nn.Flatten()),
                ("classifier", nn.Linear(96 * 4 * 4, 10)),
            ]
        )
    )
