"""`boardwright show` and `ls`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boardwright.cli.output import (
    Format,
    OutputOption,
    document,
    print_json,
    print_message,
    print_messages,
    say,
)
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.client import Client

_RELEASE = re.compile(r"@r[0-9]+$|/releases/[^/]+$")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(show)
    app.command("ls")(list_)


def show(
    context: typer.Context,
    reference: Annotated[
        str,
        typer.Argument(
            help="digits, digits@3, digits@3/int8, digits@3/int8/m7, digits@r2, digits@production."
        ),
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a model, version, variant, artifact, measurement or release.

    \b
    Example:
      boardwright show digits@production
    """
    with client_of(context) as client:
        name = client.models.resolve(reference)
        collection = name.split("/")[-2] if "/" in name else ""
        if collection not in _SHOWN:
            raise typer.BadParameter(f"{reference!r} names nothing that can be shown", param_hint="REFERENCE")
        message, rows = _SHOWN[collection](client, name)
    print_message(message, output, rows)


def _model(client: Client, name: str) -> tuple[Any, list[tuple[str, str]]]:
    from boardwright.cli.commands.releasing import gate_text
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    model = client.models.get(name)
    stages = client.models.stages(name)
    held = "\n".join(
        f"{stage.name.rpartition('/')[2]:<12} {shorten(stage.release) if stage.release else '–'}"
        for stage in reversed(stages)
    )
    return model, [
        ("model", shorten(model.name)),
        ("task", model.task),
        ("description", model.description),
        ("stages", held),
        ("gates", "\n".join(f"{gate.stage}: {gate_text(gate)}" for gate in model.gates)),
        ("created", moment(model.create_time)),
    ]


def _version(client: Client, name: str) -> tuple[Any, list[tuple[str, str]]]:
    from boardwright.cli.commands.pushing import version_rows

    version = client.models.version(name)
    return version, version_rows(version)


def _variant(client: Client, name: str) -> tuple[Any, list[tuple[str, str]]]:
    from boardwright.cli.output import moment, size
    from boardwright.client.references import shorten

    variant = client.models.variant(name)
    return variant, [
        ("variant", shorten(variant.name)),
        ("recipe", f"{variant.recipe} {variant.recipe_digest}"),
        ("graph", f"{size(variant.graph.size_bytes)}  {variant.graph.digest}"),
        ("profile", variant.quantization_profile),
        ("record", variant.record_digest),
        ("measured", _figures(client, name)),
        ("made", f"{moment(variant.create_time)} by {variant.creator}"),
    ]


def _artifact(client: Client, name: str) -> tuple[Any, list[tuple[str, str]]]:
    from boardwright.cli.commands.releasing import pin_text
    from boardwright.cli.output import moment, size
    from boardwright.client.references import shorten

    artifact = client.models.artifact(name)
    return artifact, [
        ("artifact", shorten(artifact.name)),
        ("for", pin_text(artifact.pin)),
        ("cpu features", ", ".join(artifact.pin.cpu_features)),
        ("toolchain", f"{artifact.toolchain} {artifact.toolchain_version}"),
        ("files", "\n".join(f"{f.path}  {size(f.size_bytes)}  {f.digest}" for f in artifact.files)),
        ("manifest", artifact.manifest_digest),
        ("record", artifact.record_digest),
        ("measured", _figures(client, name)),
        ("made", f"{moment(artifact.create_time)} by {artifact.creator}"),
    ]


def _measurement(client: Client, name: str) -> tuple[Any, list[tuple[str, str]]]:
    from boardwright.cli.commands.releasing import pin_text
    from boardwright.cli.output import moment
    from boardwright.client.board_figures import warnings_of
    from boardwright.client.references import shorten

    found = client.models.measurement(name)
    return found, [
        ("measurement", shorten(found.name)),
        ("kind", f"{found.kind}, {_origin(found)}"),
        ("figures", "\n".join(f"{key}  {figure_text(key, v)}" for key, v in sorted(found.values.items()))),
        ("dataset", shorten(found.dataset) if found.dataset else ""),
        ("host", pin_text(found.host)),
        ("says", "\n".join(warnings_of(found))),
        ("record", found.record_digest),
        ("made", f"{moment(found.create_time)} by {found.creator}"),
    ]


def _figures(client: Client, name: str) -> str:
    from boardwright.client.references import shorten

    lines = []
    for found in client.models.measurements(name, limit=20):
        if "/artifacts/" in found.name and "/artifacts/" not in name:
            continue
        values = ", ".join(f"{key}={figure_text(key, value)}" for key, value in sorted(found.values.items()))
        by = f" by {shorten(found.dataset)}" if found.dataset else ""
        lines.append(f"{found.kind} ({_origin(found)}{by}): {values}")
    return "\n".join(lines)


def figure_text(name: str, value: float) -> str:
    """A figure for people: bytes in their unit, whole numbers whole, else four digits."""
    from boardwright.cli.output import size

    if name.endswith("_bytes"):
        return size(value)
    return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"


def _origin(measurement: Any) -> str:
    from boardwright.cli.output import state

    origin = state(measurement, "origin")
    where = f" on {measurement.board}" if measurement.board else ""
    return f"{origin}{where}" + (f", {measurement.threads} thread" if measurement.threads else "")


def _release(client: Client, name: str) -> tuple[Any, list[tuple[str, str]]]:
    from boardwright.cli.commands.releasing import release_rows

    release = client.models.release(name)
    return release, release_rows(release)


_SHOWN: dict[str, Callable[[Client, str], tuple[Any, list[tuple[str, str]]]]] = {
    "models": _model,
    "versions": _version,
    "variants": _variant,
    "artifacts": _artifact,
    "measurements": _measurement,
    "releases": _release,
}


def list_(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            help="digits (versions), digits@3 (variants and artifacts), releases of digits with digits@r, "
            "boards, toolchains, recipes; default: models."
        ),
    ] = None,
    where: Annotated[str, typer.Option("--filter", help='AIP-160, for example: task = "detection".')] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.")] = 50,
    output: OutputOption = Format.TABLE,
) -> None:
    """List models, the versions of a model, or what was made of a version.

    \b
    Example:
      boardwright ls digits
      boardwright ls boards
    """
    with client_of(context) as client:
        if what in _CATALOGUES:
            _CATALOGUES[what](client, where, output)
        elif what is None or what == "models":
            _list_models(client, where, limit, output)
        elif what.endswith("@r"):
            _list_releases(client, what.removesuffix("@r"), where, limit, output)
        elif _RELEASE.search(what):
            raise typer.BadParameter(f"{what} is a release: boardwright show {what}", param_hint="WHAT")
        elif "@" in what or "/versions/" in what:
            _list_artifacts(client, what, where, limit, output)
        else:
            _list_versions(client, what, where, limit, output)


def _list_models(client: Client, where: str, limit: int, output: Format) -> None:
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    print_messages(
        client.models.list(where=where, limit=limit),
        output,
        ("model", "task", "created", "description"),
        lambda m: (shorten(m.name), m.task, moment(m.create_time), m.description),
        empty="No models yet: boardwright push NAME CHECKPOINT",
        where=where,
        limit=limit,
    )


def _list_versions(client: Client, model: str, where: str, limit: int, output: Format) -> None:
    from boardwright.cli.output import moment, size
    from boardwright.client.references import shorten

    client.models.get(model)  # an unknown model is not the same as one without versions
    print_messages(
        client.models.versions(model, where=where, limit=limit),
        output,
        ("version", "format", ">size", "commit", "metrics", "pushed", "by"),
        lambda v: (
            shorten(v.name),
            v.format,
            size(sum(file.size_bytes for file in v.files)),
            v.commit[:12],
            ", ".join(f"{key}={value:g}" for key, value in sorted(v.metrics.items())),
            moment(v.create_time),
            v.creator,
        ),
        empty=f"{model} has no versions yet: boardwright push {model} CHECKPOINT",
        where=where,
        limit=limit,
    )


def _list_artifacts(client: Client, reference: str, where: str, limit: int, output: Format) -> None:
    from boardwright.cli.commands.releasing import pin_text
    from boardwright.cli.output import moment, print_table, size
    from boardwright.client.references import shorten

    variants = list(client.models.variants(reference.partition("/")[0])) if "/" not in reference else []
    artifacts = list(client.models.artifacts(reference, where=where, limit=limit))
    if output is Format.JSON:
        print_json(
            {"variants": [document(v) for v in variants], "artifacts": [document(a) for a in artifacts]}
        )
        return
    rows = [
        (shorten(v.name), v.quantization_profile or "float", size(v.graph.size_bytes), moment(v.create_time))
        for v in variants
    ]
    if rows:
        print_table(("variant", "profile", ">size", "made"), rows)
    if not artifacts:
        say(f"Nothing was built yet: boardwright build {reference.partition('/')[0]}/VARIANT --board host")
        return
    print_table(
        ("artifact", "for", "toolchain", ">size", "made"),
        [
            (shorten(a.name), pin_text(a.pin), a.toolchain, size(a.size_bytes), moment(a.create_time))
            for a in artifacts
        ],
    )


def _list_releases(client: Client, model: str, where: str, limit: int, output: Format) -> None:
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    print_messages(
        client.models.releases(model, where=where, limit=limit),
        output,
        ("release", "version", "boards", "made", "description"),
        lambda r: (
            shorten(r.name),
            shorten(r.version),
            ", ".join(entry.pin.board for entry in r.entries),
            moment(r.create_time),
            r.description,
        ),
        empty=f"{model} has no releases yet: boardwright release {model}@1/int8",
        where=where,
        limit=limit,
    )


def _list_boards(client: Client, where: str, output: Format) -> None:
    print_messages(
        client.boards.list(where=where),
        output,
        ("board", "what", "architecture", "toolchains", "profile", "here"),
        lambda b: (
            b.name.removeprefix("boards/"),
            b.title,
            b.architecture,
            ", ".join(b.toolchains),
            b.quantization_profile.name,
            "yes" if b.here else "",
        ),
        empty="The catalogue is empty.",
        where=where,
    )


def _list_toolchains(client: Client, where: str, output: Format) -> None:
    print_messages(
        client.boards.toolchains(),
        output,
        ("toolchain", "version", "available", "waits for"),
        lambda t: (
            t.name.removeprefix("toolchains/"),
            t.version,
            "yes" if t.available else "no",
            t.waits_for,
        ),
        empty="No toolchains.",
    )


def _list_recipes(client: Client, where: str, output: Format) -> None:
    print_messages(
        client.recipes.list(),
        output,
        ("recipe", "what it does"),
        lambda r: (r.name.removeprefix("recipes/"), r.description),
        empty="No recipes.",
    )


_CATALOGUES: dict[str, Callable[[Client, str, Format], None]] = {
    "boards": _list_boards,
    "toolchains": _list_toolchains,
    "recipes": _list_recipes,
}
