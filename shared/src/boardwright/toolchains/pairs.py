"""Which weights of a layer x86 kernels without VNNI multiply and add two by two, in 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LARGEST_PAIR = 128
"""255 × 128 < 2^15: products with uint8 fit where a pair of weights of one sign sums up to this."""


def largest_pairs(weight: Array) -> Array:
    """Return the largest sum of equal signs over pairs of neighbours of ``weight`` (O, I, kernel...): (O,).

    The kernels go over a layer's inputs with the channels innermost. An odd channel pairs with the next place
    of the kernel (ONNX Runtime) or stays alone (oneDNN): both count. Found by running both on such a CPU.
    """
    import numpy as np

    inner = np.moveaxis(weight, 1, -1).reshape(len(weight), -1, weight.shape[1])
    found: Array = np.zeros(len(weight))
    for flat in (inner.reshape(len(weight), 1, -1), inner) if inner.shape[2] % 2 else (inner,):
        even = np.pad(flat, ((0, 0), (0, 0), (0, flat.shape[2] % 2)))
        pairs = even.reshape(len(weight), -1, 2)
        for sign in (1, -1):
            found = np.maximum(found, np.maximum(sign * pairs, 0).sum(axis=2).max(axis=1, initial=0))
    return found
