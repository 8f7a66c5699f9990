"""`boardwright demo`: from a checkpoint to a running device, with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from boardwright.cli.output import Format, OutputOption
from boardwright.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    context: typer.Context,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your own model; default: a small network trained on digits.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Images to calibrate and judge with.")] = None,
    evaluation: Annotated[Path | None, typer.Option(help="Other images to judge with.")] = None,
    board: Annotated[str, typer.Option(help="Build for this board too.")] = "raspberry-pi-5",
    input_spec: Annotated[
        Path | None, typer.Option(help="JSON file; all but Ultralytics' checkpoints need it.")
    ] = None,
    output_spec: Annotated[
        Path | None, typer.Option(help="JSON file, where the checkpoint does not tell.")
    ] = None,
    module: Annotated[str | None, typer.Option(help="net.py:function, for a state dict.")] = None,
    model: Annotated[str | None, typer.Option(help="Id of the model; default: the file's name.")] = None,
    accuracy_drop: Annotated[
        float | None, typer.Option(help="Points that the gate allows; default: 1 for digits, 5 for yours.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="p95 on this machine that the gate allows; 0 for no such gate.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Most images of a dataset, 0 for all; default: 300 of yours.")
    ] = None,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Leave the services running.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Take a checkpoint all the way to a device that verified and runs it, on this machine.

    \b
    Example:
      boardwright --data .boardwright demo
      boardwright demo --checkpoint net.onnx --input-spec in.json --dataset images
    """
    from boardwright.cli.demo.main import Wishes, run

    wishes = Wishes(
        data=session_of(context).data_folder,
        checkpoint=checkpoint,
        dataset=dataset,
        evaluation=evaluation,
        board=board,
        input_spec=input_spec,
        output_spec=output_spec,
        module=module,
        model=model,
        accuracy_drop_points=accuracy_drop,
        latency_ms=latency_ms,
        samples=samples,
        keep_running=keep_running,
    )
    raise typer.Exit(run(wishes, output))
