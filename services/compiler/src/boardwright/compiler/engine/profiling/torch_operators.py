"""The same network under ``torch.profiler``: what training and eager PyTorch spend their time on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

_OWN = "aten::"
_RUNS = 5


@dataclass(frozen=True, slots=True)
class TorchOperator:
    """One operator: how often it ran in a forward pass and its own milliseconds there."""

    operator: str
    calls: int
    milliseconds: float


def profile_torch(
    model: onnx.ModelProto, feed: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[TorchOperator, ...]:
    """Return the operators of a float32 graph as PyTorch runs it here, dearest first.

    Raises:
        EngineError: TRAINING_OPERATOR_UNSUPPORTED, when the graph has an operator with no PyTorch form here.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its start and stop are no news
    import torch
    from torch.profiler import ProfilerActivity, profile

    from boardwright.compiler.engine.training.network import to_torch

    network = to_torch(model).eval()
    tensors = {name: torch.from_numpy(values) for name, values in feed.items()}
    with torch.no_grad():
        network(tensors)
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(_RUNS):
                network(tensors)
    found = [
        TorchOperator(
            str(event.key).removeprefix(_OWN), event.count // _RUNS, event.self_cpu_time_total / 1000 / _RUNS
        )
        for event in recorded.key_averages()
        if str(event.key).startswith(_OWN) and event.self_cpu_time_total > 0
    ]
    return tuple(sorted(found, key=lambda operator: -operator.milliseconds))
