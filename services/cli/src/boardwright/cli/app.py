"""Which commands there are, and the options before them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boardwright.cli.commands import (
    building,
    compiling,
    dataset,
    demonstrating,
    fleets,
    job,
    looking,
    optimizing,
    provenance,
    pushing,
    releasing,
    reporting,
    rollouts,
    server,
    stack,
    token,
)
from boardwright.cli.ordering import AnyOrder
from boardwright.cli.session import Session

app = typer.Typer(
    name="boardwright",
    cls=AnyOrder,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong usage, 3 refused (the message says why), 4 unavailable (try again).",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"boardwright {version('boardwright-cli')}")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="BOARDWRIGHT_DATA", help="Data folder of a stack on this machine.", show_default=False
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="host:port of another server (BOARDWRIGHT_ENDPOINT).", show_default=False),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Token to show it (BOARDWRIGHT_TOKEN).", show_default=False)
    ] = None,
    project: Annotated[
        str, typer.Option(envvar="BOARDWRIGHT_PROJECT", help="Project of all names.")
    ] = "default",
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a trained checkpoint to a signed artifact on a fleet.

    \b
    boardwright up --detach            start everything on this machine
    boardwright push digits net.onnx   a checkpoint becomes a version: digits@1
    boardwright compile digits@1       INT8 variants, judged against FP32
    boardwright optimize digits@1      the cheapest recipe that keeps to bounds
    boardwright build digits@1/int8    an artifact for this machine
    boardwright report digits@1        what it cost and what it gained

    Each command shows a whole example: boardwright push --help.
    """
    context.obj = Session(data, endpoint, token, project)


pushing.register(app)
dataset.register(app)
compiling.register(app)
building.register(app)
optimizing.register(app)
releasing.register(app)
rollouts.register(app)
fleets.register(app)
job.register(app)
looking.register(app)
provenance.register(app)
reporting.register(app)
server.register(app)
token.register(app)
stack.register(app)
demonstrating.register(app)
