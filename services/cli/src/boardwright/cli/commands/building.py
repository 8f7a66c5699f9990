"""`boardwright build` and `boardwright measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from boardwright.cli import parsing
from boardwright.cli.commands.job import follow, print_job
from boardwright.cli.output import Format, OutputOption
from boardwright.cli.session import client_of

_PIN_FIELDS = ("runtime_version", "bsp", "driver", "accelerator")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(build)
    app.command()(measure)


def build(
    context: typer.Context,
    variant: Annotated[str, typer.Argument(help="For example digits@3/int8.")],
    board: Annotated[str, typer.Option(help="Catalogue name (`boardwright ls boards`).")] = "host",
    toolchain: Annotated[str, typer.Option(help="Default: the board's first available one.")] = "",
    golden: Annotated[str, typer.Option(help="Dataset whose first samples become golden samples.")] = "",
    pin: Annotated[
        list[str] | None, typer.Option(help=f"key=value for a board elsewhere: {', '.join(_PIN_FIELDS)}.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check whether it could be built.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run steps again whose failure is remembered.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    request_id: Annotated[str, typer.Option(help="The same id again gives the same job.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Build a variant for a board.

    \b
    Example:
      boardwright build digits@3/int8 --board raspberry-pi-5 \\
        --golden digits-evaluation
    """
    from boardwright.api.types.v1.types_pb2 import HardwarePin

    fields = parsing.pairs(pin, "--pin")
    unknown = sorted(set(fields) - set(_PIN_FIELDS))
    if unknown:
        raise typer.BadParameter(
            f"no such field {unknown[0]!r}; use {', '.join(_PIN_FIELDS)}", param_hint="--pin"
        )
    with client_of(context) as client:
        job = client.build(
            variant,
            board,
            toolchain=toolchain,
            golden_dataset=golden,
            pin=HardwarePin(**fields) if fields else None,
            validate_only=dry_run,
            retry_failed=retry,
            request_id=request_id,
        )
        print_job(job if detach or dry_run else follow(client, job.name, output), output)


def measure(
    context: typer.Context,
    artifacts: Annotated[
        list[str], typer.Argument(help="Artifacts, or variants for their newest ones: digits@3/int8.")
    ],
    board: Annotated[str, typer.Option(help="Whose artifacts, of variants; default: this machine's.")] = "",
    runs: Annotated[int, typer.Option(help="Measured runs; 0 for the service's default.")] = 0,
    warm_up: Annotated[int, typer.Option(help="Runs before them; 0 for the service's default.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Measure anew although a figure exists.")] = False,
    allow_emulated: Annotated[
        bool,
        typer.Option(
            "--allow-emulated", help="Accept figures made on another host; they are marked and pass no gate."
        ),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the job.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Measure artifacts of one board side by side.

    \b
    Example:
      boardwright measure digits@3/baseline digits@3/int8 --runs 500
    """
    with client_of(context) as client:
        job = client.measure(
            artifacts,
            board=board,
            runs=runs,
            warm_up_runs=warm_up,
            again=again,
            allow_emulated=allow_emulated,
        )
        print_job(job if detach else follow(client, job.name, output), output)
