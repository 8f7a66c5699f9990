"""Rounding that can be trained through: scales are learnt together with the weights.

Learned step sizes (Esser et al., LSQ, https://arxiv.org/abs/1902.08153) in the logarithmic domain (Jain et
al., TQT, https://arxiv.org/abs/1903.08066), so that one learning rate suits scales of 0.001 and of 100.
Gradients pass rounding as if it were not there, and stop where values are cut off.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from boardwright.compiler.engine.observe import CalibrationRecord, TensorRange
from boardwright.compiler.engine.power_of_two import least_error_steps
from boardwright.compiler.engine.scheme import LEAST_RANGE, REDUCED_BOUND, WEIGHT_BOUND, QuantizationScheme
from boardwright.compiler.engine.training.layers import Layer
from boardwright.compiler.engine.training.network import GraphNetwork
from boardwright.compiler.engine.training.quantization_places import (
    ActivationPlace,
    QuantizationPlaces,
    WeightPlace,
)
from boardwright.toolchains.pairs import is_depthwise

RANGES = ("learned", "moving-average")
_SMALLEST_SIZE = 1e-3
"""Root mean square below which a tensor (a bias of zeros) learns as if it had this size."""


class _Round(torch.autograd.Function):  # type: ignore[misc]
    """scale * clamp(round(x / scale), low, high) with LSQ's gradients; low and high without zero point."""

    @staticmethod
    def forward(context: Any, value: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        context.save_for_backward(value, scale)
        context.bounds = low, high
        return (value / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        value, scale = context.saved_tensors
        low, high = context.bounds
        level = value / scale
        rounded = level.round()
        inside = (rounded >= low) & (rounded <= high)
        for_value = gradient * inside
        for_scale = None
        if context.needs_input_grad[1]:
            error = torch.where(inside, rounded - level, rounded.clamp_(low, high))
            for_scale = (gradient * error).sum_to_size(scale.shape)
        return for_value, for_scale, None, None


def _nearest_power_of_two(scale: Tensor) -> Tensor:
    """Return the power of two that is nearest in the logarithm; gradients of ``scale``'s logarithm pass."""
    exact = _exp2(scale.detach().log2().round())
    found: Tensor = exact * (1 + scale.log() - scale.detach().log())
    return found


def _next_power_of_two(scale: Tensor) -> Tensor:
    """Return the least power of two that is not below ``scale``; no gradient passes."""
    mantissa, exponent = torch.frexp(scale.detach())
    return _exp2(exponent - (mantissa == 0.5).to(exponent.dtype))


def _exp2(exponent: Tensor) -> Tensor:
    """Return 2 to integers, exactly: ``torch.exp2`` may be off by the last bit."""
    bits = (exponent.to(torch.int32).clamp(-126, 127) + 127) << 23
    return bits.view(torch.float32)


class FakeQuantizeActivation(torch.nn.Module):  # type: ignore[misc]
    """Rounds an activation as its QuantizeLinear will. ``ranges`` is ``learned`` or ``moving-average``.

    With learnt ranges the zero point stays as calibrated, and so does the share of the range below zero.
    ``power_of_two`` keeps the scale to powers of two: the nearest while it is learnt, else the next above.
    """

    def __init__(
        self, place: ActivationPlace, ranges: str, symmetric: bool, power_of_two: bool = False
    ) -> None:
        super().__init__()
        self.place, self._symmetric, self._power_of_two = place, symmetric, power_of_two
        self._learned = ranges == "learned" or place.fixed
        self._start = place.scale
        if self._learned:
            self.log_factor = torch.nn.Parameter(torch.zeros(()), requires_grad=not place.fixed)
        else:
            low = (place.low - place.zero_point) * place.scale
            high = (place.high - place.zero_point) * place.scale
            self.register_buffer("extremes", torch.tensor([low, high]))

    @property
    def scale(self) -> Tensor:
        """The scale, a scalar."""
        if self._learned:
            scale = self._start * self.log_factor.exp()
            return _nearest_power_of_two(scale) if self._power_of_two else scale
        low, high = self.extremes.clone()
        low, high = low.clamp(max=0), high.clamp(min=0)
        if self._symmetric:
            steps = self.place.high - max(self.place.low, -self.place.high)
            scale = (2 * torch.maximum(-low, high) / steps).clamp(min=LEAST_RANGE / steps)
            return _next_power_of_two(scale) if self._power_of_two else scale
        steps = self.place.high - self.place.low
        return ((high - low) / steps).clamp(min=LEAST_RANGE / steps)

    @property
    def zero_point(self) -> int:
        """The zero point: as calibrated, or of the extremes, whatever state these were loaded from."""
        if self._learned or self._symmetric:
            return self.place.zero_point
        low = float(self.extremes[0].clamp(max=0))
        zero = round(self.place.low - low / float(self.scale))
        return min(max(zero, self.place.low), self.place.high)

    def forward(self, value: Tensor) -> Tensor:
        """Return ``value`` rounded."""
        if not self._learned and self.training:
            with torch.no_grad():
                seen = torch.stack(torch.aminmax(value))
                self.extremes.lerp_(seen, 0.05)
        zero = self.zero_point
        rounded: Tensor = _Round.apply(value, self.scale, self.place.low - zero, self.place.high - zero)
        return rounded

    def range(self) -> TensorRange:
        """Return the range from which the quantizer computes this scale and zero point."""
        scale = float(self.scale.detach())
        low, high = self.place.low, self.place.high
        if self._symmetric:  # signed types then use -127 … 127
            largest = scale * (high - max(low, -high)) / 2
            return TensorRange(-largest, largest)
        return TensorRange((low - self.zero_point) * scale, (high - self.zero_point) * scale)


class FakeQuantizeWeight(torch.nn.Module):  # type: ignore[misc]
    """Rounds a weight as the quantizer will, as a torch parametrization.

    The quantizer takes the scale from the largest weight. To learn the scale means to learn where to cut
    weights off: outliers are left out that cost all others their precision. ``scale`` is that of the latest
    forward pass. What is trained is each weight over the ``size`` of its output channel (axis ``channels``):
    folded batch norms leave channels that differ a thousandfold, and one rate has to suit them all.
    ``groups`` are the layer's.
    """

    def __init__(
        self,
        weight: Tensor,
        axis: int | None,
        scheme: QuantizationScheme,
        learned: bool,
        channels: int = 0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self._others = [other for other in range(weight.dim()) if other != axis] if axis is not None else None
        self._low, self._high = weight_bounds(scheme, is_depthwise(weight.shape, groups))
        self._symmetric, self._power_of_two = scheme.weight_symmetric, scheme.power_of_two
        self._kept_rounded = scheme.power_of_two or scheme.bounds_pairs
        self._learned = learned and self._symmetric
        self.scale = torch.ones(())
        self.register_buffer("size", _channel_sizes(weight.detach(), channels))
        largest = self._most(weight.detach().abs())
        if self._power_of_two:
            axes = tuple(self._others) if self._others is not None else None
            steps = least_error_steps(weight.detach().numpy(), axes, self._high)
            largest = torch.from_numpy(steps * self._high).float().reshape(largest.shape)
        self.register_buffer("_start", largest.clamp(min=1e-12))
        if self._learned:
            self.log_factor = torch.nn.Parameter(torch.zeros_like(largest))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what is trained in the place of ``weight``: its share of its channel's size."""
        return weight / self.size

    def forward(self, share: Tensor) -> Tensor:
        """Return the weight that ``share`` stands for, rounded."""
        weight = share * self.size
        if self._symmetric:
            scale = self._learned_scale(weight)
            zero = round((self._high + self._low) / 2 + 0.25) if self._low >= 0 else 0
            self.scale = scale.detach()
            rounded: Tensor = _Round.apply(weight, scale, self._low - zero, self._high - zero)
            return rounded
        high = self._most(weight.detach()).clamp(min=0)
        low = -self._most(-weight.detach()).clamp(min=0)
        scale = ((high - low) / (self._high - self._low)).clamp(min=1e-12)
        self.scale = scale
        zero_point = (self._low - low / scale).round()
        level = (weight / scale).round() + zero_point
        kept = (level.clamp(self._low, self._high) - zero_point) * scale
        return weight + (kept - weight).detach()

    def _learned_scale(self, weight: Tensor) -> Tensor:
        limit = self._most(weight.detach().abs()).clamp(min=1e-12)
        if not self._power_of_two:
            if self._learned:
                limit = torch.minimum(limit, self._start * self.log_factor.exp())
            return 2 * limit / (self._high - self._low)
        scale = _next_power_of_two(limit / self._high)
        if self._learned:
            learnt = _nearest_power_of_two(self._start / self._high * self.log_factor.exp())
            scale = torch.minimum(scale, learnt)
        return scale

    def clipped(self, share: Tensor) -> Tensor:
        """Return the float weight from whose largest value the quantizer computes the learnt scale.

        Where the quantizer looks for a grid of its own (powers of two, pairs of weights) it is the rounded
        weight, on whose grid it then comes out.
        """
        weight = share * self.size
        if self._kept_rounded:
            return self(share).detach()
        if not self._learned:
            return weight
        limit = self._start * self.log_factor.detach().exp()
        return torch.minimum(torch.maximum(weight, -limit), limit)

    def _most(self, value: Tensor) -> Tensor:
        return value.max() if self._others is None else value.amax(self._others, keepdim=True)


class FakeQuantizeBias(torch.nn.Module):  # type: ignore[misc]
    """Rounds a bias to multiples of its layer's input scale times weight scale, as 32-bit integers are.

    Where weights have one scale for unlike channels, these multiples are coarse enough to matter.
    """

    def __init__(self, given: FakeQuantizeActivation, weight: FakeQuantizeWeight) -> None:
        super().__init__()
        self._scales = (given, weight)  # in a tuple, so that they are no submodules of this one
        reach = given.place.scale * max(-given.place.low, given.place.high) / 4
        self.register_buffer("size", weight.size.reshape(-1) * reach)

    def right_inverse(self, bias: Tensor) -> Tensor:
        """Return what is trained in the place of ``bias``: a change of it weighs as one of all weights."""
        return bias / self.size

    def forward(self, share: Tensor) -> Tensor:
        """Return the bias that ``share`` stands for, rounded; a layer reads its weight first."""
        bias = share * self.size
        given, weight = self._scales
        scale = given.scale.detach() * weight.scale.reshape(-1)
        return bias + ((bias / scale).round() * scale - bias).detach()


def _channel_sizes(weight: Tensor, channels: int) -> Tensor:
    """Return each channel's root mean square, shaped to be multiplied with ``weight``; none is near 0."""
    others = [axis for axis in range(weight.dim()) if axis != channels]
    if not others:
        return torch.ones_like(weight)
    sizes = weight.square().mean(others, keepdim=True).sqrt()
    return sizes.clamp(min=max(float(sizes.max()) * 1e-4, 1e-8))


def weight_bounds(scheme: QuantizationScheme, depthwise: bool = False) -> tuple[int, int]:
    """Return the smallest and largest integer that a weight is trained to become.

    Seven bits keep every pair of weights below what saturates, however training moves them; ``depthwise``
    weights have no pairs.
    """
    if scheme.bounds_pairs and depthwise:
        return -WEIGHT_BOUND, WEIGHT_BOUND
    if scheme.weight_type == "uint8":
        return (0, 127) if scheme.reduce_range else (0, 255)
    if scheme.reduce_range:
        return -REDUCED_BOUND, REDUCED_BOUND
    return (-WEIGHT_BOUND, WEIGHT_BOUND) if scheme.weight_symmetric else (-128, 127)


class RoundedNetwork:
    """A network made to round where its quantized graph will, and what training made of the scales."""

    def __init__(
        self, network: GraphNetwork, places: QuantizationPlaces, scheme: QuantizationScheme, ranges: str
    ) -> None:
        self._network = network
        self.activations = torch.nn.ModuleList()
        self._weights: list[tuple[Layer, str, FakeQuantizeWeight]] = []
        self._biases: list[Layer] = []
        for place in places.activations:
            fake = FakeQuantizeActivation(place, ranges, scheme.activation_symmetric, scheme.power_of_two)
            self.activations.append(fake)
            network.taps.update(dict.fromkeys(place.rounded, fake))
        network.add_module("activation_rounding", self.activations)
        for weight in places.weights:
            self._attach(weight, scheme, ranges == "learned")
        self._round_biases(places)

    def _round_biases(self, places: QuantizationPlaces) -> None:
        given = {tensor: fake for fake in self.activations for tensor in fake.place.tensors}
        for layer, own, fake in self._weights[:]:
            name = next((name for name, role in layer.owned.items() if role == "bias"), "")
            if own == "weight" and name in places.biases and layer.inputs[0] in given:
                bias = FakeQuantizeBias(given[layer.inputs[0]], fake)
                torch.nn.utils.parametrize.register_parametrization(layer.module, "bias", bias)
                self._biases.append(layer)

    def _attach(self, place: WeightPlace, scheme: QuantizationScheme, learned: bool) -> None:
        layers = [layer for layer in self._network.layers_by_node.values() if place.tensor in layer.owned]
        if not layers:
            constant = self._network.constant(place.tensor)
            fake = FakeQuantizeWeight(constant, place.axis, scheme, learned=False)
            self._network.taps[place.tensor] = fake
        for layer in layers:
            own = layer.owned[place.tensor]
            weight = getattr(layer.module, own)
            axis = place.axis
            if axis is not None and place.tensor in layer.turned:
                axis = 1 - axis
            transposed = "Transpose" in type(layer.module).__name__
            groups = 1 if transposed else getattr(layer.module, "groups", 1)
            fake = FakeQuantizeWeight(
                weight, axis, scheme, learned and weight.requires_grad, int(transposed), groups
            )
            torch.nn.utils.parametrize.register_parametrization(layer.module, own, fake)
            self._weights.append((layer, own, fake))

    def groups(self, scale_rate: float) -> list[dict[str, Any]]:
        """Return parameter groups for the optimizer.

        All learn at a rate relative to their own size (as LARS, https://arxiv.org/abs/1708.03888): what is
        rounded is trained as shares of it already. Logarithms of scales learn at ``scale_rate`` times it.
        """
        groups: list[dict[str, Any]] = []
        for name, parameter in self._network.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.endswith("log_factor"):
                groups.append({"params": [parameter], "rate_factor": scale_rate, "weight_decay": 0.0})
            elif name.endswith(".original"):
                groups.append({"params": [parameter], "rate_factor": 1.0})
            else:
                size = float(parameter.detach().square().mean().sqrt())
                groups.append({"params": [parameter], "rate_factor": max(size, _SMALLEST_SIZE)})
        return groups

    def finish(self, record: CalibrationRecord, samples: int) -> CalibrationRecord:
        """Take the rounding off the network, whose weights stay float; return ``record`` with its ranges."""
        for layer in self._biases:
            parametrized = layer.module.parametrizations["bias"]
            with torch.no_grad():
                bias = parametrized.original * parametrized[0].size
                torch.nn.utils.parametrize.remove_parametrizations(
                    layer.module, "bias", leave_parametrized=False
                )
                layer.module.bias.copy_(bias)
        for layer, own, rounding in self._weights:
            original = layer.module.parametrizations[own].original
            with torch.no_grad():
                clipped = rounding.clipped(original.detach())
                torch.nn.utils.parametrize.remove_parametrizations(
                    layer.module, own, leave_parametrized=False
                )
                getattr(layer.module, own).copy_(clipped)
        ranges = dict(record.ranges)
        for fake in self.activations:
            found = fake.range()
            if not (math.isfinite(found.low) and math.isfinite(found.high)):
                continue
            ranges.update(dict.fromkeys(fake.place.tensors, found))
        self._network.taps.clear()
        del self._network.activation_rounding
        return replace(record, method="trained", samples=samples, ranges=ranges, means={}, statistics={})
