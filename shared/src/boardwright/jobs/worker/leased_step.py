"""One leased step from its lease to its report.

While the step runs (and while its outputs travel) heartbeats renew the lease and carry progress and new log
text. When a heartbeat tells that the job was cancelled or is answered with LEASE_LOST, or the lease ran out
because the service could not be reached, the step's process is ended and the work is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.content import ContentError, DigestMismatch
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.statement import MEDIA_TYPE, step_statement
from boardwright.jobs.executor import LOG_FILE, Execution, ExecutionResult, Executor, ProgressReport
from boardwright.jobs.left_files import open_plain, remove_left
from boardwright.jobs.rpc import convert
from boardwright.jobs.step_api import InputFile, StepError
from boardwright.jobs.worker.abandoned import write_lease_record
from boardwright.jobs.worker.input_cache import InputCache
from boardwright.jobs.worker.ports import BlobTransfer
from boardwright.jobs.worker.step_states import StepStates
from boardwright.rpc.errors import Aborted, BoardwrightError, Unavailable, from_rpc_error
from boardwright.telemetry import span

_log = logging.getLogger(__name__)

_REPORT_SECONDS = 0.5
_RETRY_SECONDS = 0.5
_CALL_SECONDS = 5.0
_REPORT_CALL_SECONDS = 30.0
_LOG_CHUNK_BYTES = 64 << 10


class LeaseLost(Exception):
    """The lease is not ours any more; drop the work."""


class LeasedStep:
    """Runs one lease. ``folder`` is its own and is removed at the end. ``leases`` is an asyncio stub."""

    def __init__(
        self,
        lease: pb.Lease,
        leases: Any,
        *,
        endpoint: str,
        worker: str,
        folder: Path,
        cache: InputCache,
        states: StepStates,
        transfer: BlobTransfer,
        executor: Executor,
        python_path: tuple[str, ...] = (),
    ) -> None:
        self._lease = lease
        self._leases = leases
        self._endpoint = endpoint
        self._worker = worker
        self._folder = folder
        self._run_folder = folder / "run"
        self._cache = cache
        self._states = states
        self._transfer = transfer
        self._executor = executor
        self._python_path = python_path
        self._project = lease.project.removeprefix("projects/")
        self._grant = lease.grant_token
        self._progress = ProgressReport(0, 0, "fetching inputs")
        self._sent: ProgressReport | None = None
        self._log_offset = 0
        self._interval_seconds = convert.from_duration(lease.heartbeat_interval)
        self._ends_at = self._lease_end()

    async def run(self) -> None:
        """Do the step and report how it ended; cancelling returns the lease.

        Whatever goes wrong ends in a report or in dropping the work; only cancellation comes out of here.
        """
        lease = self._lease
        try:
            write_lease_record(self._folder, self._endpoint, lease)
            with (
                span(f"step {lease.kind}", traceparent=lease.traceparent, job=lease.job, step=lease.step),
                self._states.use(self._project, lease.cache_key) as state_dir,
            ):
                result = await self._while_beating(self._work(time.time_ns() // 1000, state_dir))
                if not await self._report(self._leases.CompleteStep, result):
                    raise LeaseLost("nobody took its result")  # its state stays for the next attempt
        except StepError as error:
            await self._fail(error)
        except LeaseLost as error:
            _log.warning("dropped %s of %s: %s", self._lease.step, self._lease.job, error)
        except (BoardwrightError, ContentError, OSError) as error:
            await self._fail(_as_step_error(error))
        except asyncio.CancelledError:
            await self._return()
            raise
        finally:
            remove_left(self._folder)

    async def _work(self, started_us: int, state_dir: Path | None) -> pb.CompleteStepRequest:
        lease = self._lease
        inputs = convert.from_blobs(lease.inputs)
        async with self._cache.use(inputs, self._fetch) as paths:
            self._run_folder.mkdir()
            execution = Execution(
                folder=self._run_folder,
                kind=lease.kind,
                parameters=convert.from_json_text(lease.parameters_json, "parameters_json"),
                inputs={
                    name: InputFile(paths[name], blob.digest, blob.media_type)
                    for name, blob in inputs.items()
                },
                seed=lease.seed,
                version=lease.version,
                environment=dict(lease.environment),
                requires=convert.from_requirements(lease.requires),
                python_path=self._python_path,
                state_dir=state_dir,
            )
            result = await self._executor.run(execution, self._note)
        self._progress = ProgressReport(0, 0, "storing outputs")
        return await self._store(inputs, result, started_us)

    async def _fetch(self, blob: Blob, path: Path) -> None:
        await self._transfer.fetch(self._project, blob, path, self._grant)

    def _note(self, report: ProgressReport) -> None:
        self._progress = report

    async def _store(
        self, inputs: dict[str, Blob], result: ExecutionResult, started_us: int
    ) -> pb.CompleteStepRequest:
        lease, outputs = self._lease, {}
        for name, output in result.outputs.items():
            outputs[name] = await self._transfer.store(
                self._project, output.path, output.media_type, self._grant
            )
        statement = step_statement(
            kind=lease.kind,
            version=lease.version,
            parameters=convert.from_json_text(lease.parameters_json, "parameters_json"),
            inputs=inputs,
            environment=dict(lease.environment),
            seed=lease.seed,
            cache_key=lease.cache_key,
            outputs=outputs,
            values=result.values,
            warnings=result.warnings,
            worker=self._worker,
            started_us=started_us,
            finished_us=time.time_ns() // 1000,
        )
        record = await self._transfer.store(self._project, statement, MEDIA_TYPE, self._grant)
        return pb.CompleteStepRequest(
            job=lease.job,
            step=lease.step,
            fence=lease.fence,
            worker=self._worker,
            outputs=convert.to_blobs(outputs),
            values_json=convert.to_json_text(result.values),
            warnings=result.warnings,
            record_digest=record.digest,
            log=self._new_log(everything=True),
        )

    async def _while_beating(self, work: Awaitable[pb.CompleteStepRequest]) -> pb.CompleteStepRequest:
        """Await ``work`` under heartbeats; ends the work if the lease is lost."""
        working = asyncio.ensure_future(work)
        beating = asyncio.ensure_future(self._beat())
        try:
            await asyncio.wait({working, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise LeaseLost(str(beating.exception()))
            return working.result()
        finally:
            for task in (working, beating):
                task.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)

    async def _beat(self) -> None:
        """Send heartbeats for ever: on time, and earlier when there is progress. Raises LeaseLost."""
        beat_at = time.monotonic()
        while True:
            if time.monotonic() >= beat_at or self._progress != self._sent:
                try:
                    await self._send_heartbeat()
                    beat_at = time.monotonic() + self._interval_seconds
                except Unavailable as error:
                    if time.monotonic() >= self._ends_at:
                        raise LeaseLost(f"the lease ran out while the service was away ({error})") from error
            await asyncio.sleep(_REPORT_SECONDS)

    async def _send_heartbeat(self) -> None:
        lease, progress = self._lease, self._progress
        request = pb.HeartbeatRequest(
            job=lease.job,
            step=lease.step,
            fence=lease.fence,
            worker=self._worker,
            progress=pb.StepProgress(done=progress.done, total=progress.total, what=progress.what),
            log=self._new_log(),
        )
        try:
            answer = await self._leases.Heartbeat(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            known = from_rpc_error(error)
            if isinstance(known, Aborted):
                raise LeaseLost(known.message) from error
            raise Unavailable(known.reason, known.message) from error
        if answer.cancelled:
            raise LeaseLost("the job was cancelled")
        self._sent = progress
        self._grant = answer.grant_token or self._grant
        self._ends_at = self._lease_end()

    def _lease_end(self) -> float:
        """Return when a lease renewed now ends, by this machine's clock.

        A service of an older version does not tell how long a lease lasts: it gave three intervals.
        """
        told_seconds = convert.from_duration(self._lease.duration)
        return time.monotonic() + (told_seconds or 3 * self._interval_seconds)

    def _new_log(self, *, everything: bool = False) -> str:
        """Return log text not yet sent: the next piece, or (``everything``) the end of the rest."""
        try:
            with open_plain(self._run_folder / LOG_FILE) as stream:
                if everything:
                    end = stream.seek(0, os.SEEK_END)
                    self._log_offset = max(self._log_offset, end - _LOG_CHUNK_BYTES)
                stream.seek(self._log_offset)
                text = stream.read(_LOG_CHUNK_BYTES)
        except (FileNotFoundError, StepError):
            return ""
        self._log_offset += len(text)
        return text.decode("utf-8", "replace")

    async def _fail(self, error: StepError) -> None:
        lease = self._lease
        failure = pb.StepFailure(
            reason=error.reason, message=error.message, deterministic=error.deterministic
        )
        await self._report(
            self._leases.FailStep,
            pb.FailStepRequest(
                job=lease.job,
                step=lease.step,
                fence=lease.fence,
                worker=self._worker,
                failure=failure,
                log=self._new_log(everything=True),
            ),
        )

    async def _report(self, call: Callable[..., Awaitable[object]], request: object) -> bool:
        """Send the final report, again and again while the service is away and the lease lasts.

        Returns whether it was taken.
        """
        while True:
            try:
                await call(request, timeout=_REPORT_CALL_SECONDS)
                return True
            except grpc.RpcError as error:
                known = from_rpc_error(error)
                if not isinstance(known, Unavailable) or time.monotonic() >= self._ends_at:
                    _log.warning("%s of %s was not taken: %s", self._lease.step, self._lease.job, known)
                    return False
            await asyncio.sleep(_RETRY_SECONDS)

    async def _return(self) -> None:
        lease = self._lease
        request = pb.ReturnLeaseRequest(
            job=lease.job, step=lease.step, fence=lease.fence, worker=self._worker
        )
        with contextlib.suppress(grpc.RpcError):
            await self._leases.ReturnLease(request, timeout=_CALL_SECONDS)


def _as_step_error(error: Exception) -> StepError:
    """Turn a failure around the step (transfer, disk) into a report: never deterministic."""
    if isinstance(error, BoardwrightError):
        return StepError(error.reason or "TRANSFER_FAILED", error.message, deterministic=False)
    reason = "DIGEST_MISMATCH" if isinstance(error, DigestMismatch) else "TRANSFER_FAILED"
    if isinstance(error, OSError) and not isinstance(error, ContentError):
        reason = "WORKER_DISK_FULL" if error.errno == errno.ENOSPC else "WORKER_DISK"
    return StepError(reason, f"{type(error).__name__}: {error}", deterministic=False)
