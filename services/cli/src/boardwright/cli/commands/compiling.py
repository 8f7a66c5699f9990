"""`boardwright compile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boardwright.cli import parsing
from boardwright.cli.commands.job import follow, print_job
from boardwright.cli.output import Format, OutputOption
from boardwright.cli.session import client_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compile")(compile_)


def compile_(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="For example digits@3, or digits for the newest.")],
    recipe: Annotated[
        str, typer.Option(help="A name that `boardwright ls recipes` shows, or a YAML file of your own.")
    ] = "default",
    calibration: Annotated[str | None, typer.Option(help="Sealed dataset to calibrate with.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="Sealed, labelled dataset to judge by.")] = None,
    training: Annotated[str | None, typer.Option(help="Sealed dataset for passes that train.")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="role=dataset, for other roles.")] = None,
    board: Annotated[
        list[str] | None,
        typer.Option(help="Board whose quantization profile counts; default: this machine's."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the steps, and which are cached.")
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run steps again whose failure is remembered.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    request_id: Annotated[str, typer.Option(help="The same id again gives the same job.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Run a recipe on a version: its steps make variants and judge them.

    \b
    Example:
      boardwright compile digits@3 \\
        --calibration digits-calibration --evaluation digits-evaluation
    """
    if recipe.endswith((".yaml", ".yml")) and not Path(recipe).is_file():
        raise typer.BadParameter(f"there is no file {recipe}", param_hint="--recipe")
    with client_of(context) as client:
        job = client.compile(
            version,
            recipe,
            datasets=parsing.datasets(calibration, evaluation, dataset, training),
            boards=board or (),
            validate_only=dry_run,
            retry_failed=retry,
            request_id=request_id,
        )
        print_job(job if detach or dry_run else follow(client, job.name, output), output)
