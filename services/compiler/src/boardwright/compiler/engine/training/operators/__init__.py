"""ONNX operators as functions of torch tensors, opset 13 and newer.

- ``registry``: the table, attributes, and the refusal of what is not in it.
- ``arithmetic``: element by element, comparisons, activations, matrix products.
- ``movement``: shapes, joins, slices, gathers.
- ``reduction``: sums, means, extremes, softmax, normalisation.
- ``spatial``: pooling, padding, resizing.
"""

from boardwright.compiler.engine.training.operators import arithmetic, movement, reduction, spatial
from boardwright.compiler.engine.training.operators.registry import (
    Operator,
    find_operator,
    read_attributes,
    supported_operators,
)
from boardwright.compiler.engine.training.operators.spatial import resolve_padding

__all__ = [
    "Operator",
    "arithmetic",
    "find_operator",
    "movement",
    "read_attributes",
    "reduction",
    "resolve_padding",
    "spatial",
    "supported_operators",
]
