"""`boardwright fleet` and `device`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli.output import Format, OutputOption, print_message, print_messages
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.api.delivery.v1 import delivery_pb2 as pb

fleets = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Fleets of devices.")
devices = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Devices: what they run, and why not."
)

FleetArgument = Annotated[str, typer.Argument(help="Id of the fleet.")]
DeviceArgument = Annotated[str, typer.Argument(help="fleet/device.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(fleets, name="fleet")
    app.add_typer(devices, name="device")


@fleets.command("create")
def create_fleet(
    context: typer.Context,
    fleet: FleetArgument,
    model: Annotated[str, typer.Option(help="The model its devices run.")],
    stage: Annotated[str, typer.Option(help="Only releases on this stage may roll out; empty: any.")] = "",
    description: Annotated[str, typer.Option(help="Free text.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Create a fleet.

    \b
    Example:
      boardwright fleet create cameras --model digits --stage production
    """
    with client_of(context) as client:
        made = client.fleets.create(fleet, model, stage=stage, description=description)
    print_message(made, output, fleet_rows(made))


@fleets.command("ls")
def list_fleets(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """List fleets.

    \b
    Example:
      boardwright fleet ls
    """
    from boardwright.client.references import shorten

    with client_of(context) as client:
        print_messages(
            client.fleets.list(),
            output,
            ("fleet", "model", "stage", ">devices", "offered"),
            lambda f: (
                shorten(f.name),
                shorten(f.model),
                f.stage or "any",
                str(f.device_count),
                shorten(f.offered_release) if f.offered_release else "",
            ),
            empty="No fleets yet: boardwright fleet create NAME --model MODEL",
        )


@fleets.command("show")
def show_fleet(context: typer.Context, fleet: FleetArgument, output: OutputOption = Format.TABLE) -> None:
    """Show a fleet.

    \b
    Example:
      boardwright fleet show cameras
    """
    with client_of(context) as client:
        found = client.fleets.get(fleet)
    print_message(found, output, fleet_rows(found))


@fleets.command("token")
def make_token(
    context: typer.Context,
    fleet: FleetArgument,
    valid_seconds: Annotated[int, typer.Option(help="How long it can be used; 0 for an hour.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a one-time enrolment token for a device.

    \b
    Example:
      boardwright fleet token cameras
    """
    from boardwright.cli.output import moment

    with client_of(context) as client:
        token = client.fleets.enrolment_token(fleet, expire_seconds=valid_seconds)
    rows = [
        ("token", token.token),
        ("valid until", moment(token.expire_time)),
        ("on the device", f"boardwright-agent enroll --server {server_of(token.url)} --token {token.token}"),
    ]
    print_message(token, output, rows)


def server_of(url: str) -> str:
    """The gateway's address out of an enrolment URL."""
    return url.partition("/device/")[0]


def fleet_rows(fleet: pb.Fleet) -> list[tuple[str, str]]:
    """What a table tells of a fleet."""
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    return [
        ("fleet", shorten(fleet.name)),
        ("model", shorten(fleet.model)),
        ("stage", fleet.stage or "any"),
        ("devices", str(fleet.device_count)),
        ("offered", shorten(fleet.offered_release) if fleet.offered_release else "nothing yet"),
        ("description", fleet.description),
        ("created", moment(fleet.create_time)),
    ]


@devices.command("ls")
def list_devices(
    context: typer.Context,
    fleet: FleetArgument,
    where: Annotated[str, typer.Option("--filter", help="For example: state = failed.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List a fleet's devices.

    \b
    Example:
      boardwright device ls cameras
    """
    from boardwright.cli.output import moment, state
    from boardwright.client.references import shorten

    with client_of(context) as client:
        print_messages(
            client.fleets.devices(fleet, where=where),
            output,
            ("device", "state", "board", "runs", "since", "last seen", "why not"),
            lambda d: (
                shorten(d.name),
                state(d),
                d.host.board or d.host.architecture,
                shorten(d.release),
                moment(d.install_time),
                moment(d.last_seen_time),
                d.refusal_message,
            ),
            empty=f"No devices yet: boardwright fleet token {fleet}, then boardwright-agent enroll there",
            where=where,
        )


@devices.command("show")
def show_device(context: typer.Context, device: DeviceArgument, output: OutputOption = Format.TABLE) -> None:
    """Show a device: what it is, what it runs, why it refused.

    \b
    Example:
      boardwright device show cameras/cam-1
    """
    with client_of(context) as client:
        found = client.fleets.device(device)
    print_message(found, output, device_rows(found))


@devices.command("reports")
def list_reports(
    context: typer.Context,
    device: DeviceArgument,
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.")] = 20,
    output: OutputOption = Format.TABLE,
) -> None:
    """List what a device reported, newest first.

    \b
    Example:
      boardwright device reports cameras/cam-1
    """
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    with client_of(context) as client:
        print_messages(
            client.fleets.reports(device, limit=limit),
            output,
            ("when", "what", "release", "says"),
            lambda r: (
                moment(r.create_time),
                r.kind,
                shorten(r.release) if r.release else "",
                f"{r.message} [{r.reason}]" if r.reason else r.message,
            ),
            empty="No reports yet: the device speaks when it first installs or refuses something.",
            limit=limit,
        )


@devices.command("revoke")
def revoke_device(
    context: typer.Context,
    device: DeviceArgument,
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Refuse a device from now on.

    \b
    Example:
      boardwright device revoke cameras/cam-1 --reason stolen
    """
    with client_of(context) as client:
        revoked = client.fleets.revoke(device, reason)
    print_message(revoked, output, device_rows(revoked))


def device_rows(device: pb.Device) -> list[tuple[str, str]]:
    """What a table tells of a device."""
    from boardwright.cli.commands.releasing import pin_text
    from boardwright.cli.output import moment, state
    from boardwright.client.references import shorten

    refused = device.refusal_message
    return [
        ("device", shorten(device.name)),
        ("state", state(device)),
        ("is a", pin_text(device.host)),
        ("runs", shorten(device.release) if device.release else "nothing yet"),
        ("since", moment(device.install_time)),
        ("rollout", shorten(device.rollout)),
        ("bundle", device.bundle_digest),
        ("slot", device.slot),
        ("why not", f"{refused} [{device.refusal_reason}]" if refused else ""),
        ("key", device.key_id),
        ("agent", device.agent_version),
        ("enrolled", moment(device.enrol_time)),
        ("last seen", moment(device.last_seen_time)),
    ]
