"""What a service that owns jobs gives to ``boardwright.jobs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from boardwright.database import Transaction
from boardwright.jobs.domain.job import Job


class JobOwner(Protocol):
    """The compiler or the builder, as its jobs see it."""

    def record(self, tx: Transaction, job: Job) -> None:
        """Write the audit record and the outbox event of the job's new state, in the same transaction.

        Called once for each state the job enters, its creation included. Must have no effect besides ``tx``.
        """
        ...

    async def finish(self, job: Job) -> Sequence[str]:
        """Record elsewhere what the job's steps made (a Variant, an Artifact); returns its names.

        Called after all steps have succeeded, at least once, also after a restart: it must be idempotent.

        Raises:
            Unavailable: the other service is away; called again later.
            BoardwrightError: anything else fails the job with that reason.
        """
        ...


class OutputKeeper(Protocol):
    """Keeps what steps made from being collected while the cache may give it out again."""

    async def keep(self, project: str, reference: str, digests: Sequence[str]) -> None:
        """Hold a named reference to these blobs.

        Raises:
            FailedPrecondition: BLOB_NOT_FOUND, when one of them is not visible in the project.
            Unavailable: the registry is away.
        """
        ...
