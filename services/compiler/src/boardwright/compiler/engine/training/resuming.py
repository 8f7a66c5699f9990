"""The state of training in a file, so that what was interrupted goes on where it was."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class TrainState:
    """What is needed to go on after ``epoch`` epochs; batches depend on nothing but the epoch's number."""

    epoch: int
    steps: int
    samples: int
    losses: list[float]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    best: dict[str, Any] | None = None
    judged: list[float] = field(default_factory=list)
    kept_epoch: int | None = None
    went_back: int = 0


def save_state(path: Path, state: TrainState, options: dict[str, Any]) -> None:
    """Write ``state``; the file is whole or not there, also when the process is killed while writing."""
    written = path.with_suffix(".writing")
    values = {field: getattr(state, field) for field in TrainState.__slots__}
    torch.save({"options": options, **values}, written)
    os.replace(written, path)


def load_state(path: Path, options: dict[str, Any]) -> TrainState | None:
    """Return what ``save_state`` wrote, or None where there is nothing, or it is of other options."""
    if not path.exists():
        return None
    values = torch.load(path, weights_only=True)
    if values.pop("options") != options:
        return None
    return TrainState(**values)
