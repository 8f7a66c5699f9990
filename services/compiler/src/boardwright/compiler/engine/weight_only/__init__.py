"""Pass ``quantize-weights``: 4- or 8-bit weights in blocks, activations in floating point: for transformers.

A transformer on a small board waits for its weights: at batch 1 every weight is read once per token. Weights
of 4 bits are an eighth to read; the arithmetic stays in floating point, so no activation range can be wrong.
For convolutional networks this gains nothing: their weights are read once and used often.

- ``layers``: which MatMuls there are; Gemms become MatMuls first.
- ``rounding``: what a block of integers makes of weights, in NumPy.
- ``awq``: activation-aware scales in front of it (Lin et al., AWQ, MLSys 2024).
- ``quantizing``: the whole way, over ONNX Runtime's own quantizers and its ``MatMulNBits``.
"""

from boardwright.compiler.engine.weight_only.quantizing import (
    ALGORITHMS,
    WeightOnlyModel,
    WeightOnlyOptions,
    quantize_weights,
)

__all__ = ["ALGORITHMS", "WeightOnlyModel", "WeightOnlyOptions", "quantize_weights"]
