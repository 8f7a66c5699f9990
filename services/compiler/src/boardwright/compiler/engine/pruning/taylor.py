"""Importance by gradients: how much the outputs change, to first order, when a unit is silenced.

Each channel's activation is multiplied by a gate of 1; d output / d gate is what silencing it changes
(Molchanov et al., 2019, https://arxiv.org/abs/1906.10771). The usual loss is one over labels.
Distillation from itself cannot serve here: against its own answers a network's loss is flat. So the gradient
is taken of random projections of the outputs, whose expected square is the squared change of all outputs,
whatever the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.feeds import Feed
from boardwright.compiler.engine.graph.topology import Topology
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.importance import Scores, magnitude, per_unit
from boardwright.compiler.engine.pruning.labels import Site
from boardwright.compiler.engine.pruning.statistics import channel_axis
from boardwright.compiler.engine.pruning.units import Cell

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array = np.ndarray[Any, Any]

_PASSED = frozenset(
    {"BatchNormalization", "Add", "Mul", "Sub", "Div", "Relu", "LeakyRelu", "Clip", "Gelu", "HardSwish"}
)


def taylor(found: Dependencies, cells: Sequence[Cell], feeds: Iterable[Feed], *, seed: int = 0) -> Scores:
    """Return the mean squared first-order change of the outputs for each unit; one backward pass per sample.

    Raises:
        DatasetUnfit: CALIBRATION_EMPTY.
        EngineError: TRAINING_OPERATOR_UNSUPPORTED, naming the operator that cannot be differentiated.
    """
    import numpy as np
    import torch

    from boardwright.compiler.engine.training.network import GraphNetwork

    topology = Topology(found.model.graph)
    makers = {
        number: (*_where_finished(found, topology, found.sites[number]), found.sites[number])
        for cell in cells
        for number in cell.sites
        if found.sites[number].role == "out"
    }
    # As it is, and not optimised again: fusions would rename what is gated.
    network = GraphNetwork(found.model).eval()
    made = {name for node in network.graph.graph.node for name in node.output}
    gates: dict[str, torch.Tensor] = {}
    for tensor, axis, site in makers.values():
        shape = [1] * len(found.shapes[tensor])
        shape[axis] = site.labels.size
        if tensor in made:
            gates[tensor] = torch.ones(shape, requires_grad=True)
            network.taps[tensor] = _gate(gates[tensor])
    generator = torch.Generator().manual_seed(seed)
    scores = [np.zeros(cell.units.size) for cell in cells]
    count = 0
    for feed in feeds:
        count += 1
        _backward(network, feed, generator)
        for cell, score in zip(cells, scores, strict=True):
            change = np.zeros(cell.units.size)
            for number in cell.sites:
                if number not in makers or makers[number][0] not in gates:
                    continue
                gradient = gates[makers[number][0]].grad
                if gradient is not None:
                    change += per_unit(
                        cell, makers[number][2], gradient.numpy().reshape(-1).astype(np.float64)
                    )
            score += change**2
        for gate in gates.values():
            gate.grad = None
    if not count:
        raise DatasetUnfit(
            "CALIBRATION_EMPTY", "There is no sample to prune with: add samples to the dataset and seal it."
        )
    return _filled(found, cells, [score / count for score in scores], makers, gates)


def _filled(
    found: Dependencies,
    cells: Sequence[Cell],
    scores: Scores,
    makers: Mapping[int, tuple[str, int, Site]],
    gates: Mapping[str, torch.Tensor],
) -> Scores:
    """Rank cells that have no gate by magnitude, at the others' mean: nothing known is not worth nothing."""
    gated = [any(n in makers and makers[n][0] in gates for n in cell.sites) for cell in cells]
    if all(gated):
        return scores
    known = [float(score.mean()) for score, has in zip(scores, gated, strict=True) if has]
    level = sum(known) / len(known) if known else 1.0
    norms = magnitude(found, cells, 2)
    return [
        score if has else level * norm / max(float(norm.mean()), 1e-12)
        for score, norm, has in zip(scores, norms, gated, strict=True)
    ]


def _gate(gate: torch.Tensor) -> Any:
    return lambda value: value * gate


def _backward(network: Any, feed: Mapping[str, Array], generator: torch.Generator) -> None:
    import torch

    outputs = network({name: torch.from_numpy(value.copy()) for name, value in feed.items()})
    loss = torch.zeros(())
    for output in outputs:
        if not output.is_floating_point() or not output.requires_grad:
            continue
        scale = _spread(output.detach())
        signs = torch.randn(output.shape, generator=generator)
        loss = loss + (output * signs / scale).sum() / output.numel() ** 0.5
    if loss.requires_grad:
        loss.backward()


def _spread(output: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of each of an output's channels: pixels and scores count alike.

    Of an output with several axes (boxes by candidates, or candidates by boxes) the shortest holds the
    channels.
    """
    axes = [axis for axis in range(1, output.dim()) if output.shape[axis] > 1]
    if len(axes) < 2:
        return output.std().clamp_min(1e-6)
    channels = min(axes, key=lambda axis: output.shape[axis])
    others = [axis for axis in range(output.dim()) if axis != channels]
    return output.std(dim=others, keepdim=True).clamp_min(1e-6)


def _where_finished(found: Dependencies, topology: Topology, site: Site) -> tuple[str, int]:
    """Return the tensor, and its channel axis, where a layer's channels have their bias and activation."""
    layer = topology.nodes[site.node]
    axis, tensor = channel_axis(layer, found.shapes), layer.output[0]
    while len(topology.readers(tensor)) == 1:
        node = topology.nodes[topology.readers(tensor)[0]]
        others = [name for name in node.input if name and name != tensor]
        same = found.shapes.get(node.output[0]) == found.shapes[tensor]
        if node.op_type not in _PASSED or not same or any(name not in topology.constants for name in others):
            break
        tensor = node.output[0]
    return tensor, axis
