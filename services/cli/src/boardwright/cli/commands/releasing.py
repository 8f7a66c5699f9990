"""`boardwright release`, `promote` and `gate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli import parsing
from boardwright.cli.output import Format, OutputOption, document, print_json, print_message, print_table, say
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.api.registry.v1 import registry_pb2 as pb
    from boardwright.client import Client

gates = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Rules that a release must meet to enter a stage."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(release)
    app.command()(promote)
    app.add_typer(gates, name="gate")


def release(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="digits, or digits@3/int8 for the newest artifact of each board.")
    ],
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(help="Artifacts of one version, one a board, or variants for their newest ones."),
    ] = None,
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    request_id: Annotated[str, typer.Option(help="The same id again gives the same release.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a release: one artifact for each board, all of one version.

    \b
    Example:
      boardwright release digits@3/int8
      boardwright release digits digits@3/int8-x86-vnni digits@3/int8-arm
    """
    with client_of(context) as client:
        chosen = list(artifacts or [])
        if not chosen:
            if "/" not in model:
                raise typer.BadParameter(
                    "name the artifacts, or a variant: digits@3/int8", param_hint="ARTIFACTS"
                )
            chosen = [model]
        made = client.release(model, chosen, description=description, request_id=request_id)
    print_message(made, output, release_rows(made))


def release_rows(made: pb.Release) -> list[tuple[str, str]]:
    """What a table tells of a release."""
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    return [
        ("release", shorten(made.name)),
        ("version", shorten(made.version)),
        ("boards", "\n".join(f"{pin_text(entry.pin)}  {shorten(entry.artifact)}" for entry in made.entries)),
        ("index", made.index_digest),
        ("description", made.description),
        ("made", f"{moment(made.create_time)} by {made.creator}"),
    ]


def pin_text(pin: object) -> str:
    """A HardwarePin in a few words."""
    fields = ("board", "architecture", "accelerator", "runtime", "runtime_version", "bsp", "driver")
    return " ".join(str(getattr(pin, field)) for field in fields if getattr(pin, field))


def promote(
    context: typer.Context,
    release_: Annotated[str, typer.Argument(metavar="RELEASE", help="digits@r2, digits@staging, or digits.")],
    stage: Annotated[str, typer.Argument(help="For example production.")],
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only judge; nothing changes.")] = False,
    roll_back: Annotated[
        bool, typer.Option("--roll-back", help="Put back what the stage held before.")
    ] = False,
    etag: Annotated[str, typer.Option(help="Only if the stage is still as it was seen.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Judge a release by a stage's gates and put it there, or roll the stage back.

    \b
    Example:
      boardwright promote digits@r2 production --reason "2 ms faster"
      boardwright promote digits production --roll-back --reason "drifts"
    """
    with client_of(context) as client:
        if roll_back:
            answer = client.roll_back(release_, stage, reason=reason, etag=etag, validate_only=dry_run)
        else:
            answer = client.promote(release_, stage, reason=reason, etag=etag, validate_only=dry_run)
    if output is Format.JSON:
        print_json(document(answer))
    else:
        _print_verdicts(answer.verdicts)
        from boardwright.client.references import shorten

        if dry_run and not roll_back:
            say(f"{shorten(release_)} would {'pass' if answer.passed else 'be refused'}")
        else:
            holds = "would hold" if dry_run else "holds"
            say(f"{shorten(answer.stage.name)} {holds}: {shorten(answer.stage.release)}")
            if roll_back and not dry_run:
                say(
                    "Its fleets keep what they were offered: boardwright fleet ls tells what, "
                    f"boardwright rollout start FLEET {shorten(answer.stage.name)} changes it"
                )
    if dry_run and not answer.passed:
        raise typer.Exit(3)


def _print_verdicts(verdicts: Iterable[pb.GateVerdict]) -> None:
    rows = [("passed" if v.passed else "refused", gate_text(v.gate), v.explanation) for v in verdicts]
    if rows:
        print_table(("verdict", "gate", "because"), rows)


def gate_text(gate: pb.Gate) -> str:
    """A gate in words."""
    if gate.WhichOneof("rule") == "accuracy_drop":
        drop = gate.accuracy_drop
        return f"{drop.metric} drops by at most {drop.max_drop_points:g} points"
    ceiling = gate.latency_ceiling
    threads = f", {ceiling.threads} thread" if ceiling.threads else ""
    return f"{ceiling.statistic} at most {ceiling.max_ms:g} ms on {ceiling.board}{threads}"


@gates.command("ls")
def list_gates(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model.")],
    output: OutputOption = Format.TABLE,
) -> None:
    """List a model's gates.

    \b
    Example:
      boardwright gate ls digits
    """
    with client_of(context) as client:
        found = list(client.models.get(model).gates)
    _print_gates(found, output)


@gates.command("set")
def set_gates(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model.")],
    stage: Annotated[str, typer.Argument(help="The stage whose gates are replaced.")],
    accuracy_drop: Annotated[
        list[str] | None, typer.Option(help="metric=points: top1=1 allows one point less than the baseline.")
    ] = None,
    latency: Annotated[
        list[str] | None, typer.Option(help="board:statistic=ms: raspberry-pi-5:p95=33.")
    ] = None,
    threads: Annotated[int, typer.Option(help="For latency: 1 for single-thread, 0 for the default.")] = 1,
    output: OutputOption = Format.TABLE,
) -> None:
    """Set the gates of a stage; without any option the stage is open.

    \b
    Example:
      boardwright gate set digits production --accuracy-drop top1=1 \\
        --latency raspberry-pi-5:p95=33
    """
    from boardwright.api.registry.v1 import registry_pb2 as pb

    wanted = [
        pb.Gate(stage=stage, accuracy_drop=pb.AccuracyDrop(metric=metric, max_drop_points=points))
        for metric, points in parsing.numbers(accuracy_drop, "--accuracy-drop").items()
    ]
    for key, bound in parsing.numbers(latency, "--latency").items():
        board, colon, statistic = key.rpartition(":")
        if not colon:
            raise typer.BadParameter(f"{key!r} is not board:statistic", param_hint="--latency")
        ceiling = pb.LatencyCeiling(board=board, statistic=statistic, max_ms=bound, threads=threads)
        wanted.append(pb.Gate(stage=stage, latency_ceiling=ceiling))
    with client_of(context) as client:
        stored = replace_gates(client, model, stage, wanted)
    _print_gates(stored, output)


def replace_gates(client: Client, model: str, stage: str, wanted: Iterable[pb.Gate]) -> list[pb.Gate]:
    """Replace one stage's gates and keep the others'; returns all."""
    kept = [gate for gate in client.models.get(model).gates if gate.stage != stage]
    return list(client.models.set_gates(model, [*kept, *wanted]).gates)


def _print_gates(found: list[pb.Gate], output: Format) -> None:
    if output is Format.JSON:
        print_json([document(gate) for gate in found])
    elif found:
        print_table(("stage", "gate"), [(gate.stage, gate_text(gate)) for gate in found])
    else:
        say("No gates: every release may enter every stage.")
