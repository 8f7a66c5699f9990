"""What a variant must keep to on a board."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields

_MB = 1e6
_STATISTICS = ("p50", "p95")
_KEYS = {
    "max-drop": "max_drop_points",
    "max-latency-ms": "max_latency_ms",
    "max-size-mb": "max_size_bytes",
    "max-memory-mb": "max_memory_bytes",
    "statistic": "statistic",
    "threads": "threads",
}


@dataclass(frozen=True, slots=True)
class Constraints:
    """Bounds; None where there is none.

    Attributes:
        max_drop_points: most points (of 100) of the task's metric that may be lost against the baseline.
        max_latency_ms: of one inference on the board, by ``statistic`` ("p50" or "p95") with ``threads``
            threads (0: as many as the runtime likes).
        max_size_bytes: of the file that the runtime loads.
        max_memory_bytes: peak resident memory of inference on the board.
    """

    max_drop_points: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: float | None = None
    max_memory_bytes: float | None = None
    statistic: str = "p95"
    threads: int = 1

    def __post_init__(self) -> None:
        """Raises: ValueError: a bound is negative or no number, or the statistic is not known."""
        if self.statistic not in _STATISTICS:
            raise ValueError(f"the statistic {self.statistic!r} is none of {', '.join(_STATISTICS)}")
        if self.threads not in (0, 1):
            raise ValueError("threads is 1, or 0 for the runtime's default: others are not measured")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("max_") and value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{field.name.replace('_', '-')} must be 0 or more, not {value}")

    @classmethod
    def parse(cls, text: str) -> Constraints:
        """Read ``max-drop=1.0,max-latency-ms=33,max-size-mb=4,max-memory-mb=100,statistic=p95,threads=1``.

        Raises:
            ValueError: what cannot be read, with the nearest name there is.
        """
        values: dict[str, float | int | str] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = (part.strip() for part in entry.partition("="))
            if key not in _KEYS or not equals:
                near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
                hint = f" (did you mean {near[0]!r}?)" if near and near[0] != key else ""
                raise ValueError(f"{entry!r} is no constraint{hint}: write {', '.join(_KEYS)}, each =value")
            if _KEYS[key] in values:
                raise ValueError(f"{key} is written twice")
            values[_KEYS[key]] = _value(key, value)
        return cls(**values)  # type: ignore[arg-type]

    @property
    def bounds_cost(self) -> bool:
        """Whether latency, size or memory is bounded. If not, the least of them is wished for."""
        return any(
            bound is not None for bound in (self.max_latency_ms, self.max_size_bytes, self.max_memory_bytes)
        )

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        said = []
        if self.max_drop_points is not None:
            said.append(f"max-drop={self.max_drop_points:g}")
        if self.max_latency_ms is not None:
            said.append(f"max-latency-ms={self.max_latency_ms:g}")
            said += [f"statistic={self.statistic}"] if self.statistic != "p95" else []
            said += [f"threads={self.threads}"] if self.threads != 1 else []
        if self.max_size_bytes is not None:
            said.append(f"max-size-mb={self.max_size_bytes / _MB:g}")
        if self.max_memory_bytes is not None:
            said.append(f"max-memory-mb={self.max_memory_bytes / _MB:g}")
        return ",".join(said) or "no constraint"


def _value(key: str, text: str) -> float | int | str:
    if key == "statistic":
        return text
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{key}={text}: {text!r} is not a number") from None
    if key == "threads":
        return int(number) if number.is_integer() else -1
    return number * _MB if key.endswith("-mb") else number
