"""`python -m boardwright.<service> serve|migrate`, the same for every service."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Sequence

from boardwright import telemetry
from boardwright.content.errors import ContentError
from boardwright.database import Database, DatabaseError
from boardwright.rpc.ending import end_process
from boardwright.rpc.environment import database_url


def launch(
    service: str,
    serve: Callable[[], Awaitable[None]],
    open_database: Callable[[str], Database],
    arguments: Sequence[str] | None = None,
    *,
    leave: Callable[[], None] = end_process,
) -> int:
    """Run one word of a service's command line; return the exit status, where what served did not `leave`.

    0: ended as asked. 2: wrong usage or settings. 4: the database, the blob store or the address is not
    available.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words not in (["serve"], ["migrate"]):
        settings = importlib.import_module(f"boardwright.{service}.settings")
        sys.stderr.write(
            f"usage: python -m boardwright.{service} serve|migrate\n\n"
            "  serve     answer requests until SIGTERM\n"
            "  migrate   bring the database schema to this version\n\n"
            f"{settings.__doc__}"
        )
        return 0 if words in (["-h"], ["--help"]) else 2
    try:
        telemetry.configure(service)
        if words == ["serve"]:
            asyncio.run(_served(serve, leave))
        else:
            _migrate(open_database(database_url()))
    except ValueError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 2
    except (DatabaseError, ContentError, OSError) as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 4
    return 0


def _migrate(database: Database) -> None:
    try:
        database.migrate(in_process=True)
    finally:
        database.close()


async def _served(serve: Callable[[], Awaitable[None]], leave: Callable[[], None]) -> None:
    await serve()
    leave()
