"""Batches from samples, with the model's own preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from boardwright.compiler.engine.errors import DatasetUnfit
from boardwright.compiler.engine.training.options import DataOptions
from boardwright.model import InputSpec, preprocess

if TYPE_CHECKING:
    from boardwright.compiler.engine.evaluate import Sample
    from boardwright.samples import DatasetReader


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Inputs by name, (N, …) each; ``labels`` (N,) int64, or None where a sample has none."""

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
        if self.labels is None:
            raise DatasetUnfit(
                "LABELS_MISSING",
                f"Some of {', '.join(self.names[:3])} have no class label: label the dataset, or train "
                "self-distilled (objective: self-distilled).",
            )
        return self.labels


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
    """Shuffled batches of preprocessed images; see ``DataOptions``."""

    def __init__(self, source: Source, spec: InputSpec, options: DataOptions, seed: int = 0) -> None:
        self._source, self._spec, self._options, self._seed = source, spec, options, seed
        count = len(source)
        wanted = min(count, options.samples or count)
        self._indices = [number * count // wanted for number in range(wanted)]
        self._labels = source.labels()

    def __len__(self) -> int:
        return -(-len(self._indices) // self._options.batch_size)

    def class_counts(self, classes: int) -> list[int]:
        """Return how many samples each class has.

        Raises:
            DatasetUnfit: LABELS_MISSING, LABELS_DO_NOT_FIT.
        """
        counts = [0] * classes
        for index in self._indices:
            label = self._labels[index]
            if label is None:
                raise DatasetUnfit("LABELS_MISSING", "Some samples have no class label: label the dataset.")
            if not 0 <= label < classes:
                raise DatasetUnfit(
                    "LABELS_DO_NOT_FIT",
                    f"A sample has class {label}, and the model knows 0 to {classes - 1}.",
                )
            counts[label] += 1
        return counts

    def epoch(self, number: int) -> Iterator[Batch]:
        """Return the batches of one epoch."""
        rng = np.random.default_rng((self._seed, number))
        order = rng.permutation(self._indices)
        for start in range(0, len(order), self._options.batch_size):
            chosen = [int(index) for index in order[start : start + self._options.batch_size]]
            yield self._batch(chosen)

    def _batch(self, chosen: list[int]) -> Batch:
        names, arrays = [], []
        for name, image in self._source.read(chosen):
            names.append(name)
            arrays.append(preprocess(image, self._spec)[0])
        labels = [self._labels[index] for index in chosen]
        known = [label for label in labels if label is not None]
        return Batch(
            {self._spec.name: torch.from_numpy(np.concatenate(arrays))},
            torch.tensor(known) if len(known) == len(labels) else None,
            tuple(names),
        )
