"""How a tensor's memory is read: as (outer, positions, lanes), whatever its layout.

Channels in blocks (NCHWc) lie as (N · C/block, H · W, block), channels first as (N · C, H · W, 1), channels
last as (1, N · T, C). Reducing the positions leaves the channels; a sample takes the same positions of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.observe.record import ChannelStatistics

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_FEWEST_POSITIONS = 2
_CACHE_LINE_FLOATS = 16


@dataclass(frozen=True, slots=True)
class View:
    """A tensor's memory in three axes. ``axis`` is that of its channels, None where it has none.

    ``batch`` and ``channels`` tell real channels from the zeros that fill the last block.
    """

    outer: int
    positions: int
    lanes: int
    batch: int
    channels: int
    axis: int | None

    @property
    def size(self) -> int:
        """How many floats the memory holds, filling included."""
        return self.outer * self.positions * self.lanes

    @property
    def columns(self) -> int:
        """How many values are left when the positions are reduced."""
        return self.outer * self.lanes

    @property
    def filled(self) -> bool:
        """Whether the last block of channels holds zeros that are no values."""
        return self.columns > self.batch * self.channels

    def per_channel(self, columns: Array) -> Array:
        """Return ``columns`` (outer · lanes) as (batch, channels) without filling."""
        found: Array = columns.reshape(self.batch, -1)[:, : self.channels]
        return found

    def values(self, memory: Array) -> Array:
        """Return ``memory`` (..., outer, positions taken, lanes) without the filling of the last block."""
        if not self.filled:
            return memory
        blocks = self.outer // self.batch
        real = self.channels - (blocks - 1) * self.lanes
        parted = memory.reshape(*memory.shape[:-3], self.batch, blocks, *memory.shape[-2:])
        import numpy as np

        whole, last = parted[..., :-1, :, :], parted[..., -1, :, :real]
        return np.concatenate([whole.reshape(-1), last.reshape(-1)])

    def channel_statistics(self, low: Array, high: Array) -> ChannelStatistics | None:
        """Return each channel's range from the reduced ``low`` and ``high`` (outer · lanes)."""
        if self.axis is None:
            return None
        lows, highs = self.per_channel(low).min(axis=0), self.per_channel(high).max(axis=0)
        return ChannelStatistics(self.axis, tuple(lows.tolist()), tuple(highs.tolist()))


def blocked_view(shape: tuple[int, ...], block: int) -> View:
    """Return the view of a tensor (N, C, ...) whose channels lie in blocks."""
    batch, channels, *space = shape
    return View(batch * -(-channels // block), math.prod(space), block, batch, channels, 1)


def plain_view(shape: tuple[int, ...], channels_last: bool) -> View:
    """Return the view of a tensor in the usual layout."""
    if len(shape) < 2:
        size = math.prod(shape)
        return View(1, 1, size, 1, size, None)
    if channels_last or len(shape) == 2:
        return View(1, math.prod(shape[:-1]), shape[-1], 1, shape[-1], len(shape) - 1)
    batch, channels, *space = shape
    return View(batch * channels, math.prod(space), 1, batch, channels, 1)


def sampled_view(view: View, values: int) -> tuple[View, int]:
    """Return the view to sample by and how many of its positions make about ``values`` values.

    Single floats are taken together as far as they lie in one cache line.
    """
    if view.lanes == 1:
        widest = max(1, min(_CACHE_LINE_FLOATS, values // (view.outer * _FEWEST_POSITIONS)))
        lanes = next(width for width in range(widest, 0, -1) if view.positions % width == 0)
        view = View(view.outer, view.positions // lanes, lanes, view.outer, lanes, None)
    wanted = max(_FEWEST_POSITIONS, -(-values // view.columns))
    if 2 * wanted > view.positions:
        return view, view.positions
    return view, wanted
