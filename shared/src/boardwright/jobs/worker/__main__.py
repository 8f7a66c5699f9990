"""``python -m boardwright.jobs.worker``: leases and runs steps until SIGTERM, which returns its leases."""

from __future__ import annotations

import asyncio
import os
import sys

from boardwright import telemetry
from boardwright.jobs.confinement import scrub_environment
from boardwright.jobs.subprocess_executor import SubprocessExecutor
from boardwright.jobs.worker import settings as settings_module
from boardwright.jobs.worker.app import FolderInUse, run_worker
from boardwright.jobs.worker.settings import WorkerSettings, read_settings
from boardwright.jobs.worker.transfer import RegistryTransfer
from boardwright.rpc.ending import end_process


def main() -> int:
    """Run the worker; exit status 2 when its settings are wrong, 4 when its folder is in use."""
    if len(sys.argv) > 1:
        sys.stderr.write(f"usage: python -m boardwright.jobs.worker\n\n{settings_module.__doc__}")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    scrub_environment(("BOARDWRIGHT_SERVICE_TOKEN",))
    try:
        settings = read_settings(os.environ)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    telemetry.configure("worker")
    try:
        asyncio.run(_work(settings))
    except FolderInUse as error:
        sys.stderr.write(f"{error}\n")
        return 4
    return 0


async def _work(settings: WorkerSettings) -> None:
    await run_worker(settings, SubprocessExecutor(), RegistryTransfer(settings.registry))
    end_process()


if __name__ == "__main__":
    sys.exit(main())
