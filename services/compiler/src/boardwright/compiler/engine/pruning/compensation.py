"""Without training: let the channels that stay stand in for those that go.

A removed channel is predicted from the kept ones by least squares over calibration samples, x_r = A x_k + c,
and the layer that read it takes the prediction instead: W_k + W_r A, bias + W_r c. That is the reconstruction
step of Channel Pruning (He et al., 2017, https://arxiv.org/abs/1707.06168) and ThiNet (Luo et al., 2017,
https://arxiv.org/abs/1707.06342) in closed form, channel by channel instead of patch by patch, so that a k x
k kernel needs only the (C, C) covariance. ``mean`` is its simplest case, A = 0: the mean of what is gone goes
into the bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import attributes, copy_of, give_constant
from boardwright.compiler.engine.pruning.dependencies import Dependencies
from boardwright.compiler.engine.pruning.labels import Site
from boardwright.compiler.engine.pruning.statistics import Moments, readers
from boardwright.compiler.engine.pruning.surgery import keep

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

COMPENSATIONS = ("none", "mean", "least-squares")


def compensate(
    found: Dependencies, labels: Iterable[int], moments: Mapping[str, Moments], method: str
) -> tuple[Dependencies, int]:
    """Return the graph with the readers of the units ``labels`` prepared for their absence, and their count.

    Nothing is removed here. Weights that several layers share are left alone.
    """
    removed = set(labels)
    model = copy_of(found.model)
    editor = _Editor(model, found)
    count = 0
    for reader in readers(found):
        site, name = reader.site, reader.tensor
        stays = keep(site.labels, removed)
        if stays.all() or not stays.any() or name not in moments or not editor.owns(site.tensor):
            continue
        has_bias = editor.can_shift(site.node)
        mix, offset = _prediction(moments[name], stays, method, centred=has_bias)
        lost = editor.fold(site, stays, mix)
        if has_bias:
            editor.shift(site.node, lost @ offset)
        count += 1
    return replace(found, model=model, sites=editor.sites()), count


def _prediction(moments: Moments, stays: Array, method: str, *, centred: bool) -> tuple[Array, Array]:
    """Return A (removed, kept) and c (removed,) with x_removed = A x_kept + c."""
    import numpy as np

    mean = moments.mean
    if method == "mean":
        return np.zeros((int((~stays).sum()), int(stays.sum()))), mean[~stays]
    matrix = moments.covariance() if centred else moments.second_moment()
    kept = matrix[np.ix_(stays, stays)]
    mix = np.linalg.solve(kept + moments.ridge() * np.eye(len(kept)), matrix[np.ix_(stays, ~stays)]).T
    return mix, mean[~stays] - mix @ mean[stays]


class _Editor:
    """Weights and biases of one graph's layers."""

    def __init__(self, model: onnx.ModelProto, found: Dependencies) -> None:
        self._graph = model.graph
        self._found = found
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._uses: dict[str, list[int]] = {}
        for index, node in enumerate(model.graph.node):
            for name in node.input:
                self._uses.setdefault(name, []).append(index)
        self._biases: dict[tuple[int, int], str] = {}

    def owns(self, tensor: str) -> bool:
        """Tell whether one node alone reads a stored tensor."""
        return len(self._uses.get(tensor, ())) == 1

    def fold(self, site: Site, stays: Array, mix: Array) -> Array:
        """Add what predicts the removed columns to the kept ones; return W_r (O, removed), kernel summed."""
        import numpy as np

        weight = self._read(site.tensor).astype(np.float64)
        columns = np.moveaxis(weight, site.axis, 1) if site.axis != 1 else weight
        lost = columns[:, ~stays]
        columns = np.array(columns)
        columns[:, stays] += np.moveaxis(np.tensordot(lost, mix, axes=(1, 0)), -1, 1)
        self._write(site.tensor, np.moveaxis(columns, 1, site.axis) if site.axis != 1 else columns)
        summed: Array = lost.reshape(*lost.shape[:2], -1).sum(axis=2)
        return summed

    def can_shift(self, index: int) -> bool:
        """Tell whether a layer has, or can be given, a bias."""
        node = self._graph.node[index]
        if node.op_type == "ConvTranspose":
            return bool(attributes(node).get("group", 1) == 1)
        return node.op_type in ("Conv", "Gemm") or self._add_behind(index) is not None

    def shift(self, index: int, by: Array) -> None:
        """Add ``by`` (O,) to the layer's bias; make one where there is none."""
        import numpy as np

        node, slot = self._graph.node[index], 2
        if node.op_type == "MatMul":
            place = self._add_behind(index)
            if place is None:
                return
            index, slot = place
            node = self._graph.node[index]
        old = self._read(node.input[slot]) if len(node.input) > slot and node.input[slot] else None
        if old is not None and old.size not in (1, by.size):
            return
        name = f"{node.name}_shifted_bias"
        new = by if old is None else (old + by if old.size == 1 else old + by.reshape(old.shape))
        give_constant(self._graph, self._stored, node, slot, name, np.asarray(new, np.float32))
        self._biases[index, slot] = name

    def sites(self) -> tuple[Site, ...]:
        """Return the graph's sites with the biases that are new: they follow their layers' rows."""
        sites = []
        for site in self._found.sites:
            name = self._biases.get((site.node, site.slot), site.tensor)
            sites.append(replace(site, tensor=name))
        followed = {(site.node, site.slot) for site in sites}
        for (index, slot), name in self._biases.items():
            made = next((site for site in sites if site.node == index and site.role == "out"), None)
            if (index, slot) not in followed and made is not None:
                sites.append(Site(index, slot, name, 0, made.labels, "bias"))
        return tuple(sites)

    def _add_behind(self, index: int) -> tuple[int, int] | None:
        readers_ = self._uses.get(self._graph.node[index].output[0], [])
        if len(readers_) != 1 or self._graph.node[readers_[0]].op_type != "Add":
            return None
        for slot, name in enumerate(self._graph.node[readers_[0]].input):
            if name in self._stored and self._read(name).ndim <= 1:
                return readers_[0], slot
        return None

    def _read(self, name: str) -> Array:
        from onnx import numpy_helper

        found: Array = numpy_helper.to_array(self._stored[name])
        return found

    def _write(self, name: str, value: Array) -> None:
        import numpy as np
        from onnx import numpy_helper

        self._stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
