"""`boardwright optimize`: the cheapest recipe whose variant is good, fast and small enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli import parsing
from boardwright.cli.output import Format, OutputOption, print_json, say
from boardwright.cli.progress import Bars
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.selection import Constraints

_REFUSED = 3
_DEFAULT = "max-drop=1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(optimize)


def optimize(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="For example digits@3, or digits for the newest.")],
    board: Annotated[
        list[str] | None, typer.Option(help="Catalogue name, repeatable; default: this machine's.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Most points of top-1 or mAP50-95 to lose against the baseline.", min=0),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Of one inference, measured on the board.", min=0)
    ] = None,
    max_size_mb: Annotated[
        float | None, typer.Option(help="Of the file that the runtime loads.", min=0)
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Peak resident memory on the board.", min=0)
    ] = None,
    statistic: Annotated[str, typer.Option(help="Which latency: p50 or p95.")] = "p95",
    threads: Annotated[int, typer.Option(help="1, or 0 for as many as the runtime likes.")] = 1,
    constraints: Annotated[
        list[str] | None,
        typer.Option(
            help='A further set, repeatable: "max-drop=0.5,max-latency-ms=10,max-size-mb=4". '
            f"Without any bound: {_DEFAULT}."
        ),
    ] = None,
    calibration: Annotated[str | None, typer.Option(help="Sealed dataset to calibrate with.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="Sealed, labelled dataset to judge by.")] = None,
    training: Annotated[str | None, typer.Option(help="Sealed dataset for recipes that train.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="role=dataset, for other roles.")] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Try this recipe (a name or a YAML file), repeatable, instead of those that ship."),
    ] = None,
    toolchain: Annotated[
        list[str] | None,
        typer.Option(help='Build by it, repeatable, or "all" that run here; the fastest counts.'),
    ] = None,
    exhaustive: Annotated[
        bool,
        typer.Option(
            "--exhaustive", help="Try all, and choose the fastest that satisfies, not the cheapest to make."
        ),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what is known to fail.")] = False,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop trying after so long; what has finished is kept.", min=0)
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs of a measurement; 0 for the service's default.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Try recipes from cheap to dear until a variant keeps to the constraints on each board.

    A latency is the board's own, measured there, or it is unknown. Steps that ran before come from the cache:
    the same command again is nearly free, and an interrupted one goes on. Exits with 3 and the reason when
    some board or set of constraints got no variant.

    \b
    Example:
      boardwright optimize digits@3 --max-drop 1.0 --max-latency-ms 33 \\
        --calibration train --evaluation test
      boardwright optimize digits@3 --board host --evaluation test \\
        --constraints "max-drop=0.5,max-size-mb=4"
    """
    asked = _constraints(
        {
            "max-drop": max_drop,
            "max-latency-ms": max_latency_ms,
            "max-size-mb": max_size_mb,
            "max-memory-mb": max_memory_mb,
        },
        f"statistic={statistic},threads={threads}",
        constraints or [],
    )
    from boardwright.cli.optimization import attempt_line, print_selection, selection_document

    with client_of(context) as client, Bars(output) as bars:
        found = client.optimize(
            version,
            asked,
            boards=board or ("host",),
            datasets=parsing.datasets(calibration, evaluation, dataset, training),
            recipes=recipe or (),
            toolchains=toolchain or (),
            exhaustive=exhaustive,
            retry=retry,
            runs=runs,
            time_limit_seconds=math.inf if max_minutes is None else 60 * max_minutes,
            progress=bars,
            on_attempt=lambda attempt: bars.note(attempt_line(attempt)),
        )
    if output is Format.JSON:
        print_json(selection_document(found))
    else:
        print_selection(found)
    if not found.satisfied:
        for outcome in found.outcomes:
            if not outcome.choice:
                told = f"{outcome.board}, {outcome.constraints}: {outcome.reason}"
                say(f"boardwright: {told} [NOTHING_SATISFIES]")
        raise typer.Exit(_REFUSED)


def _constraints(bounds: dict[str, float | None], how: str, further: list[str]) -> list[Constraints]:
    from boardwright.selection import Constraints

    given = [f"{name}={value!r}" for name, value in bounds.items() if value is not None]
    texts = [",".join([*given, how])] if given else []
    texts += [
        f"{text},{how}" if "statistic" not in text and "threads" not in text else text for text in further
    ]
    found = []
    for text in texts or [f"{_DEFAULT},{how}"]:
        try:
            found.append(Constraints.parse(text))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--constraints") from None
    return found
