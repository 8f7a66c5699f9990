"""A block of layers that learns to give, rounded, what its float original gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import EngineError
from boardwright.compiler.engine.observe import CalibrationRecord
from boardwright.compiler.engine.recover.segments import Segment, multiplications
from boardwright.compiler.engine.scheme import QuantizationScheme

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from boardwright.compiler.engine.training.fake_quantize import RoundedNetwork
    from boardwright.compiler.engine.training.network import GraphNetwork
    from boardwright.compiler.engine.training.quantization_places import QuantizationPlaces

    State = dict[str, Tensor]

_HELPED = 0.99
"""A block is kept when its held-out error is below this share of what it was."""

_SHARES_OF_THE_WAY = (1.0, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class ReconstructionOptions:
    """How blocks learn.

    ``work`` bounds the cost: multiplications of the forward passes that are learnt from, for the whole graph.
    ``weight_rate`` is in steps of a weight's grid per update, ``scale_rate`` of the logarithms of
    activation scales, ``bias_rate`` in shares of the mean bias.
    """

    layers_per_block: int = 10
    work: float = 3e10
    most_updates: int = 60
    fewest_updates: int = 16
    weight_rate: float = 0.01
    scale_rate: float = 1e-3
    bias_rate: float = 2e-3
    seed: int = 0

    def updates(self, model: onnx.ModelProto) -> tuple[int, int]:
        """Return how many updates each block makes, and from how many samples each."""
        samples = self.work / max(multiplications(model), 1)
        updates = int(min(max(samples, self.fewest_updates), self.most_updates))
        return updates, int(min(max(samples / updates, 1), 8))


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """What became of a block: its relative output error on held-out samples, before and after."""

    layers: tuple[str, ...]
    before: float
    after: float
    applied: bool
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-able values."""
        return {
            "layers": list(self.layers),
            "error_before": float(f"{self.before:.4g}"),
            "error_after": float(f"{self.after:.4g}"),
            "applied": self.applied,
            "reason": self.reason,
        }


class Block:
    """One block: its float network, its rounded one, and how the second learns from the first."""

    def __init__(
        self,
        aim: Segment,
        start: Segment,
        places: QuantizationPlaces,
        scheme: QuantizationScheme,
        options: ReconstructionOptions,
    ) -> None:
        self._aim, self._start, self._scheme, self._options = aim, start, scheme, options
        self._places = places
        self._float = _network(aim.model)
        self._rounded, self._rounding = self._fresh()

    def _fresh(self) -> tuple[GraphNetwork, RoundedNetwork]:
        from boardwright.compiler.engine.training.fake_quantize import RoundedNetwork

        network = _network(self._start.model)
        return network, RoundedNetwork(network, self._places, self._scheme, "learned")

    def targets(self, states: Sequence[State]) -> list[State]:
        """Return what the float block makes of each state."""
        return [_run(self._float, state, self._aim) for state in states]

    def advance(self, states: Sequence[State]) -> None:
        """Add to each state what the rounded block makes of it."""
        for state in states:
            state.update(_run(self._rounded, state, self._start))

    def learn(
        self,
        states: Sequence[State],
        targets: Sequence[State],
        count: int,
        updates: int,
        batch: int,
        generator: Any,
    ) -> BlockRecord:
        """Learn from the first ``count`` states, be judged by the rest."""
        spread = _spread(targets[:count])
        before = self._error(states[count:], targets[count:], spread)
        rated = self._rated()
        if not rated or not self._start.layers or not spread:  # what never changes cannot be off by much
            return BlockRecord(self._start.layers, before, before, False, "It has nothing to learn.")
        start = [value.detach().clone() for value, _ in rated]
        self._descend(states[:count], targets[:count], spread, rated, updates, batch, generator)
        after = self._best_of_the_way(rated, start, states[count:], targets[count:], spread)
        if not after < before * _HELPED:
            self._rounded, self._rounding = self._fresh()
            reason = "On samples that it did not learn from its error did not fall: it stays as it was."
            return BlockRecord(self._start.layers, before, after, False, reason)
        return BlockRecord(self._start.layers, before, after, True)

    def _best_of_the_way(
        self,
        rated: list[tuple[Tensor, float]],
        start: Sequence[Tensor],
        states: Sequence[State],
        targets: Sequence[State],
        spread: Mapping[str, float],
    ) -> float:
        """Go back to where between start and end the held-out error is least; return that error.

        A few updates from single samples go the right way on the whole and astray in each weight: half the
        way keeps three quarters of what is gained and a quarter of the noise.
        """
        import torch

        end = [value.detach().clone() for value, _ in rated]
        errors = {}
        for share in _SHARES_OF_THE_WAY:
            with torch.no_grad():
                for (value, _), first, last in zip(rated, start, end, strict=True):
                    value.copy_(torch.lerp(first, last, share))
            errors[share] = self._error(states, targets, spread)
        best = min(errors, key=lambda share: errors[share])
        with torch.no_grad():
            for (value, _), first, last in zip(rated, start, end, strict=True):
                value.copy_(torch.lerp(first, last, best))
        return errors[best]

    def _rated(self) -> list[tuple[Tensor, float]]:
        """Return parameters, each with a rate that fits its size: folded layers differ a thousandfold."""
        from boardwright.compiler.engine.training.fake_quantize import weight_bounds

        options, bound = self._options, weight_bounds(self._scheme)[1]
        rated: list[tuple[Tensor, float]] = []
        for name, value in self._rounded.named_parameters():
            if not value.requires_grad:
                continue
            if name.endswith("log_factor"):
                rate = options.scale_rate
            elif value.dim() > 1:
                largest = value.detach().abs().flatten(1).amax(1).median()
                rate = options.weight_rate * float(largest) / bound
            else:
                rate = options.bias_rate * float(value.detach().abs().mean())
            if rate > 0:
                rated.append((value, rate))
        return rated

    def _descend(
        self,
        states: Sequence[State],
        targets: Sequence[State],
        spread: Mapping[str, float],
        rated: Sequence[tuple[Tensor, float]],
        updates: int,
        batch: int,
        generator: Any,
    ) -> None:
        import torch

        from boardwright.compiler.engine.recover.descent import Descent

        descent = Descent(rated, updates)
        apart = not _stack(self._float, states[:2], self._aim)
        order: list[int] = []
        for _ in range(updates):
            while len(order) < batch:
                order += torch.randperm(len(states), generator=generator).tolist()
            chosen, order = order[:batch], order[batch:]
            groups = [[index] for index in chosen] if apart else [chosen]
            loss = sum(
                self._loss([states[index] for index in group], [targets[index] for index in group], spread)
                for group in groups
            ) / len(groups)
            if not bool(torch.isfinite(loss)):
                return
            descent.step(loss)

    def _loss(self, states: Sequence[State], targets: Sequence[State], spread: Mapping[str, float]) -> Tensor:
        import torch

        given = {name: torch.cat([state[name] for state in states]) for name in self._start.inputs}
        made = dict(zip(self._start.outputs, self._rounded(given), strict=True))
        errors = [
            ((made[name] - torch.cat([target[name] for target in targets])) ** 2).mean() / spread[name]
            for name in spread
        ]
        return torch.stack(errors).sum()

    def _error(self, states: Sequence[State], targets: Sequence[State], spread: Mapping[str, float]) -> float:
        total = 0.0
        for state, target in zip(states, targets, strict=True):
            made = _run(self._rounded, state, self._start)
            total += sum(float(((made[name] - target[name]) ** 2).mean()) / spread[name] for name in spread)
        return total / max(len(states), 1) / max(len(spread), 1)

    def read_out(self, record: CalibrationRecord) -> tuple[dict[str, Any], CalibrationRecord]:
        """Return what was learnt: weights by the graph's names, and the record with the block's ranges.

        The block's network rounds no longer afterwards.
        """
        from boardwright.compiler.engine.training.network import weights

        found = self._rounding.finish(record, record.samples)
        stored = {tensor.name for tensor in self._start.model.graph.initializer}
        learnt = {name: value for name, value in weights(self._rounded).items() if name in stored}
        return learnt, replace(record, ranges=found.ranges)


def _network(model: onnx.ModelProto) -> GraphNetwork:
    from boardwright.compiler.engine.training.network import GraphNetwork

    network = GraphNetwork(model)
    network.eval()
    return network


def _run(network: GraphNetwork, state: State, segment: Segment) -> State:
    import torch

    with torch.no_grad():
        made = network({name: state[name] for name in segment.inputs})
    return dict(zip(segment.outputs, made, strict=True))


def _stack(network: GraphNetwork, states: Sequence[State], segment: Segment) -> bool:
    """Tell whether states stacked along their first axis are answered as each is alone.

    A block cut out of a transformer may have positions first, or batch and windows in one axis.
    """
    import torch

    alone = [_run(network, state, segment) for state in states]
    together = {name: torch.cat([state[name] for state in states]) for name in segment.inputs}
    try:
        made = _run(network, together, segment)
        return all(
            torch.allclose(made[name], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
            for name in segment.outputs
            if (expected := torch.cat([found[name] for found in alone])).is_floating_point()
        )
    except (EngineError, RuntimeError):
        return False


def _spread(targets: Sequence[State]) -> dict[str, float]:
    """Return the variance of each floating-point output, which makes their errors comparable."""
    import torch

    found = {}
    for name, value in targets[0].items():
        if value.is_floating_point():
            variance = float(torch.stack([target[name].var(unbiased=False) for target in targets]).mean())
            if variance > 0:
                found[name] = variance
    return found
