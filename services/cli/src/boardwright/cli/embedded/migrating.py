"""Brings all databases of a data folder up to date: ``python -m boardwright.cli.embedded.migrating FOLDER``.

One short-lived process for all of them, because loading Alembic costs more than the migrations do. Where
nothing is to be done it is not even loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from boardwright.cli.embedded.credentials import SERVICES
from boardwright.cli.embedded.folder import DataFolder


def migrate_all(folder: DataFolder) -> list[str]:
    """Migrate every service's database; returns the services whose database changed.

    Raises:
        DatabaseUnavailable: a file cannot be opened or written.
        DatabaseOutdated: a database was made by a newer Boardwright.
    """
    from boardwright.database import Database

    changed = []
    for service in SERVICES:
        if importlib.util.find_spec(f"boardwright.{service}.storage") is None:
            continue
        folder.state(service).mkdir(exist_ok=True)
        migrations = f"boardwright.{service}:storage/migrations"
        database = Database.open(folder.database(service), schema=service, migrations=migrations)
        try:
            if database.migrate(in_process=True):
                changed.append(service)
        finally:
            database.close()
    return changed


if __name__ == "__main__":
    migrate_all(DataFolder(Path(sys.argv[1])))
