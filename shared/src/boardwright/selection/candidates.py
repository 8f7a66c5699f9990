"""What may be tried, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that makes a variant: a recipe.

    Attributes:
        name: of the recipe.
        order: candidates are tried from the lowest to the highest; cheap ones come first.
        description: a sentence.
        no_lighter_than: names of candidates that are at least as fast and as small as this one.
        no_more_accurate_than: likewise, at least as accurate.
        not_possible: why it cannot be tried here, "" where it can.
        is_baseline: it makes nothing but the model as it was imported.
    """

    name: str
    order: int = 0
    description: str = ""
    no_lighter_than: tuple[str, ...] = ()
    no_more_accurate_than: tuple[str, ...] = ()
    not_possible: str = ""
    is_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a candidate on one board.

    Attributes:
        metric: what ``accuracy`` is called: "top1", "map50_95".
        accuracy: on the evaluation dataset, a fraction of 1; None without labels.
        baseline_accuracy: of the model as imported, on the same dataset.
        latencies_ms: by number of threads (0: the runtime's default), each with "p50_ms", "p95_ms" and, where
            it was measured beside the baseline, "speedup"; made on the board itself, never elsewhere.
        size_bytes: of the file that the board's runtime loads; of the variant's graph where none was built.
        memory_bytes: peak resident memory on the board.
        parity: figures against the baseline's answers: "top1_agreement", "sqnr_db".
        missing: why a figure is not known: "accuracy", "latency", "size" or "memory", each with a sentence.
        variant, artifact: names of what has these figures; empty where there is none.
        toolchain: that built the artifact.
    """

    metric: str = ""
    accuracy: float | None = None
    baseline_accuracy: float | None = None
    latencies_ms: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    size_bytes: float | None = None
    memory_bytes: float | None = None
    parity: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    artifact: str = ""
    toolchain: str = ""

    @property
    def drop_points(self) -> float | None:
        """Points (of 100) lost against the baseline; negative where it became better."""
        if self.accuracy is None or self.baseline_accuracy is None:
            return None
        return 100 * (self.baseline_accuracy - self.accuracy)

    def latency_ms(self, statistic: str, threads: int) -> float | None:
        """A latency: ``statistic`` is "p50" or "p95"."""
        return self.latencies_ms.get(threads, {}).get(f"{statistic}_ms")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate came to nothing: the step that failed, its stable reason, and what it said.

    ``known`` says that nothing ran: the failure is remembered from an earlier time.
    """

    step: str
    reason: str
    message: str
    known: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a candidate.

    Attributes:
        boards: figures by board, or why there is nothing for that board alone.
        failure: why there is nothing for any board.
        skipped: why it was not tried at all.
        cached: nothing had to run.
        job: name of the job that made it, where there is one.
    """

    candidate: Candidate
    boards: Mapping[str, Figures | Failure] = field(default_factory=dict)
    failure: Failure | None = None
    skipped: str = ""
    cached: bool = False
    job: str = ""

    def figures(self, board: str) -> Figures | None:
        """The figures on a board, None where there are none."""
        found = self.boards.get(board)
        return found if isinstance(found, Figures) else None

    def failed(self, board: str) -> Failure | None:
        """Why there is nothing for a board, None where there is something or nothing was tried."""
        if self.failure is not None:
            return self.failure
        found = self.boards.get(board)
        return found if isinstance(found, Failure) else None
