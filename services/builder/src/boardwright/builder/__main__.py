"""``python -m boardwright.builder serve | migrate``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from boardwright import telemetry
from boardwright.builder.settings import MIGRATIONS, SCHEMA, SettingMissing, database_url, read_settings
from boardwright.database import Database, DatabaseError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 2 a setting is missing or wrong, 4 not available."""
    parser = argparse.ArgumentParser(prog="python -m boardwright.builder", description=__doc__)
    parser.add_argument("command", choices=("serve", "migrate"))
    command = parser.parse_args(arguments).command
    telemetry.configure("builder")
    try:
        if command == "migrate":
            database = Database.open(database_url(os.environ), schema=SCHEMA, migrations=MIGRATIONS)
            database.migrate()
            database.close()
            return 0
        from boardwright.builder.app import run

        asyncio.run(run(read_settings()))
        return 0
    except (SettingMissing, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except (OSError, DatabaseError) as error:
        sys.stderr.write(f"{error}\n")
        return 4


if __name__ == "__main__":
    sys.exit(main())
