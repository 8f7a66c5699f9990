"""Asks every endpoint for leases and runs them in a bounded number of slots.

Each endpoint has one open call that waits for a step. Two of them may answer at the same moment while one
slot is free: the second lease is returned at once, its step is ready again, and that endpoint is asked anew
when a slot is free. Nothing is ever cancelled that the service may just have granted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.rpc.convert import to_duration
from boardwright.jobs.worker.leased_step import LeasedStep
from boardwright.rpc.errors import from_rpc_error

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 20.0
_GRACE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_RETURN_SECONDS = 5.0

MakeStep = Callable[[pb.Lease, str], LeasedStep]


class Poller:
    """Leases from ``stubs`` (endpoint to asyncio stub) and runs what ``make_step`` makes of each lease."""

    def __init__(
        self, stubs: Mapping[str, Any], offer: Offer, make_step: MakeStep, *, slots: int = 1
    ) -> None:
        self._stubs = stubs
        self._offer = offer
        self._make_step = make_step
        self._free = asyncio.Semaphore(slots)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Poll until cancelled; then running steps are ended and their leases returned."""
        try:
            async with asyncio.TaskGroup() as polls:
                for endpoint, stub in self._stubs.items():
                    polls.create_task(self._poll(endpoint, stub))
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _poll(self, endpoint: str, stub: Any) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            # Wait for a free slot without taking it: another endpoint may have the next step.
            async with self._free:
                pass
            try:
                lease = await self._acquire(stub)
                pause_seconds = _FIRST_PAUSE_SECONDS
            except grpc.RpcError as error:
                _log.info("no lease from %s: %s", endpoint, from_rpc_error(error))
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(_MAX_PAUSE_SECONDS, pause_seconds * 2)
                continue
            if lease is None:
                continue
            if self._free.locked():
                await self._give_back(stub, lease)
                continue
            await self._free.acquire()
            task = asyncio.create_task(self._run_step(endpoint, stub, lease))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _acquire(self, stub: Any) -> pb.Lease | None:
        offer = self._offer
        request = pb.AcquireLeaseRequest(
            worker=offer.worker,
            kinds=sorted(offer.kinds),
            boards=sorted(offer.boards),
            toolchains=sorted(offer.toolchains),
            accelerators=sorted(offer.accelerators),
            memory_bytes=offer.memory_bytes,
            wait=to_duration(_WAIT_SECONDS),
        )
        answer = await stub.AcquireLease(request, timeout=_WAIT_SECONDS + _GRACE_SECONDS)
        return answer.lease if answer.HasField("lease") else None

    async def _run_step(self, endpoint: str, stub: Any, lease: pb.Lease) -> None:
        try:
            _log.info("running %s of %s", lease.step, lease.job)
            await self._make_step(lease, endpoint).run()
        except Exception:
            _log.exception("%s of %s broke the worker's own code", lease.step, lease.job)
            await self._give_back(stub, lease)
        finally:
            self._free.release()

    async def _give_back(self, stub: Any, lease: pb.Lease) -> None:
        request = pb.ReturnLeaseRequest(
            job=lease.job, step=lease.step, fence=lease.fence, worker=self._offer.worker
        )
        with contextlib.suppress(grpc.RpcError):
            await stub.ReturnLease(request, timeout=_RETURN_SECONDS)
