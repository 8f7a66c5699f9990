"""The blob store in any S3, through the `minio` client.

    data/<size>-<token>   the bytes of one upload, written once, named at random
    sha256/<hex>          a small JSON that says which object under data/ has the bytes: the blob is visible

How the promises of `store` are kept:

- *Verified before visible*: an upload is a multipart upload of a fresh object; its parts become the object,
  the object is read and hashed, and only then the JSON under `sha256/` is written.
- *Never overwritten*: completing the multipart upload ends it, so requests that are still out there lead
  nowhere; the JSON is written on condition that there is none yet (If-None-Match), and who comes second drops
  his object.
- *Survives*: as far as the server keeps what it acknowledged.

The bytes stay where the upload put them: copying them to a name of their own costs a SeaweedFS as much as the
upload did (docs/adr holds the figures).
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from urllib3 import PoolManager, Retry, Timeout

from boardwright.content.canonical import canonical_json, read_json
from boardwright.content.digest import Digest, digest_file
from boardwright.content.errors import (
    BlobNotFound,
    BlobTooLarge,
    DigestMismatch,
    SizeMismatch,
    StoreUnavailable,
    UploadNotFound,
)
from boardwright.content.hashing import BackgroundHasher
from boardwright.content.s3_names import (
    UPLOAD_KEY,
    S3Upload,
    blob_name,
    microseconds,
    new_key,
    parse_handle,
    plan_of_key,
    whole_parts,
)
from boardwright.content.s3_requests import (
    Absent,
    AlreadyThere,
    S3Requests,
    minio_client,
    s3_errors,
)
from boardwright.content.store import (
    CHUNK_BYTES,
    DEFAULT_MEDIA_TYPE,
    SMALLEST_PART_BYTES,
    BlobStat,
    Part,
    SignedRequest,
    UploadStat,
    check_digest,
    part_plan,
    range_end,
)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the JSON of a visible blob says."""

    key: str
    size_bytes: int
    stored_at_us: int


class S3Store:
    """Blobs in a bucket (implements `BlobStore`).

    Args:
        bucket: exists already.
        endpoint: where this process reaches S3, for example `http://127.0.0.1:8333`.
        public_endpoint: where clients reach it.
        region: of the bucket.
        access_key: may list, read, write and delete in the bucket.
        secret_key: of that access key.

    Raises:
        InvalidContent: an endpoint is malformed.
    """

    def __init__(
        self,
        bucket: str,
        *,
        endpoint: str,
        public_endpoint: str,
        region: str,
        access_key: str,
        secret_key: str,
    ) -> None:
        # The server gets a few chances to answer, and a silent one does not hold a call for minutes.
        self._pool = PoolManager(
            maxsize=16,
            timeout=Timeout(connect=5, read=60),
            retries=Retry(total=2, backoff_factor=0.2, raise_on_status=False),
        )
        self._bucket = bucket
        self._requests = S3Requests(
            self._pool,
            endpoint=endpoint,
            region=region,
            bucket=bucket,
            access_key=access_key,
            secret_key=secret_key,
        )
        self._client = self._requests.client
        self._public_client = minio_client(self._pool, public_endpoint, region, access_key, secret_key)

    # -- reading -----------------------------------------------------------------------------------

    def stat(self, digest: Digest) -> BlobStat | None:
        entry = self._entry(digest)
        return None if entry is None else BlobStat(digest, entry.size_bytes, entry.stored_at_us)

    def open(self, digest: Digest, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        entry = self._entry_or_raise(digest)
        size = entry.size_bytes
        end = range_end(digest, size, offset, length)
        return self._chunks(digest, entry.key, offset, end, whole=offset == 0 and end == size)

    def read(self, digest: Digest, max_bytes: int) -> bytes:
        entry = self._entry_or_raise(digest)
        if entry.size_bytes > max_bytes:
            raise BlobTooLarge(f"{digest} has {entry.size_bytes} bytes, over the limit of {max_bytes}")
        return b"".join(self._chunks(digest, entry.key, 0, entry.size_bytes, whole=True))

    def blobs(self) -> Iterator[BlobStat]:
        for digest in self._digests():
            found = self.stat(digest)
            if found is not None:
                yield found

    # -- writing -----------------------------------------------------------------------------------

    def put(self, data: bytes | BinaryIO | Path, digest: Digest | None = None) -> BlobStat:
        if isinstance(data, Path):
            return self._put_file(data, digest)
        if isinstance(data, bytes):
            return self._put_bytes(data, digest)
        start = data.read(SMALLEST_PART_BYTES)
        if len(start) < SMALLEST_PART_BYTES and not (more := data.read(1)):
            return self._put_bytes(start, digest)
        with tempfile.NamedTemporaryFile(prefix="boardwright-") as spool:
            spool.write(start)
            if len(start) < SMALLEST_PART_BYTES:
                spool.write(more)
            shutil.copyfileobj(data, spool, CHUNK_BYTES)
            spool.flush()
            return self._put_file(Path(spool.name), digest)

    def delete(self, digest: Digest) -> None:
        entry = self._entry(digest)
        if entry is not None:
            with s3_errors():
                self._client.remove_object(bucket_name=self._bucket, object_name=blob_name(digest))
            self._remove(entry.key)

    # -- uploads -----------------------------------------------------------------------------------

    def begin_upload(self, size_bytes: int) -> str:
        part_plan(size_bytes)
        key = new_key(size_bytes)
        return f"{key.removeprefix('data/')}.{self._requests.create_upload(key)}"

    def part_request(self, handle: str, number: int, expires_seconds: int) -> SignedRequest:
        upload = parse_handle(handle)
        upload.plan.length(number)
        url = self._public_client.get_presigned_url(
            method="PUT",
            bucket_name=self._bucket,
            object_name=upload.key,
            expires=timedelta(seconds=expires_seconds),
            extra_query_params={"uploadId": upload.upload_id, "partNumber": str(number)},
        )
        return SignedRequest("PUT", url, {})

    def received_parts(self, handle: str) -> list[Part]:
        upload = parse_handle(handle)
        try:
            sent = self._requests.parts(upload.key, upload.upload_id)
        except Absent as error:
            if self._size(upload.key) is None:
                raise UploadNotFound(f"there is no upload {handle}: begin a new one") from error
            return [Part(n, upload.plan.length(n)) for n in range(1, upload.plan.count + 1)]
        return [Part(part.number, part.size_bytes) for part in whole_parts(upload.plan, sent)]

    def finish_upload(self, handle: str, digest: Digest, size_bytes: int) -> BlobStat:
        upload = parse_handle(handle)
        if upload.plan.size_bytes != size_bytes:
            raise SizeMismatch(f"the upload was begun with {upload.plan.size_bytes} bytes, not {size_bytes}")
        found = self._size(upload.key)
        if found is None:
            self._complete(handle, upload)
            found = self._size(upload.key)
        if found != size_bytes or self._hash(upload.key) != digest:
            self._remove(upload.key)
            raise DigestMismatch(f"what was sent is not {digest}; nothing was kept, send it again")
        return self._publish(upload.key, digest, size_bytes)

    def abort_upload(self, handle: str) -> None:
        upload = parse_handle(handle)
        # An object that was completed but never published is left to `sweep`, which can tell it from a blob.
        self._requests.abort_upload(upload.key, upload.upload_id)

    def uploads(self) -> Iterator[UploadStat]:
        for key, upload_id, started in self._requests.uploads("data/"):
            if UPLOAD_KEY.fullmatch(key):
                yield UploadStat(f"{key.removeprefix('data/')}.{upload_id}", microseconds(started))

    def download_request(
        self, digest: Digest, expires_seconds: int, media_type: str = DEFAULT_MEDIA_TYPE
    ) -> SignedRequest:
        entry = self._entry_or_raise(digest)
        url = self._public_client.get_presigned_url(
            method="GET",
            bucket_name=self._bucket,
            object_name=entry.key,
            expires=timedelta(seconds=expires_seconds),
            response_headers={"response-content-type": media_type},
        )
        return SignedRequest("GET", url, {})

    def sweep(self, older_than_us: int) -> int:
        stale = [upload.handle for upload in self.uploads() if upload.started_at_us < older_than_us]
        for handle in stale:
            self.abort_upload(handle)
        # First the objects, then who names them: what is published in between is seen to be named.
        objects = [key for key, stored_at_us in self._names("data/") if stored_at_us < older_than_us]
        entries = [self._entry(digest) for digest in self._digests()] if objects else []
        named = {entry.key for entry in entries if entry is not None}
        orphans = [key for key in objects if key not in named]
        for key in orphans:
            self._remove(key)
        return len(stale) + len(orphans)

    def close(self) -> None:
        self._pool.clear()

    # -- inside ----------------------------------------------------------------------------------------

    def _entry(self, digest: Digest) -> _Entry | None:
        try:
            data, headers = self._requests.get(blob_name(digest))
        except Absent:
            return None
        try:
            document = read_json(data)
            return _Entry(
                str(document["object"]),
                int(document["size"]),
                microseconds(parsedate_to_datetime(headers["Last-Modified"])),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(f"the entry of {digest} in the bucket is damaged: restore it") from error

    def _entry_or_raise(self, digest: Digest) -> _Entry:
        entry = self._entry(digest)
        if entry is None:
            raise BlobNotFound(f"there is no blob {digest}")
        return entry

    def _digests(self) -> Iterator[Digest]:
        for name, _ in self._names("sha256/"):
            yield Digest(name.removeprefix("sha256/"))

    def _names(self, prefix: str) -> Iterator[tuple[str, int]]:
        with s3_errors():
            for found in self._client.list_objects(bucket_name=self._bucket, prefix=prefix, recursive=True):
                yield str(found.object_name), microseconds(found.last_modified)

    def _size(self, key: str) -> int | None:
        try:
            with s3_errors():
                found = self._client.stat_object(bucket_name=self._bucket, object_name=key)
        except Absent:
            return None
        return int(found.size)

    def _chunks(self, digest: Digest, key: str, offset: int, end: int, *, whole: bool) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        try:
            for chunk in self._object_chunks(key, offset, end - offset):
                if whole:
                    hasher.update(chunk)
                yield chunk
        except Absent as error:
            raise BlobNotFound(f"there is no blob {digest}") from error
        if whole and hasher.hexdigest() != digest.hex:
            raise DigestMismatch(f"the medium changed {digest}: restore {key} from a backup")

    def _object_chunks(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        if length == 0:  # which S3 has no range for
            return
        with s3_errors():
            answer = self._client.get_object(
                bucket_name=self._bucket, object_name=key, offset=offset, length=length
            )
        with contextlib.closing(answer):
            pieces = answer.stream(CHUNK_BYTES)
            while True:
                with s3_errors():
                    piece = next(pieces, b"")
                if not piece:
                    break
                yield piece
            answer.release_conn()

    def _hash(self, key: str) -> Digest:
        with BackgroundHasher() as hasher:
            for chunk in self._object_chunks(key, 0, plan_of_key(key).size_bytes):
                hasher.update(chunk)
            return hasher.digest()

    def _put_bytes(self, data: bytes, digest: Digest | None) -> BlobStat:
        known = Digest.of(data)
        check_digest(digest, known)
        if (found := self.stat(known)) is not None:
            return found
        key = new_key(len(data))
        with s3_errors():
            self._client.put_object(
                bucket_name=self._bucket, object_name=key, data=BytesIO(data), length=len(data)
            )
        return self._publish(key, known, len(data))

    def _put_file(self, path: Path, digest: Digest | None) -> BlobStat:
        if path.stat().st_size <= SMALLEST_PART_BYTES:
            return self._put_bytes(path.read_bytes(), digest)
        known = digest_file(path)
        check_digest(digest, known)
        if (found := self.stat(known)) is not None:
            return found
        size = path.stat().st_size
        handle = self.begin_upload(size)
        upload = parse_handle(handle)
        try:
            with path.open("rb") as file:
                for number in range(1, upload.plan.count + 1):
                    part = file.read(upload.plan.length(number))
                    self._requests.put_part(upload.key, upload.upload_id, number, part)
            return self.finish_upload(handle, known, size)
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                self.abort_upload(handle)
            raise

    def _complete(self, handle: str, upload: S3Upload) -> None:
        try:
            sent = self._requests.parts(upload.key, upload.upload_id)
        except Absent as error:
            raise UploadNotFound(f"there is no upload {handle}: begin a new one") from error
        whole = whole_parts(upload.plan, sent)
        missing = upload.plan.count - len(whole)
        if missing:
            raise SizeMismatch(f"{missing} of {upload.plan.count} parts of the upload are missing: send them")
        # Who completes the same upload at the same time is as good: the object is hashed next.
        with contextlib.suppress(Absent):
            self._requests.complete_upload(upload.key, upload.upload_id, whole)

    def _publish(self, key: str, digest: Digest, size_bytes: int) -> BlobStat:
        # Another push may win, and a delete may take its entry before we read it: then it is our turn again.
        for _ in range(3):
            with contextlib.suppress(AlreadyThere):
                self._requests.put_new(blob_name(digest), canonical_json({"object": key, "size": size_bytes}))
            entry = self._entry(digest)
            if entry is not None:
                if entry.key != key:
                    self._remove(key)
                return BlobStat(digest, entry.size_bytes, entry.stored_at_us)
        raise StoreUnavailable(f"{digest} is deleted again and again while it is stored: retry later")

    def _remove(self, key: str) -> None:
        with contextlib.suppress(Absent), s3_errors():
            self._client.remove_object(bucket_name=self._bucket, object_name=key)
