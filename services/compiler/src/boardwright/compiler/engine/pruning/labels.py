"""Labels of channels: which positions of which axes come and go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FIXED = -1
"""The label of a position that always stays."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """One axis of a stored tensor that follows the labels of a channel axis.

    ``node`` reads the tensor as its input number ``slot``. ``labels`` is (length of the axis,) int64.
    ``role`` is ``out`` (rows that make channels), ``in`` (columns that read them), ``depthwise`` (kernels of
    channels that pass), ``bias``, ``scale`` (a batch norm's) or ``value`` (what else meets channels).
    """

    node: int
    slot: int
    tensor: str
    axis: int
    labels: Array
    role: str


class Labels:
    """Disjoint sets of labels (union and find with path halving). A frozen set is never pruned."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: set[int] = set()

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> Array:
        """Return ``count`` new labels."""
        import numpy as np

        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def unite(self, first: Array, second: Array) -> None:
        """Tie two axes position by position; what meets a fixed position is frozen."""
        import numpy as np

        pairs = np.stack([np.ravel(first), np.ravel(second)], axis=1)
        for left, right in np.unique(pairs, axis=0).tolist():
            if left == right:
                continue
            if left == FIXED or right == FIXED:
                self._frozen.add(self.find(max(left, right)))
            else:
                self._join(left, right)

    def unite_all(self, labels: Array) -> None:
        """Tie all of ``labels`` into one set."""
        import numpy as np

        distinct = np.unique(labels)
        self.unite(distinct[:-1], distinct[1:])
        if distinct.size and distinct[0] == FIXED:
            self.freeze(distinct)

    def freeze(self, labels: Array) -> None:
        """Keep these positions whatever their importance."""
        import numpy as np

        for label in np.unique(labels).tolist():
            if label != FIXED:
                self._frozen.add(self.find(label))

    def find(self, label: int) -> int:
        """Return the representative of a label's set."""
        parent = self._parent
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    def roots(self, labels: Array) -> Array:
        """Return each label's representative, FIXED where it is fixed or frozen."""
        import numpy as np

        distinct, places = np.unique(labels, return_inverse=True)
        frozen = {self.find(label) for label in self._frozen}
        found = [FIXED if label == FIXED else self.find(label) for label in distinct.tolist()]
        kept = np.array([FIXED if root in frozen else root for root in found], dtype=np.int64)
        result: Array = kept[places].reshape(np.shape(labels))
        return result

    def _join(self, left: int, right: int) -> None:
        a, b = self.find(left), self.find(right)
        if a == b:
            return
        low, high = min(a, b), max(a, b)
        self._parent[high] = low
        if high in self._frozen:
            self._frozen.add(low)


def fixed(length: int) -> Array:
    """Return labels of an axis that always stays."""
    import numpy as np

    return np.full(length, FIXED, dtype=np.int64)
