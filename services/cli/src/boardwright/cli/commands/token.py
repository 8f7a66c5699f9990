"""`boardwright token`: who may call a server, told in the file that its services read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from boardwright.cli.output import Format, OutputOption, print_json, print_table, say
from boardwright.cli.session import session_of

tokens = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Tokens of a server on this machine: who may call, and as what.",
)

FileOption = Annotated[
    Path | None,
    typer.Option(
        help="The services' BOARDWRIGHT_TOKENS_FILE. Default: the data folder's.", show_default=False
    ),
]


class Role(StrEnum):
    """What a token may do; each of the first four may also do what those before it may."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    RELEASER = "releaser"
    ADMIN = "admin"
    SERVICE = "service"
    WORKER = "worker"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tokens, name="token")


@tokens.command("add")
def add(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="Who calls with it; history and audit name them so.")],
    role: Annotated[Role, typer.Option(help="What they may do.")],
    only_in: Annotated[
        str, typer.Option(metavar="PROJECT", help="Hold in one project alone; default: in all.")
    ] = "*",
    token_id: Annotated[
        str, typer.Option("--id", help="Its id, for more than one of a principal.", show_default=False)
    ] = "",
    file: FileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a token and print it, this once: the file holds its hash alone.

    \b
    Example:
      boardwright token add anna --role developer
    """
    from boardwright.cli.tokens import add, entry, new_token

    made = new_token()
    new = entry(token_id or principal, principal, made, role.value, only_in)
    add(_file(context, file), new)
    if output is Format.JSON:
        print_json({**_shown(new), "token": made})
    else:
        typer.echo(made)
        say(f"Only {principal} should see it: boardwright login HOST:PORT takes it, or BOARDWRIGHT_TOKEN.")


@tokens.command("ls")
def list_(context: typer.Context, file: FileOption = None, output: OutputOption = Format.TABLE) -> None:
    """List who may call. The tokens themselves are stored nowhere.

    \b
    Example:
      boardwright token ls
    """
    from boardwright.cli.tokens import read

    found = [_shown(each) for each in read(_file(context, file))]
    if output is Format.JSON:
        print_json(found)
        return
    rows = [
        (each["id"], each["principal"], each["kind"], ", ".join(_role(role) for role in each["roles"]))
        for each in found
    ]
    print_table(("id", "principal", "kind", "roles"), rows)


@tokens.command("revoke")
def revoke(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As boardwright token ls shows it.")],
    file: FileOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Take a token away; calls with it are refused from the next second on.

    \b
    Example:
      boardwright token revoke anna
    """
    from boardwright.cli.tokens import revoke

    revoke(_file(context, file), token_id)
    if output is Format.JSON:
        print_json({"id": token_id})
    else:
        say(f"{token_id} is revoked.")


def _file(context: typer.Context, given: Path | None) -> Path:
    """The file that was named, or the data folder's. Raises: typer.BadParameter where that has none."""
    from boardwright.cli.embedded.folder import DataFolder

    if given is not None:
        return given
    folder = DataFolder(session_of(context).data_folder)
    if not folder.tokens.exists():
        raise typer.BadParameter(
            f"{folder.root} has no tokens; start it once (boardwright up), or name the services' file",
            param_hint="--file",
        )
    return folder.tokens


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("id", "principal", "kind", "roles")}


def _role(role: dict[str, Any]) -> str:
    project = role.get("project", "*")
    return str(role["role"]) if project == "*" else f"{role['role']} in {project}"
