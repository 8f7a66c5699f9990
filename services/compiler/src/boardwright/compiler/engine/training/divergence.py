"""Divergence: told at once, with what to do."""

from __future__ import annotations

import math

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training.options import TrainOptions

_USUAL_RATE = 0.01
"""No advice is above it: one tenth of a rate of a million would diverge as well."""
_WATCHED = 10
"""Steps whose losses are averaged before they are compared with the least of the first ones."""


class Watch:
    """Tells divergence: a loss that is not finite, or many times what it was at first."""

    def __init__(self, options: TrainOptions) -> None:
        self._factor = options.diverged_factor
        self._first: list[float] = []
        self._recent: list[float] = []

    def state(self) -> dict[str, list[float]]:
        """Return what was seen, for ``resume``."""
        return {"first": self._first, "recent": self._recent}

    def resume(self, state: dict[str, list[float]]) -> None:
        """Go on from what was seen before training was interrupted."""
        self._first, self._recent = state["first"], state["recent"]

    def check_finite(self, loss: float, step: int, rate: float) -> None:
        """Refuse a loss that is no number."""
        if not math.isfinite(loss) and step == 0:
            raise EngineError(
                "TRAINING_DIVERGED",
                f"At step 0, before anything was learnt, the loss became {loss}: no learning_rate helps. "
                "Check the weights for NaN (import notes them), the labels and the input spec's scaling.",
            )
        if not math.isfinite(loss):
            raise _diverged(f"the loss became {loss}", step, rate)

    def check(self, loss: float, step: int, rate: float) -> None:
        """Refuse a step's loss that is far above the first ones."""
        if len(self._first) < _WATCHED:
            self._first.append(loss)
        self._recent = [*self._recent[1 - _WATCHED :], loss]
        first = max(min(self._first), 0.05)  # self-distillation begins near 0 and may rise
        recent = sum(self._recent) / len(self._recent)
        if len(self._recent) == _WATCHED and recent > self._factor * first:
            raise _diverged(f"the loss grew from {first:.4g} to {recent:.4g}", step, rate)


def _diverged(what: str, step: int, rate: float) -> EngineError:
    lower = min(rate / 10, _USUAL_RATE)
    return EngineError(
        "TRAINING_DIVERGED",
        f"Training diverged at step {step} with the learning rate {rate:.3g}: {what}. Set learning_rate to "
        f"{lower:.1g}, or a lower gradient_clip, and check the labels and the input spec's scaling.",
    )
