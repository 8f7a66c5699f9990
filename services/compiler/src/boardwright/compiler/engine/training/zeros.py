"""Weights that unstructured pruning set to zero stay zero while the others train."""

from __future__ import annotations

import torch
from torch import Tensor

_FEWEST = 0.05
"""Share of scattered zeros in any weight from which a network's zeros are no accident."""


class KeptZeros:
    """The zeros of a network's weights, as they are when this is made."""

    def __init__(self, network: torch.nn.Module) -> None:
        weights = [
            parameter
            for name, parameter in network.named_parameters()
            if parameter.dim() > 1 and parameter.requires_grad and not name.endswith("log_factor")
        ]  # logarithms of scales begin at zero, and shall learn
        zeros = [weight.detach() == 0 for weight in weights]
        sparse = any(float(_scattered(zero).float().mean()) >= _FEWEST for zero in zeros)
        self._kept: list[tuple[torch.nn.Parameter, Tensor]] = []
        if sparse:
            self._kept = [(weight, zero) for weight, zero in zip(weights, zeros, strict=True) if zero.any()]
        self.count = sum(int(zero.sum()) for _, zero in self._kept)

    def apply(self) -> None:
        """Set them to zero again; the step that trained them is over."""
        with torch.no_grad():
            for parameter, zero in self._kept:
                parameter.masked_fill_(zero, 0.0)

    @property
    def note(self) -> str:
        """What is kept in a sentence; empty where nothing is."""
        if not self.count:
            return ""
        return (
            f"{self.count} weights that were zero stayed zero: the network is as sparse as before training."
        )


def _scattered(zero: Tensor) -> Tensor:
    """Return ``zero`` without channels that are zero as a whole, on either side: what pruning by channels,
    or damage, leaves, and what may learn again where nothing else is sparse."""
    flat = zero.flatten(2) if zero.dim() > 2 else zero[:, :, None]
    rows, columns = flat.all(2).all(1), flat.all(2).all(0)
    return flat & ~rows[:, None, None] & ~columns[None, :, None]
