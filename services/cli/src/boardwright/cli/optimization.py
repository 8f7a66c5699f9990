"""What `boardwright optimize` found, as tables for people and as JSON."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from boardwright.cli.output import print_notes, print_table, size

if TYPE_CHECKING:
    from boardwright.selection import Attempt, Figures, Outcome, Selection

_COLUMNS = ("candidate", ">{metric} %", ">lost", ">p50 ms", ">p95 ms", ">× baseline", ">size", ">memory")


def attempt_line(attempt: Attempt) -> str:
    """One line about what came of a candidate, while the search goes on."""
    name = attempt.candidate.name
    if attempt.skipped:
        return f"{name}: not tried: {attempt.skipped}"
    if attempt.failure is not None:
        return f"{name}: {attempt.failure.step} failed: {attempt.failure.message}"
    told = []
    for board, found in attempt.boards.items():
        figures = attempt.figures(board)
        if figures is None:
            told.append(f"{board}: {found.message}" if hasattr(found, "message") else board)
            continue
        parts = [size(figures.size_bytes)] if figures.size_bytes else []
        if (latency := figures.latency_ms("p95", 1)) is not None:
            parts.insert(0, f"p95 {_number(latency)} ms")
        if figures.accuracy is not None:
            parts.insert(0, f"{figures.metric} {100 * figures.accuracy:.2f} %")
        told.append(f"{board}: {', '.join(parts)}")
    return f"{name}: {'; '.join(told)}{' (from the cache)' if attempt.cached else ''}"


def print_selection(selection: Selection) -> None:
    """Print the candidates of each board, the verdict of each set of constraints, and the choices."""
    outcomes = selection.outcomes
    boards = list(dict.fromkeys(outcome.board for outcome in outcomes))
    for board in boards:
        own = [outcome for outcome in outcomes if outcome.board == board]
        if len(own) == 1:
            _print_one(selection, own[0])
            continue
        _print_figures(selection, own[0])
        for outcome in own:
            print_table(
                ("candidate", "verdict", "why"),
                [(held.candidate, held.verdict.value, held.reason) for held in outcome.judgements],
                title=f"{board}, {outcome.constraints}",
            )
    print_table(
        ("board", "constraints", "choice", "because"),
        [
            (outcome.board, str(outcome.constraints), _choice(selection, outcome), outcome.reason)
            for outcome in outcomes
        ],
    )


def _print_one(selection: Selection, outcome: Outcome) -> None:
    rows = [
        (*row, held.verdict.value)
        for row, held in zip(_figure_rows(selection, outcome), outcome.judgements, strict=True)
    ]
    print_table((*_columns(selection, outcome), "verdict"), rows, title=_title(outcome))
    print_notes({held.candidate: held.reason for held in outcome.judgements if held.reason})


def _print_figures(selection: Selection, outcome: Outcome) -> None:
    rows = _figure_rows(selection, outcome)
    print_table(_columns(selection, outcome), rows, title=f"{outcome.board} (* no other one beats it)")


def _title(outcome: Outcome) -> str:
    return f"{outcome.board}, {outcome.constraints} (* no other one beats it)"


def _columns(selection: Selection, outcome: Outcome) -> tuple[str, ...]:
    known = (attempt.figures(outcome.board) for attempt in selection.attempts)
    metric = next((figures.metric for figures in known if figures is not None and figures.metric), "accuracy")
    return tuple(column.format(metric=metric) for column in _COLUMNS)


def _figure_rows(selection: Selection, outcome: Outcome) -> list[tuple[str, ...]]:
    rows = []
    for attempt in selection.attempts:
        name = attempt.candidate.name
        marked = f"{name}*" if name in outcome.front and len(outcome.front) > 1 else name
        rows.append((marked, *_cells(attempt.figures(outcome.board), outcome.constraints.threads)))
    return rows


def _cells(figures: Figures | None, threads: int) -> tuple[str, ...]:
    if figures is None:
        return ("–",) * 7
    accuracy, lost = figures.accuracy, figures.drop_points
    return (
        "–" if accuracy is None else f"{100 * accuracy:.2f}",
        "–" if lost is None else f"{max(lost, 0.0) if abs(lost) < 5e-3 else lost:.2f}",
        _number(figures.latency_ms("p50", threads)),
        _number(figures.latency_ms("p95", threads)),
        "–"
        if (speedup := figures.latencies_ms.get(threads, {}).get("speedup")) is None
        else f"{speedup:.2f}",
        "–" if figures.size_bytes is None else size(figures.size_bytes),
        "–" if figures.memory_bytes is None else size(figures.memory_bytes),
    )


def _choice(selection: Selection, outcome: Outcome) -> str:
    from boardwright.client.references import shorten

    if not outcome.choice:
        return "none"
    figures = selection.attempt(outcome.choice).figures(outcome.board)
    if figures is None or not figures.variant:
        return outcome.choice
    by = f" by {figures.toolchain}" if figures.toolchain else ""
    return f"{shorten(figures.variant)}{by}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def selection_document(selection: Selection) -> dict[str, Any]:
    """The whole selection as JSON."""
    return {
        "satisfied": selection.satisfied,
        "outcomes": [_outcome(selection, outcome) for outcome in selection.outcomes],
        "attempts": [_attempt(attempt) for attempt in selection.attempts],
    }


def _outcome(selection: Selection, outcome: Outcome) -> dict[str, Any]:
    figures = selection.attempt(outcome.choice).figures(outcome.board) if outcome.choice else None
    return {
        "board": outcome.board,
        "constraints": {"text": str(outcome.constraints), **dataclasses.asdict(outcome.constraints)},
        "choice": outcome.choice,
        "variant": figures.variant if figures else "",
        "artifact": figures.artifact if figures else "",
        "toolchain": figures.toolchain if figures else "",
        "reason": outcome.reason,
        "undecided": outcome.undecided,
        "judgements": [dataclasses.asdict(held) for held in outcome.judgements],
        "front": list(outcome.front),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    boards = {}
    for board, found in attempt.boards.items():
        figures = attempt.figures(board)
        held = dataclasses.asdict(found)
        if figures is not None:
            held["drop_points"] = figures.drop_points
            held["latencies_ms"] = {str(count): dict(v) for count, v in figures.latencies_ms.items()}
        boards[board] = held
    return {
        "candidate": attempt.candidate.name,
        "job": attempt.job,
        "cached": attempt.cached,
        "skipped": attempt.skipped,
        "failure": dataclasses.asdict(attempt.failure) if attempt.failure else None,
        "boards": boards,
    }
