"""`boardwright report`: what the variants of a version cost and gain."""

from __future__ import annotations

from typing import Annotated

import typer

from boardwright.cli.output import Format, OutputOption, print_json
from boardwright.cli.session import client_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="digits@3, or digits for the newest.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Compare the variants of a version: accuracy, size, latency, and where each was measured.

    \b
    Example:
      boardwright report digits@3
    """
    from boardwright.cli.report import collect, print_report

    with client_of(context) as client:
        rows = collect(client, version)
    if output is Format.JSON:
        print_json([row.to_document() for row in rows])
    else:
        print_report(rows)
