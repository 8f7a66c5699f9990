"""`boardwright rollout`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli.commands.fleets import FleetArgument, ReasonOption
from boardwright.cli.output import Format, OutputOption, print_message, print_messages, say
from boardwright.cli.progress import Bars
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.api.delivery.v1 import delivery_pb2 as pb
    from boardwright.client import Client

rollouts = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rollouts of releases to fleets.")

RolloutArgument = Annotated[str, typer.Argument(help="Id of the rollout.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(rollouts, name="rollout")


@rollouts.command("start")
def start_rollout(
    context: typer.Context,
    fleet: FleetArgument,
    release: Annotated[str, typer.Argument(help="digits@production, digits@r2, or digits.")],
    reason: ReasonOption = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check whether it could start.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every device has, or refused it.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Sign a release for a fleet and offer it to its devices.

    \b
    Example:
      boardwright rollout start cameras digits@production --wait
    """
    with client_of(context) as client:
        started = client.rollouts.create(fleet, release, reason=reason, validate_only=dry_run)
        if wait and not dry_run:
            follow(client, started.name, output)
        elif dry_run and output is Format.TABLE:
            say(f"{started.release} could roll out to {started.fleet}; nothing was started.")
        else:
            print_message(started, output, rollout_rows(started))


@rollouts.command("ls")
def list_rollouts(
    context: typer.Context,
    where: Annotated[str, typer.Option("--filter", help="For example: state = active.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.")] = 20,
    output: OutputOption = Format.TABLE,
) -> None:
    """List rollouts, newest first.

    \b
    Example:
      boardwright rollout ls
    """
    from boardwright.cli.output import moment, state
    from boardwright.client.references import shorten

    with client_of(context) as client:
        print_messages(
            client.rollouts.list(where=where, limit=limit),
            output,
            ("rollout", "fleet", "release", "state", ">done", ">waiting", ">failed", "created"),
            lambda r: (
                shorten(r.name),
                shorten(r.fleet),
                shorten(r.release),
                state(r),
                str(r.succeeded_count),
                str(r.pending_count),
                str(r.failed_count),
                moment(r.create_time),
            ),
            empty="No rollouts yet: boardwright rollout start FLEET RELEASE",
            where=where,
            limit=limit,
        )


@rollouts.command("show")
def show_rollout(
    context: typer.Context, rollout: RolloutArgument, output: OutputOption = Format.TABLE
) -> None:
    """Show a rollout.

    \b
    Example:
      boardwright rollout show cameras-1
    """
    with client_of(context) as client:
        found = client.rollouts.get(rollout)
    print_message(found, output, rollout_rows(found))


@rollouts.command("watch")
def watch_rollout(
    context: typer.Context, rollout: RolloutArgument, output: OutputOption = Format.TABLE
) -> None:
    """Follow a rollout until every device has its release, or refused it.

    \b
    Example:
      boardwright rollout watch cameras-1
    """
    with client_of(context) as client:
        follow(client, rollout, output)


@rollouts.command("pause")
def pause_rollout(
    context: typer.Context,
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Let no further device install; those that have it keep it.

    \b
    Example:
      boardwright rollout pause cameras-1 --reason "two devices failed"
    """
    with client_of(context) as client:
        changed = client.rollouts.pause(rollout, reason)
    print_message(changed, output, rollout_rows(changed))


@rollouts.command("resume")
def resume_rollout(
    context: typer.Context,
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Go on with a paused rollout.

    \b
    Example:
      boardwright rollout resume cameras-1
    """
    with client_of(context) as client:
        changed = client.rollouts.resume(rollout, reason)
    print_message(changed, output, rollout_rows(changed))


@rollouts.command("cancel")
def cancel_rollout(
    context: typer.Context,
    rollout: RolloutArgument,
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Withdraw the release; devices go back to what was offered before.

    \b
    Example:
      boardwright rollout cancel cameras-1 --reason "wrong labels"
    """
    from boardwright.client.references import shorten

    with client_of(context) as client:
        changed = client.rollouts.cancel(rollout, reason)
        print_message(changed, output, rollout_rows(changed))
        offered = client.fleets.get(changed.fleet).offered_release
    what = f"{shorten(offered)} again" if offered else "nothing now: its devices keep what they run"
    say(f"{shorten(changed.fleet)} is offered {what}")


def follow(client: Client, rollout: str, output: Format) -> None:
    """Wait behind a bar until no device can change its mind any more, and tell how it ended.

    Raises:
        typer.Exit: 3, some device does not run the release.
    """
    from boardwright.cli.output import state

    current = client.rollouts.get(rollout)
    changes = client.rollouts.watch(current.name)
    with Bars(output) as bars:
        for current in changes:
            done = current.succeeded_count + current.failed_count
            bars(done, done + current.pending_count, f"rolling out: {state(current)}")
            if current.failed_count and not current.pending_count:
                break
    print_message(current, output, rollout_rows(current))
    if state(current) != "completed":
        say(f"Not every device runs {current.release}: boardwright device ls {current.fleet}")
        raise typer.Exit(3)


def rollout_rows(rollout: pb.Rollout) -> list[tuple[str, str]]:
    """What a table tells of a rollout."""
    from boardwright.cli.output import moment, state
    from boardwright.client.references import shorten

    return [
        ("rollout", shorten(rollout.name)),
        ("fleet", shorten(rollout.fleet)),
        ("release", shorten(rollout.release)),
        ("state", state(rollout)),
        (
            "devices",
            f"{rollout.succeeded_count} done, {rollout.pending_count} waiting, {rollout.failed_count} failed",
        ),
        ("reason", rollout.reason),
        (state(rollout), rollout.state_reason),
        *(
            (f"on {choice.board}", f"{shorten(choice.artifacts[0])} first: {choice.because}")
            for choice in rollout.choices
        ),
        ("started", f"{moment(rollout.create_time)} by {rollout.creator}"),
    ]
