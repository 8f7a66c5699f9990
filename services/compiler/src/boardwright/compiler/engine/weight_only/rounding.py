"""What a block of integers makes of weights: the arithmetic of ``MatMulNBits``, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def round_in_blocks(
    weight: np.ndarray[Any, Any], bits: int, block_size: int, symmetric: bool
) -> np.ndarray[Any, Any]:
    """Return a float32 weight [K, N] as it is after rounding to ``bits`` in blocks of ``block_size`` along K.

    Each block of each column has a scale of its own and, unless ``symmetric``, a zero point. The last block
    is padded with zeros, as the operator does.
    """
    import numpy as np

    rows, columns = weight.shape
    padded = np.zeros((-(-rows // block_size) * block_size, columns), np.float32)
    padded[:rows] = weight
    blocks = padded.reshape(-1, block_size, columns)
    levels = (1 << bits) - 1
    middle = 1 << (bits - 1)
    if symmetric:
        # The end of the range that is farther from zero gets the integer -middle.
        low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
        extreme = np.where(np.abs(low) >= np.abs(high), low, high)
        scale = extreme / -middle
        zero: Any = middle
    else:
        low = np.minimum(blocks.min(axis=1, keepdims=True), 0)
        high = np.maximum(blocks.max(axis=1, keepdims=True), 0)
        scale = (high - low) / levels
        zero = np.clip(np.rint(-low / np.where(scale == 0, 1, scale)), 0, levels)
    step = np.where(scale == 0, 1, scale)
    integers = np.clip(np.rint(blocks / step) + zero, 0, levels)
    restored = (integers - zero) * scale
    return np.asarray(restored.reshape(-1, columns)[:rows], np.float32)
