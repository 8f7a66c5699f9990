"""How much memory a training step takes, so that a batch can be cut into parts that fit."""

from __future__ import annotations

import torch
from torch import Tensor

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.training.data import Batch
from boardwright.compiler.engine.training.losses import total
from boardwright.compiler.engine.training.objectives import Objective

_OVERHEAD = 1.6
"""Gradients and temporaries beside what is kept for the backward pass, measured on convolutional networks."""


def bytes_per_sample(network: torch.nn.Module, batch: Batch, objective: Objective) -> int:
    """Return what one sample of ``batch`` keeps in memory until its gradient is known."""
    seen: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return value

    one = next(batch.parts(1))
    network.eval()  # one sample has no statistics for a batch norm to take
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = total(objective(network, one))[0]
        kept = sum(seen.values())
        del loss
    return int(kept)


def part_size(network: torch.nn.Module, batch: Batch, objective: Objective, memory_bytes: int) -> int:
    """Return how many samples of ``batch`` fit into ``memory_bytes`` at once.

    The gradient of a batch in parts is that of the whole where nothing looks at all samples together: batch
    norms in training do, and losses over what a batch's outputs vary by, or over its boxes. For the rest less
    memory costs time and no accuracy.

    Raises:
        EngineError: MEMORY_TOO_SMALL, when not even one sample fits.
    """
    weights = int(sum(parameter.numel() * 4 for parameter in network.parameters()))
    left = memory_bytes - 4 * weights  # weights, gradients and the optimizer's two moments
    each = int(bytes_per_sample(network, batch, objective) * _OVERHEAD)
    if left < each:
        raise EngineError(
            "MEMORY_TOO_SMALL",
            f"Training one sample takes about {(each + 4 * weights) >> 20} MiB, and "
            f"{memory_bytes >> 20} MiB are allowed. Use a smaller network or input size.",
        )
    return min(len(batch), max(1, left // max(1, each)))
