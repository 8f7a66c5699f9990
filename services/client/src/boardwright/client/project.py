"""What all verbs of a client share: a connection, and one project's resources behind it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from boardwright.client.catalogue import Boards, Recipes
from boardwright.client.connection import Connection, continue_trace
from boardwright.client.content import Content
from boardwright.client.credentials import find_credentials
from boardwright.client.datasets import Datasets
from boardwright.client.delivery import Fleets, Rollouts
from boardwright.client.jobs import Jobs
from boardwright.client.models import Models


class Project:
    """One project's resources; `Client` adds the verbs."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        project: str = "default",
        *,
        data: str | Path | None = None,
    ) -> None:
        folder = Path(data) if data is not None else None
        self.project = project
        self._connection = Connection(find_credentials(endpoint, token, data=folder))
        self.content = Content(self._connection, project)
        self.models = Models(self._connection, project)
        self.datasets = Datasets(self._connection, self.content, project)
        self.jobs = Jobs(self._connection, self.content, project)
        self.fleets = Fleets(self._connection, project)
        self.rollouts = Rollouts(self._connection, project)
        self.boards = Boards(self._connection)
        self.recipes = Recipes(self._connection)

    @property
    def connection(self) -> Connection:
        """The channel and stubs, for RPCs that have no method here."""
        return self._connection

    def close(self) -> None:
        """Close all connections."""
        self.content.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _trace_of(self, *below: str) -> AbstractContextManager[None]:
        """Continue the trace of the version that something of this name lies below."""
        names = [name.partition("/variants/")[0] for name in below]
        return continue_trace(self.models.version(names[0]).traceparent if names else "")

    def _artifact_names(self, named: Iterable[str], board: str = "") -> list[str]:
        return [
            artifact.name
            for reference in named
            for artifact in self.models.newest_artifacts(reference, board=board)
        ]
