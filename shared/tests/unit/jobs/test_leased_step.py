"""What a step kept for its next attempt goes when its result was taken, and not before."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from boardwright.api.jobs.v1 import jobs_pb2 as pb
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.executor import Execution, ExecutionResult
from boardwright.jobs.worker import leased_step
from boardwright.jobs.worker.input_cache import InputCache
from boardwright.jobs.worker.leased_step import LeasedStep
from boardwright.jobs.worker.step_states import StepStates


class Leases:
    """A Leases stub; CompleteStep answers with each of ``refusals`` first."""

    def __init__(self, *refusals: grpc.StatusCode) -> None:
        self.refusals = list(refusals)

    async def Heartbeat(self, request: object, **options: Any) -> pb.HeartbeatResponse:
        return pb.HeartbeatResponse()

    async def CompleteStep(self, request: object, **options: Any) -> pb.CompleteStepResponse:
        if self.refusals:
            raise AioRpcError(self.refusals.pop(0), Metadata(), Metadata(), "refused")
        return pb.CompleteStepResponse()


class Training:
    """An executor whose step keeps an epoch in its state."""

    async def run(self, execution: Execution, note: object) -> ExecutionResult:
        assert execution.state_dir is not None
        (execution.state_dir / "epoch").write_bytes(b"x")
        return ExecutionResult(outputs={}, values={}, warnings=())


class Transfer:
    """Takes whatever is stored."""

    async def store(self, *given: object) -> Blob:
        return Blob("sha256:" + "a" * 64, 1, "text/plain")


async def run(leases: Leases, folder: Path) -> bool:
    """Run a step; returns whether its state stayed."""
    lease = pb.Lease(job="projects/p/compileJobs/1", step="train", fence=1, parameters_json="{}")
    lease.heartbeat_interval.FromSeconds(10)  # and no duration, as services of older versions lease
    lease.requires.memory_bytes = 1
    lease.requires.time_limit.FromSeconds(1)
    given: Any = {"transfer": Transfer(), "executor": Training()}
    states = StepStates(folder / "states")
    cache = InputCache(folder / "inputs", 1)
    step = LeasedStep(
        lease, leases, endpoint="e", worker="w", folder=folder / "step", cache=cache, states=states, **given
    )
    await step.run()
    return bool(list((folder / "states").iterdir()))


async def test_a_result_that_nobody_took_leaves_its_state(tmp_path: Path) -> None:
    assert await run(Leases(grpc.StatusCode.ABORTED), tmp_path)


async def test_a_result_is_offered_until_the_lease_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leased_step, "_RETRY_SECONDS", 0.0)
    leases = Leases(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
    assert not await run(leases, tmp_path)
    assert not leases.refusals
