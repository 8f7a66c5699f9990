"""Scales that are powers of two: what fixed-point units that shift instead of multiplying take.

A scale is rounded up, so that nothing is cut off, or to the power of two below it where cutting the largest
values off costs less than the halved steps gain. Grids of powers of two hold one another: what lies on one
lies on every finer one, so that values which were rounded once are found on the same grid again.

(Jain et al., "Trained Quantization Thresholds", https://arxiv.org/abs/1903.08066, train such scales; Texas
Instruments' TIDL takes them on devices of the first MMA generation, see the builder's profile ``tidl-mma1``.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.observe.record import TensorRange
from boardwright.compiler.engine.scheme import REDUCED_BOUND, WEIGHT_BOUND

if TYPE_CHECKING:
    import numpy as np
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    Array = np.ndarray[Any, Any]

ACTIVATION_BOUND = 127
"""The largest integer of a symmetric INT8 activation."""

_HALVINGS = 6
"""Where the search for a range ends: below 1/32 of the largest value."""
_SMALLEST = 2.0**-40
"""No scale is below it: products of two scales stay normal numbers."""
_OF_ONE = 2.0**-7
"""The scale of what ends at 1, such as Softmax: 127/128 loses less there than halving every step."""


def next_power_of_two(steps: Array | float) -> Array:
    """Return the least power of two that is not below each of ``steps``: float64, exact."""
    import numpy as np

    mantissa, exponent = np.frexp(np.maximum(np.asarray(steps, np.float64), _SMALLEST))
    # frexp gives a mantissa of 0.5 … 1: exactly 0.5 is a power of two already.
    found: Array = np.ldexp(1.0, np.where(mantissa == 0.5, exponent - 1, exponent))
    return found


def least_error_steps(weight: Array, axes: tuple[int, ...] | None, bound: int) -> Array:
    """Return the steps, powers of two, under which ``weight`` keeps most; ``axes`` share one (None: all).

    Of both neighbours of the exact step the one of less squared error, the upper one if they are equal. The
    result is float64 and has the axes of ``weight``.
    """
    import numpy as np

    value = weight.astype(np.float64)
    largest = np.abs(value).max(axis=axes, keepdims=True)
    upper = np.where(largest > 0, next_power_of_two(largest / bound), 1.0)

    def error(steps: Array) -> Array:
        rounded = np.clip(np.rint(value / steps), -bound, bound) * steps
        found: Array = np.square(rounded - value).sum(axis=axes, keepdims=True)
        return found

    steps: Array = np.where(error(upper / 2) < error(upper), upper / 2, upper)
    return steps


def rounded_up(found: TensorRange) -> TensorRange:
    """Return the symmetric range of the least power-of-two scale that holds ``found``."""
    bound = float(next_power_of_two(found.magnitude / ACTIVATION_BOUND)) * ACTIVATION_BOUND
    return TensorRange(-bound, bound)


def best_of(found: TensorRange, cost: Callable[[float, float], float]) -> TensorRange:
    """Return the range of the power-of-two scale whose ``cost(low, high)`` is least, from the largest down.

    The first that is not better than the one before it ends the search.
    """
    best = rounded_up(found)
    least = cost(best.low, best.high)
    for share in range(1, _HALVINGS):
        bound = rounded_up(found).high / 2**share
        error = cost(-bound, bound)
        if error >= least:
            break
        least, best = error, TensorRange(-bound, bound)
    return best


def power_of_two_quantizer(*arguments: Any) -> QDQQuantizer:
    """Return ONNX Runtime's quantizer, whose every scale is a power of two; ``arguments`` are its own.

    Activations' ranges are taken as given where they are such already (``rounded_up``, ``best_of``).
    """
    import numpy as np
    from onnx import numpy_helper
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    class Quantizer(QDQQuantizer):  # type: ignore[misc]
        """Overrides the three places where scales come from: activations, constants, and wide biases."""

        def calc_quant_params(self, tensor_data: Any, quant_overrides: Any) -> Any:
            found = super().calc_quant_params(tensor_data, quant_overrides)
            low, high = (float(value) for value in tensor_data.range_value)
            scale = _OF_ONE if (low, high) == (0.0, 1.0) else float(next_power_of_two(found["scale"]))
            found.data["scale"] = np.asarray(scale, np.float32)
            return found

        def _calc_initializer_quant_params(self) -> Any:
            found = super()._calc_initializer_quant_params()
            stored = {tensor.name: tensor for tensor in self.model.initializer()}
            for name, parameters in found.items():
                value = numpy_helper.to_array(stored[name])
                axis = parameters.get("axis")
                axes = None if axis is None else tuple(n for n in range(value.ndim) if n != axis % value.ndim)
                bound = REDUCED_BOUND if self.reduce_range else WEIGHT_BOUND
                steps = least_error_steps(value, axes, bound)
                parameters.data["scale"] = steps.reshape(() if axes is None else -1).astype(np.float32)
                # Cut off here: the integers themselves would reach to -128.
                cut = np.clip(value, -bound * steps, bound * steps).astype(value.dtype)
                stored[name].CopyFrom(numpy_helper.from_array(cut, name))
            return found

        def _adjust_weight_quant_params_for_bias_tensors(self) -> None:
            super()._adjust_weight_quant_params_for_bias_tensors()
            for parameters in self.initializer_quant_params.values():
                parameters.data["scale"] = next_power_of_two(parameters["scale"]).astype(np.float32)

    return Quantizer(*arguments)
