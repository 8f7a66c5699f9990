"""Batches from samples, with the model's own preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.feeds import tensor_of
from boardwright.compiler.engine.training.augmentation import augment
from boardwright.compiler.engine.training.options import DataOptions
from boardwright.model import InputSpec

if TYPE_CHECKING:
    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.samples import DatasetReader


_FEWEST_HELD_OUT = 4
"""Samples below which chance would choose the weights of a network that begins near its best."""

UNLABELLED = -1
"""The label of a sample that has none."""

_MOST_HELD_OUT = 512
"""Samples that judge: more of them would cost an epoch's time and tell no more."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs by name, (N, …) each; ``labels`` (N,) int64, UNLABELLED where a sample has none."""

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(next(iter(self.inputs.values())).shape[0])

    def required_labels(self) -> Tensor:
        """Return the labels.

        Raises:
            DatasetUnfit: LABELS_MISSING.
        """
        if self.labels is None or bool((self.labels == UNLABELLED).any()):
            raise DatasetUnfit(
                "LABELS_MISSING",
                f"Some of {', '.join(self.names[:3])} have no class label: label the dataset, or train "
                "self-distilled (objective: self-distilled).",
            )
        return self.labels

    def parts(self, size: int) -> Iterator[Batch]:
        """Return the batch in parts of at most ``size`` samples."""
        for start in range(0, len(self), size):
            place = slice(start, start + size)
            yield Batch(
                {name: value[place] for name, value in self.inputs.items()},
                None if self.labels is None else self.labels[place],
                self.names[place],
            )


class Source(Protocol):
    """Samples by index."""

    def __len__(self) -> int:
        """Return how many there are."""

    def labels(self) -> Sequence[int | None]:
        """Return the class of each sample, None where it has none."""

    def read(self, indices: Sequence[int]) -> Iterator[tuple[str, Any]]:
        """Return name and image (Pillow, or uint8 array) of the samples, in the order asked for."""


class SampleList:
    """The engine's samples, already in memory."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def labels(self) -> list[int | None]:
        """Return the class of each sample."""
        return [sample.class_index for sample in self._samples]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[str, Any]]:
        """Return name and image of each."""
        for index in indices:
            yield self._samples[index].name, self._samples[index].image


class DatasetSource:
    """A sealed dataset, decoded as it is read."""

    def __init__(self, reader: DatasetReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def labels(self) -> list[int | None]:
        """Return the class of each sample; boxes are no class."""
        found = (entry.label for entry in self._reader.manifest.samples)
        return [label if isinstance(label, int) else None for label in found]

    def read(self, indices: Sequence[int]) -> Iterator[tuple[str, Any]]:
        """Return name and image of each."""
        for sample in self._reader.at(indices):
            yield sample.name, sample.image


class ImageBatches:
    """Shuffled batches of preprocessed images; see ``DataOptions``.

    ``any_size`` says that the network takes inputs of other sizes (``GraphNetwork.takes_size``): multi-scale
    then changes the tensor's size, and otherwise the size of what is shown in it. Where fewer than
    ``fewest_held_out`` samples would judge, none are held out. The same seed and epoch give the same batches.
    """

    def __init__(
        self,
        source: Source,
        spec: InputSpec,
        options: DataOptions,
        seed: int = 0,
        *,
        any_size: bool = False,
        fewest_held_out: int = _FEWEST_HELD_OUT,
    ) -> None:
        self._source, self._spec, self._options, self._seed = source, spec, options, seed
        self._any_size = any_size
        count = len(source)
        wanted = min(count, options.samples or count)
        chosen = [number * count // wanted for number in range(wanted)]
        judging = min(int(options.held_out * wanted), _MOST_HELD_OUT)
        self._held_out = _spread(chosen, judging if judging >= fewest_held_out else 0)
        held_out = set(self._held_out)
        self._indices = [index for index in chosen if index not in held_out]
        self._labels = source.labels()
        self._chances = self._resampling_chances()

    def __len__(self) -> int:
        return -(-len(self._indices) // self._options.batch_size)

    @property
    def samples(self) -> int:
        """How many samples an epoch has."""
        return len(self._indices)

    def held_out(self) -> ImageBatches | None:
        """Return the samples that judge, as they are: not augmented and not resampled; None without any."""
        if not self._held_out:
            return None
        found = copy.copy(self)
        plain = DataOptions(batch_size=self._options.batch_size)
        found._options, found._indices, found._held_out, found._chances = plain, self._held_out, [], None
        return found

    def class_counts(self, classes: int) -> list[int]:
        """Return how many samples each class has.

        Raises:
            DatasetUnfit: LABELS_MISSING, LABELS_DO_NOT_FIT.
        """
        for index in (*self._indices, *self._held_out):
            label = self._labels[index]
            if label is not None and not 0 <= label < classes:
                raise DatasetUnfit(
                    "LABELS_DO_NOT_FIT",
                    f"A sample has class {label}, and the model knows 0 to {classes - 1}: correct it.",
                )
        counts = [0] * classes
        for label in self._known_labels():
            counts[label] += 1
        return counts

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return the batches of one epoch."""
        rng = np.random.default_rng((self._seed, number))
        count = len(self._indices)
        if self._chances is None:
            order = rng.permutation(self._indices)
        else:
            order = rng.choice(self._indices, count, p=self._chances)
        for start in range(0, count, self._options.batch_size):
            chosen = [int(index) for index in order[start : start + self._options.batch_size]]
            yield self._batch(chosen, rng)

    def _batch(self, chosen: list[int], rng: np.random.Generator) -> Batch:
        spec, zoom = self._spec, 1.0
        if self._options.multi_scale:
            zoom = 1 + self._options.multi_scale * rng.uniform(-1, 1)
            if self._any_size:
                spec, zoom = _scaled(spec, zoom), 1.0
        names, arrays = [], []
        for name, image in self._source.read(chosen):
            names.append(name)
            shown = augment(image, self._options, rng, zoom=zoom, fill=spec.pad_value)
            arrays.append(tensor_of(shown, spec, name))
        labels = [self._labels[index] for index in chosen]
        return Batch(
            {spec.name: torch.from_numpy(np.concatenate(arrays))},
            torch.tensor([UNLABELLED if label is None else label for label in labels]),
            tuple(names),
        )

    def _known_labels(self) -> list[int]:
        found = [self._labels[index] for index in self._indices]
        known = [label for label in found if label is not None]
        if len(known) < len(found):
            raise DatasetUnfit(
                "LABELS_MISSING",
                f"{len(found) - len(known)} of {len(found)} samples have no class label: label the dataset, "
                "or train self-distilled without class weights and resampling.",
            )
        return known

    def _resampling_chances(self) -> np.ndarray[Any, Any] | None:
        if self._options.resampling == "none" or not self._indices:
            return None
        labels = np.array(self._known_labels())
        _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        power = 1.0 if self._options.resampling == "balanced" else 0.5
        chances: np.ndarray[Any, Any] = (1.0 / counts[place]) ** power
        chances /= chances.sum()
        return chances


def _spread(indices: list[int], count: int) -> list[int]:
    """Return ``count`` of ``indices``, drawn alike whatever the seed: datasets are often sorted by class."""
    drawn = np.random.default_rng(0).permutation(len(indices))[:count]
    return sorted(indices[place] for place in drawn)


def _scaled(spec: InputSpec, factor: float) -> InputSpec:
    """Return ``spec`` at another size, in steps that networks which halve their input can take."""
    smallest = min(spec.height, spec.width)
    step = 32 if smallest >= 96 else 8 if smallest >= 24 else 2
    height, width = (max(step, round(side * factor / step) * step) for side in (spec.height, spec.width))
    if spec.resize == "none":  # demands the image's own size, which another input size cannot have
        return replace(spec, height=height, width=width, resize="stretch")
    shorter = spec.resize_shorter
    if shorter is not None:
        shorter = max(height, width, round(shorter * max(height / spec.height, width / spec.width)))
    return replace(spec, height=height, width=width, resize_shorter=shorter)
