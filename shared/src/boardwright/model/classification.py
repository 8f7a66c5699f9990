"""Top-k accuracy, per class, and which classes are taken for which."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.model.errors import ModelError


def top_k_hits(scores: npt.NDArray[Any], labels: npt.NDArray[Any], k: int) -> npt.NDArray[np.bool_]:
    """Whether each label is among the k best classes.

    A label's rank counts the classes that score higher, and of equal scores those with a lower index: what a
    stable sort would give, without sorting. A row with a value that is not a number never hits.

    Args:
        scores: (N, C).
        labels: (N,) class indices.

    Returns:
        (N,) of bool.
    """
    own = scores[np.arange(len(labels)), labels][:, np.newaxis]
    index = np.arange(scores.shape[1])[np.newaxis]
    before = (scores > own) | ((scores == own) & (index < np.asarray(labels)[:, np.newaxis]))
    hits: npt.NDArray[np.bool_] = (before.sum(axis=1) < k) & ~np.isnan(scores).any(axis=1)
    return hits


@dataclass(slots=True)
class ClassificationMeter:
    """Counts hits over batches; ``top1`` and ``top5`` are percent.

    ``per_class`` is (C, 2): hits of the best class, and samples. ``confusion`` counts (label, answer) pairs,
    and only those that occurred: a thousand classes have a million. The answer is -1 where a score is NaN.
    """

    num_classes: int
    count: int = 0
    hits1: int = 0
    hits5: int = 0
    per_class: npt.NDArray[np.int64] = field(init=False)
    confusion: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.per_class = np.zeros((self.num_classes, 2), np.int64)

    def update(self, scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Add a batch of (N, C) scores with their (N,) true classes.

        Raises:
            ModelError: ``LABELS_DO_NOT_FIT`` for a label outside of the classes.
        """
        labels = np.asarray(labels, np.int64)
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < self.num_classes):
            raise ModelError(
                "LABELS_DO_NOT_FIT",
                f"labels must be 0 to {self.num_classes - 1}, these are {labels.min()} to {labels.max()}",
            )
        if scores.shape != (len(labels), self.num_classes):
            raise ModelError(
                "LABELS_DO_NOT_FIT",
                f"scores have shape {scores.shape}, expected {(len(labels), self.num_classes)}",
            )
        first = top_k_hits(scores, labels, 1)
        self.count += len(labels)
        self.hits1 += int(first.sum())
        self.hits5 += int(top_k_hits(scores, labels, 5).sum())
        self.per_class[:, 0] += np.bincount(labels[first], minlength=self.num_classes)
        self.per_class[:, 1] += np.bincount(labels, minlength=self.num_classes)
        if len(labels):
            answers = np.where(np.isnan(scores).any(axis=1), -1, scores.argmax(axis=1))
            self.confusion.update(zip(labels.tolist(), answers.tolist(), strict=True))

    @property
    def top1(self) -> float:
        """Percent of samples whose best class is the label; 0 without samples."""
        return 100.0 * self.hits1 / self.count if self.count else 0.0

    @property
    def top5(self) -> float:
        """Percent of samples whose label is among the five best; 0 without samples."""
        return 100.0 * self.hits5 / self.count if self.count else 0.0

    def triples(self) -> list[tuple[int, int, int]]:
        """The confusion matrix as sorted (label, answer, count), without its zeros."""
        return sorted((label, answer, count) for (label, answer), count in self.confusion.items())

    def answered(self) -> npt.NDArray[np.int64]:
        """(C,) how often each class was the answer: a class's precision is its hits over this."""
        counts = np.zeros(self.num_classes, np.int64)
        for (_, answer), count in self.confusion.items():
            if answer >= 0:
                counts[answer] += count
        return counts
