"""Adam (Kingma and Ba, https://arxiv.org/abs/1412.6980), with a rate for each tensor.

``torch.optim`` imports torch's compiler with its first optimizer: more CPU time than a small network takes to
learn here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_EPSILON = 1e-8


class Descent:
    """Moves ``(tensor, rate)`` pairs against their gradients.

    Rates fall to zero along a cosine over ``updates``; with 0 they stay.
    """

    def __init__(
        self,
        rated: Sequence[tuple[Tensor, float]],
        updates: int = 0,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self._rated, self._updates, self._betas = list(rated), updates, betas
        self._means = [torch.zeros_like(value) for value, _ in self._rated]
        self._squares = [torch.zeros_like(value) for value, _ in self._rated]
        self._done = 0

    def step(self, loss: Tensor) -> None:
        """Take the gradients of ``loss`` and move once."""
        for value, _ in self._rated:
            value.grad = None
        loss.backward()
        share = 1.0
        if self._updates:
            share = (1 + math.cos(math.pi * min(self._done / self._updates, 1.0))) / 2
        self._done += 1
        first, second = self._betas
        with torch.no_grad():
            for (value, rate), mean, square in zip(self._rated, self._means, self._squares, strict=True):
                if value.grad is None:
                    continue
                mean.lerp_(value.grad, 1 - first)
                square.mul_(second).addcmul_(value.grad, value.grad, value=1 - second)
                root = (square / (1 - second**self._done)).sqrt_().add_(_EPSILON)
                value.addcdiv_(mean, root, value=-rate * share / (1 - first**self._done))
