"""When the schema must change, and who changes it.

A migration file is `versions/NNNN_what.py` and its `revision` is the file's stem, so that the newest revision
is known from the folder alone. Alembic (with SQLAlchemy half a second and 40 MB) is loaded only when needed.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.database.errors import DatabaseError, DatabaseOutdated

if TYPE_CHECKING:
    from alembic.config import Config

    from boardwright.database.database import Database


def scripts_folder(migrations: str) -> Path:
    """The folder of "package.module:folder"."""
    package, _, folder = migrations.partition(":")
    return Path(str(files(package))) / folder


def revisions(migrations: str) -> list[str]:
    """Every revision, oldest first."""
    return sorted(p.stem for p in (scripts_folder(migrations) / "versions").glob("[0-9]*.py"))


def migrate(database: Database, *, in_process: bool) -> bool:
    """See `Database.migrate`."""
    known = revisions(database.migrations)
    if not known:
        raise DatabaseOutdated(
            f"no migrations in {database.migrations}; is the distribution installed whole?"
        )
    stored = database.stored_revision()
    if stored == known[-1]:
        return False
    if stored is not None and stored not in known:
        raise DatabaseOutdated(
            f"the {database.schema} database is at revision {stored}, which this version does not know; "
            "install the version that wrote it, or a newer one"
        )
    if in_process:
        upgrade(database.url, database.schema, database.migrations)
        return True
    command = [sys.executable, "-m", "boardwright.database.migrating", database.schema, database.migrations]
    done = subprocess.run(command, input=database.url, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DatabaseError(f"the migration of the {database.schema} database failed:\n{done.stderr[-2000:]}")
    return True


def upgrade(url: str, schema: str, migrations: str) -> None:
    """Run Alembic's upgrade to the newest revision in this process."""
    from alembic import command

    if url.startswith("sqlite:"):
        Path("/" + url.removeprefix("sqlite:///").lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(configuration(url, schema, migrations), "head")


def configuration(url: str, schema: str, migrations: str) -> Config:
    """The Alembic configuration that `alembic_env` reads; also for `alembic.command.check` in tests."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts_folder(migrations)))
    config.attributes["url"] = url
    config.attributes["schema"] = schema
    return config


if __name__ == "__main__":
    upgrade(sys.stdin.read(), sys.argv[1], sys.argv[2])
