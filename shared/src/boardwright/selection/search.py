"""From cheap to dear, until every set of constraints is settled on every board.

A candidate is tried only when it can help: once the cheapest one that satisfies a set on a board is found,
that pair is settled. A candidate that is no lighter than one that was too slow or too large, or no more
accurate than one that lost too much, is left out. What is left out says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from boardwright.selection.candidates import Attempt, Candidate, Figures
from boardwright.selection.constraints import Constraints
from boardwright.selection.judging import Judgement, Verdict, judge
from boardwright.selection.pareto import Point, pareto_front

CLEARLY_SLOWER = 1.1
"""Latencies of different runs are compared only with this factor between them."""
_AS_FAST = 1.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for one set of constraints on one board.

    Attributes:
        choice: the candidate's name, "" where none satisfies.
        reason: why this one, or why none, in a sentence.
        undecided: a candidate that keeps to everything that is known, where a figure is missing; "" else.
        judgements: of every candidate, in the order tried.
        front: names of the candidates that no other one beats in accuracy, latency, size and memory.
    """

    board: str
    constraints: Constraints
    choice: str
    reason: str
    undecided: str
    judgements: tuple[Judgement, ...]
    front: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """All that a search found: what came of each candidate, and an outcome per board and constraints."""

    attempts: tuple[Attempt, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def satisfied(self) -> bool:
        """Whether every set of constraints has its choice on every board."""
        return all(outcome.choice for outcome in self.outcomes)

    def attempt(self, name: str) -> Attempt:
        """What came of a candidate. Raises: KeyError."""
        for attempt in self.attempts:
            if attempt.candidate.name == name:
                return attempt
        raise KeyError(name)


def search(
    candidates: Sequence[Candidate],
    boards: Sequence[str],
    constraint_sets: Sequence[Constraints],
    attempt: Callable[[Candidate], Attempt],
    *,
    exhaustive: bool = False,
    on_attempt: Callable[[Attempt], None] = lambda _: None,
) -> Selection:
    """Try candidates by their order until each set of constraints is settled on each board.

    ``attempt`` tries one and returns its figures on all boards; what it raises ends the search. With
    ``exhaustive`` every candidate is tried that can be, and the fastest that satisfies is chosen instead of
    the cheapest.
    """
    pairs = [(board, constraints) for board in boards for constraints in constraint_sets]
    made: list[Attempt] = []
    for candidate in sorted(candidates, key=lambda held: held.order):
        why_not = candidate.not_possible
        if not why_not and not exhaustive and not candidate.is_baseline:
            why_not = _needless(candidate, candidates, made, pairs)
        done = Attempt(candidate, skipped=why_not) if why_not else attempt(candidate)
        made.append(done)
        on_attempt(done)
    outcomes = (conclude(made, board, asked, exhaustive=exhaustive) for board, asked in pairs)
    return Selection(tuple(made), tuple(outcomes))


def conclude(
    attempts: Sequence[Attempt], board: str, constraints: Constraints, *, exhaustive: bool = False
) -> Outcome:
    """Return what the attempts so far mean for one set of constraints on one board.

    The first that satisfies is chosen. Where no cost is bounded, the baseline is the last resort: it keeps
    its own accuracy, and nothing would be gained.
    """
    judgements = [judge(attempt, board, constraints) for attempt in attempts]
    by_name = {attempt.candidate.name: attempt for attempt in attempts}
    satisfying = [by_name[held.candidate] for held in judgements if held.verdict is Verdict.SATISFIES]
    wished = [one for one in satisfying if constraints.bounds_cost or not one.candidate.is_baseline]
    front = _front(attempts, board, constraints)
    if not satisfying:
        unknown = (held for held in judgements if held.verdict is Verdict.UNKNOWN)
        undecided = next(
            (held for held in unknown if not by_name[held.candidate].candidate.is_baseline), None
        )
        reason = _why_none(judgements, undecided)
        name = undecided.candidate if undecided else ""
        return Outcome(board, constraints, "", reason, name, tuple(judgements), front)
    pool = wished or satisfying
    name = (_fastest(pool, board, constraints) if exhaustive else pool[0]).candidate.name
    reason = next(held.reason for held in judgements if held.candidate == name)
    if not wished:
        reason = f"nothing smaller or faster keeps to {constraints}: {reason}"
    judgements = [_passed_over(held, name, exhaustive) for held in judgements]
    return Outcome(board, constraints, name, reason, "", tuple(judgements), front)


def _needless(
    candidate: Candidate,
    candidates: Sequence[Candidate],
    made: Sequence[Attempt],
    pairs: Sequence[tuple[str, Constraints]],
) -> str:
    """Why a candidate cannot help any pair that is not settled, "" where it can."""
    open_pairs = []
    settled = []
    for board, constraints in pairs:
        outcome = conclude(made, board, constraints)
        found = outcome.choice or outcome.undecided
        if found and (constraints.bounds_cost or not _is_baseline(made, found)):
            settled.append(found)
        else:
            open_pairs.append((board, constraints))
    if not open_pairs:
        names = ", ".join(dict.fromkeys(settled))
        return f"not needed: {names} is cheaper to make and settles it"
    reasons = [_hopeless(candidate, candidates, made, *pair) for pair in open_pairs]
    return "" if not all(reasons) else "; ".join(dict.fromkeys(reasons))


def _hopeless(
    candidate: Candidate,
    candidates: Sequence[Candidate],
    made: Sequence[Attempt],
    board: str,
    asked: Constraints,
) -> str:
    by_name = {held.name: held for held in candidates}
    attempts = {done.candidate.name: done for done in made}
    for name in _closure(candidate, by_name, "no_lighter_than"):
        figures = attempts[name].figures(board) if name in attempts else None
        if figures is not None and (why := _too_heavy(figures, name, board, asked)):
            return why
    if asked.max_drop_points is not None:
        for name in _closure(candidate, by_name, "no_more_accurate_than"):
            figures = attempts[name].figures(board) if name in attempts else None
            drop = figures.drop_points if figures else None
            if drop is not None and drop > asked.max_drop_points + 1e-9:
                return (
                    f"cannot be more accurate than {name}, which loses {drop:.2f} points, "
                    f"more than {asked.max_drop_points:g}"
                )
    return ""


def _too_heavy(figures: Figures, name: str, board: str, asked: Constraints) -> str:
    """Why nothing that is no lighter than these figures can do; sizes do not vary, latencies do."""
    latency = figures.latency_ms(asked.statistic, asked.threads)
    bound = asked.max_latency_ms
    if bound is not None and latency is not None and latency > CLEARLY_SLOWER * bound:
        return (
            f"cannot be faster than {name}, whose {asked.statistic} on {board} is {latency:.3g} ms, "
            f"over {bound:g} ms"
        )
    most = asked.max_size_bytes
    if most is not None and figures.size_bytes is not None and figures.size_bytes > most:
        size = f"{figures.size_bytes / 1e6:.3g} MB"
        return f"cannot be smaller than {name}, whose size is {size}, over {most / 1e6:g} MB"
    return ""


def _closure(candidate: Candidate, by_name: Mapping[str, Candidate], relation: str) -> Iterator[str]:
    """The candidates that a relation leads to, over several steps."""
    seen: set[str] = {candidate.name}
    waiting = list(getattr(candidate, relation))
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name in by_name:
            waiting += getattr(by_name[name], relation)


def _is_baseline(attempts: Sequence[Attempt], name: str) -> bool:
    return any(done.candidate.is_baseline for done in attempts if done.candidate.name == name)


def _fastest(attempts: Sequence[Attempt], board: str, asked: Constraints) -> Attempt:
    """The fastest; of those that are as fast as it within the noise, the most accurate, then the cheapest."""
    found = [(done, figures) for done in attempts if (figures := done.figures(board)) is not None]

    def cost(figures: Figures) -> float:
        latency = figures.latency_ms(asked.statistic, asked.threads)
        known = all(f.latency_ms(asked.statistic, asked.threads) is not None for _, f in found)
        return (latency if known else figures.size_bytes) or 0.0

    least = min(cost(figures) for _, figures in found)
    near = [(done, figures) for done, figures in found if cost(figures) <= _AS_FAST * least]
    return min(near, key=lambda pair: (pair[1].drop_points or 0.0, pair[0].candidate.order))[0]


def _passed_over(judged: Judgement, chosen: str, exhaustive: bool) -> Judgement:
    if judged.verdict is not Verdict.SATISFIES or judged.candidate == chosen:
        return judged
    why = "is the better one" if exhaustive else "is chosen before it"
    return Judgement(judged.candidate, judged.verdict, f"{judged.reason}; {chosen} {why}")


def _why_none(judgements: Sequence[Judgement], undecided: Judgement | None) -> str:
    if undecided is not None:
        return f"{undecided.candidate} keeps to all that is known, but {undecided.reason}"
    misses = [judged for judged in judgements if judged.verdict is Verdict.MISSES]
    if misses:
        nearest = min(misses, key=lambda judged: judged.excess)
        return f"no candidate satisfies; {nearest.candidate} comes nearest: {nearest.reason}"
    told = "; ".join(f"{judged.candidate}: {judged.reason}" for judged in judgements)
    return f"no candidate could be judged: {told}" if told else "there is no candidate"


def _front(attempts: Sequence[Attempt], board: str, asked: Constraints) -> tuple[str, ...]:
    points = [
        Point(
            done.candidate.name,
            figures.accuracy,
            figures.latency_ms(asked.statistic, asked.threads),
            figures.size_bytes,
            figures.memory_bytes,
        )
        for done in attempts
        if (figures := done.figures(board)) is not None
    ]
    return pareto_front(points)
