"""`boardwright login` and `boardwright doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from boardwright.cli.output import Format, OutputOption, print_json, print_table, say
from boardwright.cli.session import session_of


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(login)
    app.command()(doctor)


def login(
    context: typer.Context,
    endpoint: Annotated[
        str, typer.Argument(help="host:port of the gRPC authority; https://host:port for TLS.")
    ],
    token: Annotated[
        str | None, typer.Option(help="Default: asked for, or read from standard input.", show_default=False)
    ] = None,
    url: Annotated[str, typer.Option(help="URL of the REST gateway, if you use it.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Check a server and token, and remember them.

    \b
    Example:
      boardwright login boardwright.example:443 < token.txt
    """
    from boardwright.client import Client
    from boardwright.client.credentials import Credentials, write_login

    shown = token or ask_for_token()
    with Client(endpoint, shown, session_of(context).project) as client:
        for _ in client.models.list(limit=1):
            pass
    path = write_login(Credentials(endpoint, shown, url, "login"))
    if output is Format.JSON:
        print_json({"endpoint": endpoint, "stored": str(path)})
    else:
        say(f"Logged in to {endpoint}; stored in {path}.")


def ask_for_token() -> str:
    """The token from standard input: asked for on a terminal, else read from what was piped in."""
    import sys

    if sys.stdin.isatty():
        return str(typer.prompt("Token", hide_input=True, err=True))
    token = sys.stdin.readline().strip()
    if not token:
        raise typer.BadParameter("standard input is empty; pipe the token in", param_hint="--token")
    return token


def doctor(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Check this installation and the server, and say what to do about what is missing.

    \b
    Example:
      boardwright doctor
    """
    from boardwright.cli.checks import run_checks

    findings = run_checks(session_of(context))
    if output is Format.JSON:
        print_json([{"check": f.check, "state": f.state, "found": f.found, "do": f.advice} for f in findings])
    else:
        print_table(
            ("check", "state", "found", "do"), [(f.check, f.state, f.found, f.advice) for f in findings]
        )
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(4)
