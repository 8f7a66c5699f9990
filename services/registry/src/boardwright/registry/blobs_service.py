"""The Blobs API: small content in one call, large content straight to the store, references.

What happens in which order is what makes it safe:

- A blob is *claimed* in the database, then stored, then *published* to the project. A crash in between leaves
  a claimed blob that nobody sees, which a later collection removes.
- A collection (`blobs_collector`) first *condemns* in the database (nothing is visible, a claim is refused),
  then deletes from the store, then *buries* the row: what is visible is never deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from boardwright.content import (
    BlobNotFound,
    BlobStat,
    BlobStore,
    ContentError,
    Digest,
    DigestMismatch,
    Part,
    PartPlan,
    SignedRequest,
    SizeMismatch,
    UploadNotFound,
    part_plan,
)
from boardwright.registry.blobs_errors import blob_not_found, damaged, parse_digest, upload_not_found
from boardwright.registry.blobs_ports import BlobRepository
from boardwright.registry.domain.blobs import BlobPolicy, BlobRecord, UploadRecord
from boardwright.rpc.auth import Principal, current_principal
from boardwright.rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

MOST_REQUESTS = 100
"""How many signed part requests one answer holds."""

_LONGEST_DOWNLOAD_SECONDS = 86_400
_DEFAULT_DOWNLOAD_SECONDS = 900
_CLAIM_WAITS_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload as its owner sees it.

    Attributes:
        record: what is known of it; `record.completed` means that nothing needs to be sent.
        plan: how the content is split.
        received: numbers of the parts that arrived.
        requests: how to send the first missing parts, by number.
        request_seconds: how long the requests hold.
    """

    record: UploadRecord
    plan: PartPlan
    received: frozenset[int]
    requests: dict[int, SignedRequest]
    request_seconds: int


class BlobsService:
    """The use cases of the Blobs API.

    The store blocks, so it is called in threads. Errors of the store and of the database (StoreUnavailable,
    StoreFull, DatabaseUnavailable) pass through; `boardwright.rpc.translation` tells callers of them.
    """

    def __init__(
        self,
        repository: BlobRepository,
        store: BlobStore,
        policy: BlobPolicy | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._store = store
        self._policy = policy or BlobPolicy()
        self._clock = clock
        self._completing: dict[str, asyncio.Task[BlobRecord]] = {}

    # -- small content ---------------------------------------------------------------------------------

    async def create(self, project: str, data: bytes, claimed: str = "") -> BlobRecord:
        """Store up to `small_bytes` in one call.

        Raises: ResourceExhausted BLOB_TOO_LARGE; InvalidArgument DIGEST_MISMATCH, FIELD_INVALID.
        """
        if len(data) > self._policy.small_bytes:
            raise ResourceExhausted(
                "BLOB_TOO_LARGE",
                f"{len(data)} bytes are more than one call takes; use StartUpload",
                limit_bytes=str(self._policy.small_bytes),
            )
        digest = Digest.of(data)
        if claimed and parse_digest(claimed) != digest:
            raise InvalidArgument(
                "DIGEST_MISMATCH",
                f"the content is {digest}, not {claimed}; send it again",
                digest=str(digest),
            )
        seen = await self._use(project, digest)
        if seen is not None:
            return seen
        await self._claim(digest, len(data))
        await asyncio.to_thread(self._store.put, data, digest)
        return await self._publish(project, digest, len(data))

    async def get(self, project: str, digest: Digest) -> BlobRecord:
        """What is known of a blob. Raises: NotFound BLOB_NOT_FOUND; PermissionDenied DIGEST_NOT_GRANTED."""
        self._check_grant(digest)
        record = await self._repository.find(project, digest)
        if record is None:
            raise blob_not_found([digest])
        return record

    async def read(self, project: str, digest: Digest) -> bytes:
        """A small blob's content.

        Raises: NotFound BLOB_NOT_FOUND; ResourceExhausted BLOB_TOO_LARGE; PermissionDenied.
        """
        record = await self.get(project, digest)
        if record.size_bytes > self._policy.small_bytes:
            raise ResourceExhausted(
                "BLOB_TOO_LARGE",
                f"{digest} has {record.size_bytes} bytes, more than one call returns; use CreateDownload",
                limit_bytes=str(self._policy.small_bytes),
            )
        try:
            return await asyncio.to_thread(self._store.read, digest, self._policy.small_bytes)
        except (BlobNotFound, DigestMismatch) as error:
            raise damaged(digest, error) from error

    async def download(
        self, project: str, digest: Digest, expire_seconds: int = 0
    ) -> tuple[BlobRecord, SignedRequest, int]:
        """A blob, a signed request for its content, and for how many seconds that holds.

        Raises: NotFound BLOB_NOT_FOUND; InvalidArgument FIELD_INVALID; PermissionDenied.
        """
        seconds = expire_seconds or _DEFAULT_DOWNLOAD_SECONDS
        if not 0 < seconds <= _LONGEST_DOWNLOAD_SECONDS:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"expire_seconds is 1 to {_LONGEST_DOWNLOAD_SECONDS}, not {expire_seconds}",
                field="expire_seconds",
            )
        record = await self.get(project, digest)
        try:
            request = await asyncio.to_thread(self._store.download_request, digest, seconds)
        except BlobNotFound as error:
            raise damaged(digest, error) from error
        return record, request, seconds

    # -- uploads ---------------------------------------------------------------------------------------

    async def start_upload(self, project: str, claimed: str, size_bytes: int) -> UploadView:
        """Begin an upload, or find the one that this principal began for the same content.

        Raises: ResourceExhausted BLOB_TOO_LARGE; InvalidArgument FIELD_INVALID.
        """
        digest = parse_digest(claimed)
        if size_bytes < 0:
            raise InvalidArgument("FIELD_INVALID", "size_bytes is negative", field="size_bytes")
        if size_bytes > self._policy.largest_bytes:
            raise ResourceExhausted(
                "BLOB_TOO_LARGE",
                f"{size_bytes} bytes are over this server's limit of {self._policy.largest_bytes} per blob",
                limit_bytes=str(self._policy.largest_bytes),
            )
        principal, now = _owner(), self._now_us()
        seen = await self._use(project, digest)
        if seen is not None:
            return await self._view(_visible(seen, principal, now))
        record = await self._repository.open_upload(project, principal, digest, size_bytes, now)
        if record is not None:
            with contextlib.suppress(NotFound):
                return await self._view(record)
        handle = await asyncio.to_thread(self._store.begin_upload, size_bytes)
        record = UploadRecord(
            upload=secrets.token_hex(16),
            project=project,
            principal=principal,
            digest=digest,
            size_bytes=size_bytes,
            handle=handle,
            created_us=now,
            expires_us=now + self._policy.upload_seconds * 1_000_000,
        )
        await self._repository.add_upload(record)
        return await self._view(record)

    async def get_upload(self, project: str, upload: str) -> UploadView:
        """An upload with what arrived so far. Raises: NotFound UPLOAD_NOT_FOUND."""
        return await self._view(await self._own_upload(project, upload))

    async def complete_upload(self, project: str, upload: str) -> BlobRecord:
        """Verify an upload and show its blob to the project.

        The work goes on when the caller hangs up; who calls again waits for the same work.

        Raises: NotFound UPLOAD_NOT_FOUND; FailedPrecondition PARTS_MISSING; InvalidArgument DIGEST_MISMATCH.
        """
        record = await self._own_upload(project, upload)
        task = self._completing.get(upload)
        if task is None:
            task = asyncio.ensure_future(self._complete(record))
            self._completing[upload] = task
            task.add_done_callback(lambda done: self._forget_task(upload, done))
        return await asyncio.shield(task)

    async def cancel_upload(self, project: str, upload: str) -> None:
        """Discard an upload; fine when it is gone."""
        with contextlib.suppress(NotFound):
            await self._drop(await self._own_upload(project, upload))

    # -- references ------------------------------------------------------------------------------------

    async def set_reference(self, project: str, reference: str, digests: Iterable[str]) -> list[Digest]:
        """Let a reference hold exactly these blobs; returns them in order.

        Raises: NotFound BLOB_NOT_FOUND, which names those that the project does not see; InvalidArgument.
        """
        wanted = frozenset(parse_digest(text) for text in digests)
        keep_until_us = self._policy.keep_until_us(self._now_us())
        missing = await self._repository.set_reference(project, reference, wanted, keep_until_us)
        if missing:
            raise blob_not_found(missing)
        return sorted(wanted)

    async def delete_reference(self, project: str, reference: str) -> None:
        """Drop a reference; what it held lives for the grace period. Fine when it is gone."""
        await self.set_reference(project, reference, ())

    # -- inside ----------------------------------------------------------------------------------------

    def _now_us(self) -> int:
        return int(self._clock() * 1_000_000)

    async def _use(self, project: str, digest: Digest) -> BlobRecord | None:
        """The blob if the project sees it, kept for another grace period."""
        record = await self._repository.find(project, digest)
        now = self._now_us()
        if record is None or not self._policy.renewal_due(record.keep_until_us, now):
            return record
        kept = await self._repository.renew(project, digest, self._policy.keep_until_us(now))
        return record if kept else None

    async def _claim(self, digest: Digest, size_bytes: int) -> None:
        for wait in (*_CLAIM_WAITS_SECONDS, None):
            now = self._now_us()
            until = now + self._policy.claim_seconds * 1_000_000
            if await self._repository.claim(digest, size_bytes, now, until):
                return
            if wait is not None:
                await asyncio.sleep(wait)
        raise Unavailable(
            "BLOB_BEING_COLLECTED", f"{digest} is just being deleted; retry", digest=str(digest)
        )

    async def _publish(self, project: str, digest: Digest, size_bytes: int, upload: str = "") -> BlobRecord:
        now = self._now_us()
        return await self._repository.publish(
            project, digest, size_bytes, now, self._policy.keep_until_us(now), upload
        )

    async def _complete(self, record: UploadRecord) -> BlobRecord:
        if record.completed:
            return await self._completed(record)
        await self._claim(record.digest, record.size_bytes)
        try:
            stat = await self._finish(record)
        except UploadNotFound as error:
            return await self._completed_meanwhile(record, error)
        blob = await self._publish(record.project, record.digest, stat.size_bytes, record.upload)
        with contextlib.suppress(ContentError):  # the sweep comes by
            await asyncio.to_thread(self._store.abort_upload, record.handle)
        return blob

    async def _finish(self, record: UploadRecord) -> BlobStat:
        try:
            return await asyncio.to_thread(
                self._store.finish_upload, record.handle, record.digest, record.size_bytes
            )
        except SizeMismatch as error:
            raise await self._parts_missing(record, error) from error
        except DigestMismatch as error:
            await self._drop(record)
            raise InvalidArgument("DIGEST_MISMATCH", str(error), digest=str(record.digest)) from error

    async def _completed_meanwhile(self, record: UploadRecord, error: UploadNotFound) -> BlobRecord:
        """What another call made of the upload between our reading its record and finishing it."""
        again = await self._own_upload(record.project, record.upload)
        if again.completed:
            return await self._completed(again)
        await self._repository.remove_upload(record.upload)
        raise upload_not_found(record.upload) from error

    async def _completed(self, record: UploadRecord) -> BlobRecord:
        seen = await self._use(record.project, record.digest)
        if seen is None:
            await self._repository.remove_upload(record.upload)
            raise upload_not_found(record.upload)
        return seen

    async def _parts_missing(self, record: UploadRecord, error: SizeMismatch) -> FailedPrecondition:
        parts = await self._received(record)
        plan = part_plan(record.size_bytes)
        missing = sorted(set(range(1, plan.count + 1)) - {part.number for part in parts})
        named = ",".join(str(number) for number in missing[:MOST_REQUESTS])
        return FailedPrecondition("PARTS_MISSING", f"{error}; GetUpload tells how", parts=named)

    async def _received(self, record: UploadRecord) -> list[Part]:
        try:
            return await asyncio.to_thread(self._store.received_parts, record.handle)
        except UploadNotFound as error:
            await self._repository.remove_upload(record.upload)
            raise upload_not_found(record.upload) from error

    async def _view(self, record: UploadRecord) -> UploadView:
        plan = part_plan(record.size_bytes)
        seconds = self._policy.request_seconds
        if record.completed:
            return UploadView(record, plan, frozenset(range(1, plan.count + 1)), {}, seconds)
        received = frozenset(part.number for part in await self._received(record))
        missing = [number for number in range(1, plan.count + 1) if number not in received]

        def sign() -> dict[int, SignedRequest]:
            return {
                number: self._store.part_request(record.handle, number, seconds)
                for number in missing[:MOST_REQUESTS]
            }

        try:
            requests = await asyncio.to_thread(sign)
        except UploadNotFound as error:
            raise upload_not_found(record.upload) from error
        return UploadView(record, plan, received, requests, seconds)

    async def _own_upload(self, project: str, upload: str) -> UploadRecord:
        record = await self._repository.upload(project, upload)
        # Another principal's upload is as good as none: its requests would let one send in the other's name.
        if record is None or record.principal != _owner():
            raise upload_not_found(upload)
        return record

    async def _drop(self, record: UploadRecord) -> None:
        await asyncio.to_thread(self._store.abort_upload, record.handle)
        await self._repository.remove_upload(record.upload)

    def _check_grant(self, digest: Digest) -> None:
        principal = current_principal()
        granted = principal.grant.read_digests if principal.grant else frozenset()
        if (principal.grant or principal.kind == "worker") and str(digest) not in granted:
            raise PermissionDenied(
                "DIGEST_NOT_GRANTED",
                f"{principal.name} holds no lease that grants {digest}; read the inputs of the lease alone",
                digest=str(digest),
                principal=principal.name,
            )

    def _forget_task(self, upload: str, done: asyncio.Task[BlobRecord]) -> None:
        self._completing.pop(upload, None)
        if not done.cancelled():
            done.exception()  # whoever waited has it; if all hung up, nobody asks


def _visible(seen: BlobRecord, principal: str, now: int) -> UploadRecord:
    """The upload of content that the project sees already: nothing needs to be sent."""
    return UploadRecord(
        upload=f"visible-{seen.digest.hex}",
        project=seen.project,
        principal=principal,
        digest=seen.digest,
        size_bytes=seen.size_bytes,
        handle="",
        created_us=now,
        expires_us=now,
        completed=True,
    )


def _owner() -> str:
    """Whom an upload belongs to: the actor, or the one lease that a worker's grant speaks of."""
    principal: Principal = current_principal()
    if principal.grant is not None:
        return f"{principal.actor}#{principal.grant.upload_prefix}"
    return principal.actor
