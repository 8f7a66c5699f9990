"""`boardwright up`, `status` and `down`: everything on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from boardwright.cli.output import Format, OutputOption, print_json, print_table, say, size
from boardwright.cli.progress import Bars
from boardwright.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(status)
    app.command()(down)


def up(
    context: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it is ready.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Start every service, the gateway and a worker on this machine, and stay until Ctrl-C.

    Jobs that ended more than BOARDWRIGHT_JOBS_KEPT_DAYS ago (180; 0 keeps them for ever) go with
    their logs; what they made stays.

    \b
    Example:
      boardwright up --detach
      boardwright --data ./boardwright-data up
    """
    from boardwright.cli.embedded import stack
    from boardwright.cli.embedded.folder import DataFolderInUse
    from boardwright.cli.embedded.supervisor import StartFailed

    folder = session_of(context).data_folder

    with Bars(output) as bars:

        def ready(endpoints: stack.Endpoints) -> None:
            bars.clear()
            if output is Format.JSON:
                print_json({"grpc": endpoints.grpc, "url": endpoints.url, "data": str(folder)})
                return
            say(f"Boardwright is ready: gRPC {endpoints.grpc}, REST {endpoints.url}, data in {folder}.")
            if not detach:
                say("Ctrl-C stops it.")

        try:
            stack.up(folder, detach, bars, on_ready=ready)
        except (DataFolderInUse, StartFailed, OSError) as error:
            bars.clear()
            say(f"boardwright: {error}")
            raise typer.Exit(4) from error
    if not detach:
        say("Stopped.")


def status(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show what runs on this machine, and how much memory it takes.

    \b
    Example:
      boardwright status
    """
    from boardwright.cli.embedded import stack

    folder = session_of(context).data_folder
    held = stack.status(folder)
    if output is Format.JSON:
        print_json(
            {
                "running": held.running,
                "ready": held.endpoints is not None,
                "data": str(folder),
                "grpc": held.endpoints.grpc if held.endpoints else None,
                "url": held.endpoints.url if held.endpoints else None,
                "processes": [
                    {
                        "name": process.name,
                        "running": process.running,
                        "pid": process.pid,
                        "restarts": process.restarts,
                        "endpoint": process.endpoint,
                        "memory_bytes": process.memory_bytes,
                    }
                    for process in held.processes
                ],
            }
        )
    elif not held.running:
        say(f"Nothing runs on {folder}: boardwright up --detach")
    else:
        print_table(
            ("process", "state", ">pid", ">restarts", ">memory", "endpoint"),
            [
                (
                    p.name,
                    "running" if p.running else "down",
                    str(p.pid),
                    str(p.restarts),
                    size(p.memory_bytes),
                    p.endpoint,
                )
                for p in held.processes
            ],
        )
        say(f"{size(sum(p.memory_bytes for p in held.processes))} together; data in {folder}")
    if not held.running:
        raise typer.Exit(4)


def down(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Stop what runs on this machine; its data stays.

    \b
    Example:
      boardwright down
    """
    from boardwright.cli.embedded import stack

    folder = session_of(context).data_folder
    try:
        with Bars(output) as bars:
            stopped = stack.down(folder, bars)
    except TimeoutError as error:
        say(f"boardwright: {error}")
        raise typer.Exit(4) from error
    if output is Format.JSON:
        print_json({"stopped": stopped, "data": str(folder)})
    else:
        say("Stopped." if stopped else f"Nothing runs on {folder}.")
