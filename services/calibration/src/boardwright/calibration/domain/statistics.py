"""Statistics of a dataset that merge: batches are measured apart and added up in constant memory.

Means and deviations are combined with Chan, Golub and LeVeque's pairwise update (1979), which loses no
precision where sums of squares do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BINS = 64


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, spread and extremes of one figure. `squares` is the sum of squared distances from the mean."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, value: float) -> Summary:
        """Of a single value."""
        return cls(1, value, 0.0, value, value)

    def merge(self, other: Summary) -> Summary:
        """Of both together."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        return Summary(
            count,
            self.mean + delta * other.count / count,
            self.squares + other.squares + delta * delta * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def deviation(self) -> float:
        """The standard deviation over the population."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def to_json(self) -> list[float]:
        """[count, mean, squares, minimum, maximum]; an empty one is []."""
        return [self.count, self.mean, self.squares, self.minimum, self.maximum] if self.count else []

    @classmethod
    def from_json(cls, value: Sequence[float]) -> Summary:
        """Read what `to_json` wrote."""
        return cls(int(value[0]), *(float(number) for number in value[1:])) if value else cls()


@dataclass(frozen=True, slots=True)
class ImageFigures:
    """One decoded image.

    Attributes:
        width, height: in pixels.
        brightness, contrast: mean and standard deviation of its luma (BT.601), 0 to 1.
        channels: histograms of `BINS` equal bins, R, G and B, or one for a grey image.
    """

    width: int
    height: int
    brightness: float
    contrast: float
    channels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of any number of images.

    Grey images are counted apart (`gray`), since only at the end it is known whether all of them are.
    """

    count: int = 0
    size_bytes: int = 0
    width: Summary = Summary()
    height: Summary = Summary()
    brightness: Summary = Summary()
    contrast: Summary = Summary()
    gray: tuple[int, ...] = (0,) * BINS
    color: tuple[tuple[int, ...], ...] = ((0,) * BINS,) * 3
    class_counts: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, image: ImageFigures, size_bytes: int, class_ids: Iterable[int]) -> Statistics:
        """Of a single image with its labels' classes."""
        counts: dict[int, int] = {}
        for class_id in class_ids:
            counts[class_id] = counts.get(class_id, 0) + 1
        empty = cls()
        gray = len(image.channels) == 1
        return cls(
            1,
            size_bytes,
            Summary.of(image.width),
            Summary.of(image.height),
            Summary.of(image.brightness),
            Summary.of(image.contrast),
            image.channels[0] if gray else empty.gray,
            empty.color if gray else image.channels,
            counts,
        )

    def merge(self, other: Statistics) -> Statistics:
        """Of both together."""
        counts = dict(self.class_counts)
        for class_id, count in other.class_counts.items():
            counts[class_id] = counts.get(class_id, 0) + count
        return Statistics(
            self.count + other.count,
            self.size_bytes + other.size_bytes,
            self.width.merge(other.width),
            self.height.merge(other.height),
            self.brightness.merge(other.brightness),
            self.contrast.merge(other.contrast),
            _add(self.gray, other.gray),
            tuple(_add(mine, theirs) for mine, theirs in zip(self.color, other.color, strict=True)),
            counts,
        )

    def channels(self) -> tuple[tuple[int, ...], ...]:
        """Histograms for R, G and B; a single one when every image is grey."""
        if not any(self.color[0]):
            return (self.gray,)
        return tuple(_add(channel, self.gray) for channel in self.color)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "count": self.count,
            "size_bytes": self.size_bytes,
            "width": self.width.to_json(),
            "height": self.height.to_json(),
            "brightness": self.brightness.to_json(),
            "contrast": self.contrast.to_json(),
            "gray": list(self.gray),
            "color": [list(channel) for channel in self.color],
            "class_counts": {str(class_id): count for class_id, count in sorted(self.class_counts.items())},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Statistics:
        """Read what `to_json` wrote."""
        return cls(
            count=document["count"],
            size_bytes=document["size_bytes"],
            width=Summary.from_json(document["width"]),
            height=Summary.from_json(document["height"]),
            brightness=Summary.from_json(document["brightness"]),
            contrast=Summary.from_json(document["contrast"]),
            gray=tuple(document["gray"]),
            color=tuple(tuple(channel) for channel in document["color"]),
            class_counts={int(class_id): count for class_id, count in document["class_counts"].items()},
        )


def _add(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))
