"""Lets a graph that is fixed at one batch size run at any.

Exporters write the batch size into Reshape shapes and fold expanded tokens into constants. What such a
constant means at another batch size is found by running the graph once at its own size and comparing: a
Reshape whose shape does not follow the batch, although its input does, has its batch axis scaled; a constant
joined to tensors of another batch size is repeated. No operator needs a rule of its own, and the batch may
stand at any axis or be merged into one (windows, attention heads).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
_Key = tuple[Shape, int]


@dataclass(slots=True)
class _Seen:
    """Input shape and asked-for shape of each Reshape, by the call's index, at the native batch size."""

    shapes: dict[int, tuple[Shape, Shape]] = field(default_factory=dict)


class BatchKeeper:
    """What the Reshapes of one network do at the native batch size ``native``, per input size."""

    def __init__(self, native: int) -> None:
        self.batch = native
        self._seen: dict[_Key, _Seen] = {}
        self._current: _Seen | None = None
        self._learning = False

    def must_learn(self, first: Tensor, network: torch.nn.Module) -> bool:
        """Tell whether an input of this shape needs a run at the native batch size first."""
        return first.shape[0] != self.batch and _key(first, network) not in self._seen

    def native(self, value: Tensor) -> Tensor:
        """Return ``value`` cut, or repeated, to the native batch size."""
        repeats = -(-self.batch // value.shape[0])
        return torch.cat([value] * repeats)[: self.batch] if repeats > 1 else value[: self.batch]

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Remember the shapes that Reshapes see while it lasts."""
        self._learning, self._current = True, _Seen()
        try:
            yield
        finally:
            self._learning = False

    @contextmanager
    def keeping(self, first: Tensor, network: torch.nn.Module) -> Iterator[None]:
        """Use what was learnt for inputs like ``first`` while it lasts."""
        key = _key(first, network)
        if first.shape[0] != self.batch:
            if key not in self._seen and self._current is not None:
                self._seen[key] = self._current
            self._current = self._seen.get(key)
        else:
            self._current = None
        try:
            yield
        finally:
            self._current = None

    def adapt(
        self, index: int, kind: str, arguments: list[Tensor | None], attributes: Mapping[str, Any]
    ) -> list[Tensor | None]:
        """Return the arguments of call ``index`` as they have to be at the batch size that runs now."""
        if self._current is None:
            return arguments
        if kind == "Reshape":
            return self._reshape(index, arguments, self._current)
        if kind == "Concat" and not self._learning:
            return _repeat_constants(arguments, int(attributes["axis"]))
        return arguments

    def _reshape(self, index: int, arguments: list[Tensor | None], seen: _Seen) -> list[Tensor | None]:
        data, wanted = arguments[0], arguments[1]
        assert data is not None
        assert wanted is not None
        shape, asked = tuple(data.shape), tuple(int(length) for length in wanted)
        if self._learning:
            seen.shapes[index] = (shape, asked)
            return arguments
        native_shape, native_asked = seen.shapes[index]
        if len(shape) != len(native_shape):  # a batch of 1 was squeezed away: no axis answers to another
            return arguments
        axes = [axis for axis, length in enumerate(shape) if length != native_shape[axis]]
        if asked != native_asked or len(axes) != 1:
            return arguments
        axis = axes[0]
        resolved = _resolve(native_shape, asked)
        outer = prod(native_shape[:axis])
        for place in range(len(resolved)):
            if prod(resolved[:place]) == outer:
                scaled = resolved[place] * shape[axis] // native_shape[axis]
                fixed = (*resolved[:place], scaled, *resolved[place + 1 :])
                return [data, torch.tensor(fixed), *arguments[2:]]
        return arguments


def _resolve(shape: Shape, asked: Shape) -> Shape:
    """Return the shape that a Reshape of ``shape`` gives, with 0 and -1 replaced."""
    known = [shape[axis] if length == 0 else length for axis, length in enumerate(asked)]
    rest = prod(length for length in known if length != -1)
    return tuple(prod(shape) // max(rest, 1) if length == -1 else length for length in known)


def _repeat_constants(arguments: list[Tensor | None], axis: int) -> list[Tensor | None]:
    """Expand inputs of length 1 to the others' length on every axis but the one they are joined on."""
    given = [value for value in arguments if value is not None]
    rank = given[0].dim()
    if not rank or any(value.dim() != rank for value in given):
        return arguments
    axis %= rank
    lengths = [max(value.shape[other] for value in given) for other in range(rank)]
    return [
        value.expand([value.shape[o] if o == axis else lengths[o] for o in range(rank)])
        if value is not None
        and all(value.shape[o] in (1, lengths[o]) for o in range(rank) if o != axis)
        else value
        for value in arguments
    ]  # fmt: skip


def _key(first: Tensor, network: torch.nn.Module) -> _Key:
    """Return what shapes inside of the network depend on beside the batch: the sizes of input and weights."""
    return tuple(first.shape[1:]), sum(parameter.numel() for parameter in network.parameters())
