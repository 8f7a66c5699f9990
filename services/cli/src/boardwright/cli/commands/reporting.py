"""`boardwright report`: what the variants of a version cost and gain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boardwright.cli import parsing
from boardwright.cli.output import Format, OutputOption, print_json, say
from boardwright.cli.progress import Bars
from boardwright.cli.session import client_of

_REFUSED = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="digits@3, or digits for the newest.")],
    html: Annotated[
        Path | None, typer.Option(help="Write tables and plots to this file; it needs no network.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write them as Markdown, with the plots in a folder beside it.")
    ] = None,
    board: Annotated[str, typer.Option(help="Whose speeds they tell; default: this machine's.")] = "",
    full: Annotated[
        bool, typer.Option("--full", help="First make and measure the variants that comparisons need.")
    ] = False,
    recipe: Annotated[str, typer.Option(help="What --full runs: a name or a YAML file.")] = "comparison",
    runs: Annotated[int, typer.Option(help="Runs of a measurement; 0 for the service's default.")] = 0,
    calibration: Annotated[str | None, typer.Option(help="Sealed dataset, for --full.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="Sealed, labelled dataset, for --full.")] = None,
    training: Annotated[str | None, typer.Option(help="Sealed dataset, for recipes that train.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="role=dataset, for other roles.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Compare the variants of a version: accuracy, size, latency, and where each was measured.

    With --html or --markdown also what the passes found out: precisions, dynamic and static, per tensor and
    per channel, calibration sizes, pruning ratios, sensitive layers, activation ranges, and the deployment on
    each board. What is missing names the command that makes it; --full makes most of it. Where that fails,
    the report is of what there is, and the exit code is 3.

    \b
    Example:
      boardwright report digits@3
      boardwright report digits@3 --html digits.html --full \\
        --calibration digits-calibration --evaluation digits-evaluation
    """
    from boardwright.cli.report import collect, print_report

    if html or markdown:
        from boardwright.cli.reporting.writing import require_engine

        require_engine()
    complete = True
    with client_of(context) as client, Bars(output) as bars:
        if full:
            from boardwright.cli.reporting.completing import make_all

            datasets = parsing.datasets(calibration, evaluation, dataset, training)
            complete = make_all(client, version, board, datasets, recipe=recipe, runs=runs, progress=bars)
        rows = collect(client, version)
        if html or markdown:
            from boardwright.cli.reporting.gathering import gather
            from boardwright.cli.reporting.writing import write

            bars(0, 0, "gathering")
            written = write(gather(client, version, board), html, markdown)
        else:
            written = []
    if output is Format.JSON:
        print_json([row.to_document() for row in rows])
    else:
        print_report(rows)
    for path in written:
        if path in (html, markdown):
            say(f"written to {path}")
    if not complete:
        say("Not all that --full makes could be made: the report holds what there is.")
        raise typer.Exit(_REFUSED)
