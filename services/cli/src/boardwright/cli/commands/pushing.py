"""`boardwright push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli import parsing
from boardwright.cli.output import Format, OutputOption, print_message
from boardwright.cli.progress import Bars
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.api.registry.v1.registry_pb2 import ModelVersion


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(push)


def push(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model; it is created if need be.")],
    path: Annotated[
        Path,
        typer.Argument(help="Checkpoint: ONNX, torch state dict, safetensors, TorchScript, Ultralytics .pt."),
    ],
    input_spec: Annotated[
        Path | None, typer.Option(help="JSON file: how images become the input tensor.")
    ] = None,
    output_spec: Annotated[Path | None, typer.Option(help="JSON file: what the outputs mean.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names, comma-separated, or a file with one a line.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="When the content does not tell.", show_default=False)
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="net.py or net.py:function, which builds a state dict's network.")
    ] = None,
    task: Annotated[str, typer.Option(help="classification or detection, for a new model.")] = "",
    commit: Annotated[str | None, typer.Option(help="Default: from CI's variables, or git.")] = None,
    run: Annotated[str | None, typer.Option(help="URL or id of the training run; default: CI's.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="key=number, as the training saw it.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value to filter by.")] = None,
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    recipe: Annotated[str | None, typer.Option(help="Start this recipe right away.")] = None,
    calibration: Annotated[str | None, typer.Option(help="Dataset for the recipe.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="Dataset for the recipe.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the recipe; without one, import the checkpoint and wait.")
    ] = False,
    request_id: Annotated[str, typer.Option(help="The same id again gives the same version.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Push a checkpoint as the next version of a model.

    \b
    Example:
      boardwright push digits digits.onnx --input-spec in.json \\
        --task classification --metric top1=0.982
      boardwright push digits digits.pt --module net.py:build \\
        --input-spec in.json --output-spec out.json
    """
    with client_of(context) as client, Bars(output) as bars:
        version = client.push(
            model,
            path,
            input_spec=input_spec,
            output_spec=output_spec,
            classes=_class_names(classes),
            format=format_,
            module=module,
            task=task,
            commit=commit,
            run=run,
            metrics=parsing.numbers(metric, "--metric"),
            labels=parsing.pairs(label, "--label"),
            description=description,
            recipe=recipe,
            datasets=parsing.datasets(calibration, evaluation, None),
            wait=wait,
            request_id=request_id,
            progress=bars,
        )
    print_message(version, output, version_rows(version))


def _class_names(classes: str | None) -> list[str]:
    if not classes:
        return []
    path = Path(classes)
    if path.is_file():
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    return [name.strip() for name in classes.split(",")]


def version_rows(version: ModelVersion) -> list[tuple[str, str]]:
    """What a table tells of a version."""
    from boardwright.cli.output import moment, size
    from boardwright.client.references import shorten

    return [
        ("version", shorten(version.name)),
        ("format", version.format),
        (
            "files",
            "\n".join(f"{file.path}  {size(file.size_bytes)}  {file.digest}" for file in version.files),
        ),
        ("input", _brief(version.input_spec_json) or "derived by import"),
        ("output", _brief(version.output_spec_json) or "derived by import"),
        ("commit", version.commit),
        ("run", version.run),
        ("metrics", ", ".join(f"{key}={value:g}" for key, value in sorted(version.metrics.items()))),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(version.labels.items()))),
        ("description", version.description),
        ("pushed", f"{moment(version.create_time)} by {version.creator}"),
    ]


def _brief(spec_json: str) -> str:
    import json

    if not spec_json:
        return ""
    spec = json.loads(spec_json)
    if "height" in spec:
        words = [str(spec.get(field, "")) for field in ("color", "layout", "resize")]
        return " ".join([f"{spec['width']}×{spec['height']}", *words])
    return f"{spec.get('task', '')}, {spec.get('head', '')}, {spec.get('num_classes', '?')} classes"
