"""Which weights of a layer x86 kernels without VNNI multiply and add two by two, in 16 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LARGEST_PAIR = 128
"""255 × 128 < 2^15: products with uint8 fit where a pair of weights of one sign sums up to this."""


def is_depthwise(shape: Sequence[int], groups: int) -> bool:
    """Whether a convolution has one kernel for each channel and no other; its weight is of ``shape``.

    Its kernels widen each factor to 16 bits before they multiply: no weight has a pair. Several kernels for a
    channel are computed as a matrix product, in pairs along the kernel. (Found by running ONNX Runtime 1.31
    and OpenVINO 2026.4 on such a CPU: kernels of 1 to 7, strides, dilations, 1 to 3 axes, 2 to 96 channels.)
    """
    return groups > 1 and shape[0] == groups and shape[1] == 1


def largest_pairs(weight: Array, groups: int = 1) -> Array:
    """Return the largest sum of equal signs over pairs of neighbours of ``weight`` (O, I, kernel...): (O,).

    The kernels go over a layer's inputs with the channels innermost. An odd channel pairs with the next place
    of the kernel (ONNX Runtime) or stays alone (oneDNN): both count. Found by running both on such a CPU.
    Depthwise weights have no pairs; the largest of each is returned.
    """
    import numpy as np

    if is_depthwise(weight.shape, groups):
        largest: Array = np.abs(weight).reshape(len(weight), -1).max(axis=1, initial=0).astype(np.float64)
        return largest
    inner = np.moveaxis(weight, 1, -1).reshape(len(weight), -1, weight.shape[1])
    found: Array = np.zeros(len(weight))
    for flat in (inner.reshape(len(weight), 1, -1), inner) if inner.shape[2] % 2 else (inner,):
        even = np.pad(flat, ((0, 0), (0, 0), (0, flat.shape[2] % 2)))
        pairs = even.reshape(len(weight), -1, 2)
        for sign in (1, -1):
            found = np.maximum(found, np.maximum(sign * pairs, 0).sum(axis=2).max(axis=1, initial=0))
    return found
