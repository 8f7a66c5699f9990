"""`boardwright dataset`: samples in, sealed versions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli.output import Format, OutputOption, print_message, print_messages
from boardwright.cli.progress import Bars
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.api.calibration.v1.calibration_pb2 import DatasetVersion

_SHOWN_AT_MOST = 20

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Datasets for calibration and evaluation."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="dataset")


@group.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Id of the dataset; it is created if need be.")],
    path: Annotated[Path, typer.Argument(help="Image folder, YOLO, COCO JSON, CSV of labels, NumPy arrays.")],
    layout: Annotated[str, typer.Option(help="folder, csv, yolo, coco or numpy.")] = "auto",
    split: Annotated[str, typer.Option(help="Only this part, where the layout has parts.")] = "",
    limit: Annotated[int, typer.Option(help="Only the first so many samples; 0 for all.")] = 0,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave bad images and labels out.")
    ] = False,
    seal_: Annotated[bool, typer.Option("--seal/--open", help="Seal it, or leave it open for more.")] = True,
    description: Annotated[str, typer.Option(help="Free text, for a new dataset.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Add samples as the dataset's next version, and seal it.

    \b
    Example:
      boardwright dataset add street-calibration ./images --limit 200
    """
    with client_of(context) as client, Bars(output) as bars:
        version = client.datasets.add(
            name,
            path,
            layout=layout,
            split=split,
            limit=limit,
            skip_invalid=skip_invalid,
            seal=seal_,
            description=description,
            progress=bars,
        )
    print_message(version, output, version_rows(version))


@group.command()
def seal(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="For example street@2.")],
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Leave invalid samples out.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Verify an open version and make it immutable.

    \b
    Example:
      boardwright dataset seal street@2 --skip-invalid
    """
    with client_of(context) as client, Bars(output) as bars:
        sealed = client.datasets.seal(version, skip_invalid=skip_invalid, progress=bars)
    print_message(sealed, output, version_rows(sealed))


@group.command("ls")
def list_(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Show this dataset's versions.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.")] = 50,
    output: OutputOption = Format.TABLE,
) -> None:
    """List datasets, or the versions of one.

    \b
    Example:
      boardwright dataset ls street
    """
    from boardwright.cli.output import moment, size, state
    from boardwright.client.references import shorten

    with client_of(context) as client:
        if name is None:
            print_messages(
                client.datasets.list(limit=limit),
                output,
                ("dataset", "task", "created", "description"),
                lambda d: (shorten(d.name), d.task or "unlabelled", moment(d.create_time), d.description),
                empty="No datasets yet: boardwright dataset add NAME PATH",
            )
            return
        print_messages(
            client.datasets.versions(name, limit=limit),
            output,
            ("version", "state", ">samples", ">labelled", ">size", "created"),
            lambda v: (
                shorten(v.name),
                state(v),
                str(v.sample_count),
                str(v.labelled_count),
                size(v.size_bytes),
                moment(v.create_time),
            ),
            empty=f"{name} has no versions yet: boardwright dataset add {name} PATH",
        )


@group.command()
def show(
    context: typer.Context,
    version: Annotated[str, typer.Argument(help="street@2, or street for the newest sealed one.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a version and its statistics.

    \b
    Example:
      boardwright dataset show street@2
    """
    with client_of(context) as client:
        found = client.datasets.version(version)
    print_message(found, output, version_rows(found))


def version_rows(version: DatasetVersion) -> list[tuple[str, str]]:
    """What a table tells of a dataset version."""
    from boardwright.cli.output import moment, size, state
    from boardwright.client.references import shorten

    statistics = version.statistics
    counts = sorted(statistics.class_counts.items())

    def named(class_id: int) -> str:
        return version.classes[class_id] if class_id < len(version.classes) else str(class_id)

    return [
        ("version", shorten(version.name)),
        ("state", state(version)),
        (
            "samples",
            f"{version.sample_count} ({version.labelled_count} labelled), {size(version.size_bytes)}",
        ),
        ("digest", version.manifest_digest),
        (
            "images",
            f"{statistics.width.min:.0f}–{statistics.width.max:.0f} × "
            f"{statistics.height.min:.0f}–{statistics.height.max:.0f} px, brightness "
            f"{statistics.brightness.mean:.2f}, contrast {statistics.contrast.mean:.2f}"
            if statistics.count
            else "",
        ),
        ("classes", ", ".join(f"{named(class_id)} {count}" for class_id, count in counts[:20])),
        ("left out", _left_out(version)),
        ("created", f"{moment(version.create_time)} by {version.creator}"),
    ]


def _left_out(version: DatasetVersion) -> str:
    lines = [f"{bad.sample}: {bad.reason}" for bad in version.left_out[:_SHOWN_AT_MOST]]
    more = len(version.left_out) - len(lines)
    return "\n".join([*lines, f"and {more} more: -o json lists up to 100"] if more else lines)
