"""`python -m boardwright.gateway serve`."""

from __future__ import annotations

import asyncio
import os
import sys

from boardwright import telemetry
from boardwright.gateway import settings as gateway_settings
from boardwright.gateway.settings import Settings, SettingsError
from boardwright.rpc.ending import end_process


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status (2: usage or settings, 4: an address is taken)."""
    if arguments != ["serve"]:
        sys.stderr.write(f"usage: python -m boardwright.gateway serve\n\n{gateway_settings.__doc__}")
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        telemetry.configure("gateway")
        settings = Settings.from_environment(os.environ)
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        asyncio.run(_serve(settings))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 4
    return 0


async def _serve(settings: Settings) -> None:
    from boardwright.gateway.app import serve

    await serve(settings)
    end_process()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
