"""What a layer reads, as second moments: all that is needed to judge how its weights are rounded.

With x what the rounded graph feeds a layer and x' what the float graph does, both without their means,
H = E[x xᵀ] and D = E[(x' - x) xᵀ] give the error of any change of weights: no sample is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from boardwright.compiler.engine.graph.editing import with_outputs
from boardwright.compiler.engine.graph.layers import LayerForm
from boardwright.compiler.engine.graph.session import open_session
from boardwright.compiler.engine.observe import Feed

if TYPE_CHECKING:
    import numpy as np
    import onnx

    Array = np.ndarray[Any, Any]

_POSITIONS = 128  # of an image, that a convolution's kernel is laid on


@dataclass(slots=True, eq=False)
class Moments:
    """Sums over what a layer read: G groups of K values. ``hessian`` and ``drift`` are (G, K, K)."""

    hessian: Array
    drift: Array
    rounded_mean: Array
    float_mean: Array
    count: int = 0

    @classmethod
    def empty(cls, groups: int, size: int) -> Moments:
        """Return the moments of nothing."""
        import numpy as np

        square, line = (groups, size, size), (groups, size)
        return cls(np.zeros(square), np.zeros(square), np.zeros(line), np.zeros(line))

    def add(self, rounded: Array, exact: Array) -> None:
        """Add rows (G, P, K) that the rounded and the float layer read at the same places."""
        self.hessian += rounded.transpose(0, 2, 1) @ rounded
        self.drift += (exact - rounded).transpose(0, 2, 1) @ rounded
        self.rounded_mean += rounded.sum(axis=1)
        self.float_mean += exact.sum(axis=1)
        self.count += rounded.shape[1]

    def centred(self) -> tuple[Array, Array, Array, Array]:
        """Return H, D (G, K, K) without means, and the means (G, K) of x and of x'."""
        count = max(self.count, 1)
        mean, exact = self.rounded_mean / count, self.float_mean / count
        hessian = self.hessian / count - mean[:, :, None] * mean[:, None, :]
        drift = self.drift / count - (exact - mean)[:, :, None] * mean[:, None, :]
        return hessian, drift, mean, exact


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer as a reader: what it reads in both graphs, and its weight's shape (O, I, ...)."""

    name: str
    exact: str
    rounded: str
    form: LayerForm
    shape: tuple[int, ...]

    def empty(self) -> Moments:
        """Return moments of this layer's size."""
        from math import prod

        return Moments.empty(self.form.groups, prod(self.shape[1:]))


def gather(
    original: onnx.ModelProto,
    quantized: onnx.ModelProto,
    readers: Sequence[Reader],
    feeds: Iterable[Feed],
    *,
    seed: int = 0,
    threads: int = 0,
) -> dict[str, Moments]:
    """Run both graphs over ``feeds``; return the moments of each reader by name."""
    import numpy as np

    exact = open_session(with_outputs(original, [reader.exact for reader in readers]), threads=threads)
    rounded = open_session(with_outputs(quantized, [reader.rounded for reader in readers]), threads=threads)
    found = {reader.name: reader.empty() for reader in readers}
    generator = np.random.default_rng(seed)
    exacts = [reader.exact for reader in readers]
    for feed in feeds:
        ours = rounded.run([reader.rounded for reader in readers], feed)
        seen = [name for name in exacts if name not in feed]
        values = {**feed, **dict(zip(seen, exact.run(seen, feed) if seen else [], strict=True))}
        theirs = [values[name] for name in exacts]
        for reader, one, other in zip(readers, ours, theirs, strict=True):
            places = _places(one.shape, reader, generator)
            found[reader.name].add(_rows(one, reader, places), _rows(other, reader, places))
    return found


def _places(shape: tuple[int, ...], reader: Reader, generator: np.random.Generator) -> Array:
    """Return where to look: (P, 1 + spatial axes), the sample of the batch first; for matrices (P,) rows."""
    import numpy as np

    form = reader.form
    if form.operator != "Conv":
        count = int(np.prod(shape[:-1]))
        return generator.choice(count, min(count, _POSITIONS), replace=False)
    lengths = [shape[0]]
    for axis, size in enumerate(reader.shape[2:]):
        spatial = len(reader.shape) - 2
        padded = shape[2 + axis] + form.pads[axis] + form.pads[axis + spatial]
        lengths.append((padded - (form.dilations[axis] * (size - 1) + 1)) // form.strides[axis] + 1)
    count = int(np.prod(lengths))
    flat = generator.choice(count, min(count, _POSITIONS), replace=False)
    return np.stack(np.unravel_index(flat, lengths), axis=1)


def _rows(value: Array, reader: Reader, places: Array) -> Array:
    """Return (G, P, K) float64: what the layer's weight is multiplied with at ``places``."""
    import numpy as np

    form = reader.form
    if form.operator != "Conv":
        return value.reshape(-1, value.shape[-1])[places].astype(np.float64)[None]
    spatial = len(reader.shape) - 2
    before, after = form.pads[:spatial], form.pads[spatial:]
    padded = np.pad(value, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    axes = [np.arange(size) * step for size, step in zip(reader.shape[2:], form.dilations, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, spatial)
    starts = places[:, 1:] * np.asarray(form.strides)
    where = starts[:, None, :] + offsets[None]
    index = (places[:, 0][:, None], slice(None), *(where[:, :, axis] for axis in range(spatial)))
    patches = padded[index]  # (P, kernel, C): advanced indices come first
    rows = patches.transpose(0, 2, 1).reshape(len(places), form.groups, -1)
    grouped: Array = rows.transpose(1, 0, 2).astype(np.float64)
    return grouped
