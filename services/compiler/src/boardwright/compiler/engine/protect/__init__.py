"""Pass ``protect``: what must stay in floating point, found by structure and ranges, explained in sentences.

No rule knows any architecture. In ``rules`` they come together:

- ``joins``: inputs of very different magnitude under one scale (Concat, Where, Scatter, Add).
- ``decode``: what follows the last layers, and what leads to choices and coordinates in mid-network.
- ``attention``, ``normalization``: softmax over positions, and norms that an exporter wrote out.
- ``weights``: channels too different for per-tensor kernels.
- ``conversions``: what each island of floats costs, and pockets that should be part of one.

``structure`` is what they ask of a graph; ``exclusion`` is what they give.
"""

from boardwright.compiler.engine.protect.exclusion import Exclusion, excluded_names
from boardwright.compiler.engine.protect.joins import JOIN_RATIO, wide_join_ratio
from boardwright.compiler.engine.protect.rules import RULES, protect
from boardwright.compiler.engine.protect.structure import is_layer

__all__ = [
    "JOIN_RATIO",
    "RULES",
    "Exclusion",
    "excluded_names",
    "is_layer",
    "protect",
    "wide_join_ratio",
]
