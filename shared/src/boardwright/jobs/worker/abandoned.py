"""Leases that a killed worker held: its successor on the same folder reports them at once.

Without this a killed worker's step would wait until its lease runs out. The report counts as a failed
attempt, so that a step which kills its worker every time does not do so for ever; the fencing number makes
it harmless where the lease is already another's.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from boardwright.api.jobs.v1 import jobs_pb2 as pb

_log = logging.getLogger(__name__)

_RECORD_FILE = "lease.json"
_CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Which lease a step's folder belongs to, and the service that gave it."""

    endpoint: str
    job: str
    step: str
    fence: int


def write_lease_record(folder: Path, endpoint: str, lease: pb.Lease) -> None:
    """Make the step's folder and note its lease there."""
    folder.mkdir(parents=True)
    record = LeaseRecord(endpoint, lease.job, lease.step, lease.fence)
    (folder / _RECORD_FILE).write_text(json.dumps(asdict(record)), encoding="utf-8")


def read_lease_records(steps: Path) -> list[LeaseRecord]:
    """Return the leases of the folders below ``steps``; what cannot be read is left to expire."""
    records = []
    for path in sorted(steps.glob(f"*/{_RECORD_FILE}")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            records.append(LeaseRecord(**json.loads(path.read_text(encoding="utf-8"))))
    return records


async def report_abandoned(records: Sequence[LeaseRecord], stubs: Mapping[str, Any], worker: str) -> None:
    """Tell each lease's service that its worker died; a refusal means that somebody else has the step."""
    failure = pb.StepFailure(
        reason="WORKER_DIED",
        message="the worker was killed while it ran the step; look at its log and the machine's memory.",
        deterministic=False,
    )
    for record in records:
        request = pb.FailStepRequest(
            job=record.job, step=record.step, fence=record.fence, worker=worker, failure=failure
        )
        if record.endpoint not in stubs:
            continue
        try:
            await stubs[record.endpoint].FailStep(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            _log.info("the lost lease of %s of %s was not taken: %s", record.step, record.job, error)
