"""The only place where a worker's parts are wired together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.api.jobs.v1 import jobs_pb2_grpc
from boardwright.jobs.executor import Executor
from boardwright.jobs.left_files import remove_left
from boardwright.jobs.worker.abandoned import read_lease_records, report_abandoned
from boardwright.jobs.worker.input_cache import InputCache
from boardwright.jobs.worker.leased_step import LeasedStep
from boardwright.jobs.worker.poller import Poller
from boardwright.jobs.worker.ports import BlobTransfer
from boardwright.jobs.worker.settings import WorkerSettings
from boardwright.jobs.worker.step_states import StepStates
from boardwright.rpc.client import connect


class FolderInUse(Exception):
    """Another worker works in this folder; the message says what to do."""


async def run_worker(settings: WorkerSettings, executor: Executor, transfer: BlobTransfer) -> None:
    """Lease and run steps until SIGTERM or SIGINT; running steps are then ended and their leases returned.

    Raises:
        FolderInUse: another worker works in the folder.
    """
    held = _hold(settings.folder)
    steps = settings.folder / "steps"
    # What lies here was left by a killed worker of this folder.
    abandoned = read_lease_records(steps)
    remove_left(steps)
    steps.mkdir(parents=True)
    cache = InputCache(settings.folder / "inputs", settings.cache_bytes)
    states = StepStates(settings.folder / "states")
    stubs: dict[str, Any] = {}

    def make_step(lease: pb.Lease, endpoint: str) -> LeasedStep:
        return LeasedStep(
            lease,
            stubs[endpoint],
            endpoint=endpoint,
            worker=settings.offer.worker,
            folder=steps / f"{lease.job.rpartition('/')[2]}-{lease.step}-{lease.fence}",
            cache=cache,
            states=states,
            transfer=transfer,
            executor=executor,
            python_path=settings.python_path,
        )

    async with contextlib.AsyncExitStack() as channels:
        for endpoint in settings.endpoints:
            channel = await channels.enter_async_context(connect(endpoint, token=settings.token))
            stubs[endpoint] = jobs_pb2_grpc.LeasesStub(channel)
        reporting = asyncio.ensure_future(report_abandoned(abandoned, stubs, settings.offer.worker))
        poller = Poller(stubs, settings.offer, make_step, slots=settings.slots)
        polling = asyncio.ensure_future(poller.run())
        _on_stop(polling.cancel)
        _announce(settings)
        try:
            await polling
        except asyncio.CancelledError:
            return
        finally:
            reporting.cancel()
            if settings.ready_file is not None:
                settings.ready_file.unlink(missing_ok=True)
            os.close(held)


def _hold(folder: Path) -> int:
    """Lock the folder for as long as this process lives: a second worker would remove running steps."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FolderInUse(
            f"another worker works in {folder}; give this one its own BOARDWRIGHT_WORKER_FOLDER."
        ) from None
    return lock


def _on_stop(stop: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _announce(settings: WorkerSettings) -> None:
    if settings.ready_file is not None:
        partial = settings.ready_file.with_name(f".{settings.ready_file.name}.{os.getpid()}")
        partial.write_text(json.dumps({"endpoint": "", "pid": os.getpid()}), encoding="utf-8")
        partial.replace(settings.ready_file)
