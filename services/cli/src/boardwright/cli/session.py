"""Which server and project the commands speak to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from boardwright.client import Client


@dataclass(frozen=True, slots=True)
class Session:
    """What the options before the command say.

    Attributes:
        data: the data folder of a stack on this machine; None to look for one.
        endpoint, token: of another server; None to find them.
        project: the project that all names are in.
    """

    data: Path | None = None
    endpoint: str | None = None
    token: str | None = None
    project: str = "default"

    @property
    def data_folder(self) -> Path:
        """The data folder for `up`, `status` and `down`."""
        from boardwright.client.credentials import data_folder

        return self.data or data_folder()


def session_of(context: typer.Context) -> Session:
    """The session of a command."""
    held = context.find_object(Session)
    return held if held is not None else Session()


def client_of(context: typer.Context) -> Client:
    """A client for a command's server.

    Raises:
        CredentialsMissing: there is none.
    """
    from boardwright.client import Client

    session = session_of(context)
    return Client(session.endpoint, session.token, session.project, data=session.data)
