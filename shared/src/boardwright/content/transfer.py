"""Blobs up and down through the Blobs API: resumable, parallel, verified. For the SDK, workers and services.

The registry alone knows how far an upload is, so nothing is remembered here: a client that was killed at 60 %
and runs again is told which parts arrived, and sends the rest. A download keeps its beginning beside the file
that it becomes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

import grpc
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError

from boardwright.api.registry.v1 import blobs_pb2 as pb
from boardwright.content.digest import Digest, digest_file
from boardwright.content.download import Downloads
from boardwright.content.errors import (
    BlobTooLarge,
    ContentError,
    DigestMismatch,
    StoreFull,
    StoreUnavailable,
    cause_of,
)
from boardwright.rpc.errors import BoardwrightError, FailedPrecondition, NotFound, from_rpc_error

SMALL_BYTES = 1 << 20
"""Up to here content travels in one call."""

Progress = Callable[[int, int, str], None]
"""`progress(done_bytes, total_bytes, what)`, called in the caller's thread."""

_PARALLEL = 3
_WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
_COMPLETE_SECONDS = 60.0
_VERIFIED_BYTES_PER_SECOND = 50e6
_FULL_STATUS = 507


class Stub(Protocol):
    """What is used here of the generated `BlobsStub`, on a synchronous channel."""

    def CreateBlob(self, request: pb.CreateBlobRequest) -> pb.Blob: ...
    def ReadBlob(self, request: pb.ReadBlobRequest) -> pb.ReadBlobResponse: ...
    def CreateDownload(self, request: pb.CreateDownloadRequest) -> pb.Download: ...
    def StartUpload(self, request: pb.StartUploadRequest) -> pb.Upload: ...
    def GetUpload(self, request: pb.GetUploadRequest) -> pb.Upload: ...
    def CompleteUpload(self, request: pb.CompleteUploadRequest, timeout: float | None = None) -> pb.Blob: ...


def silent(done_bytes: int, total_bytes: int, what: str) -> None:
    """Tell nobody."""


class BlobTransfer:
    """Moves blobs of any project that the stub's token may use. May be used from many threads.

    Args:
        stub: the generated `BlobsStub`, on a channel from `boardwright.rpc.client.connect_sync`.
        parallel: how many parts travel at a time; each takes 8 MiB of memory.
    """

    def __init__(self, stub: Stub, *, parallel: int = _PARALLEL) -> None:
        self._stub = stub
        self._parallel = parallel
        self._http = PoolManager(
            maxsize=max(parallel, 4), retries=False, timeout=Timeout(connect=10, read=120)
        )
        self._downloads = Downloads(self._http)

    def close(self) -> None:
        """Close the HTTP connections; the stub's channel is the caller's."""
        self._http.clear()

    def upload(
        self, project: str, source: bytes | Path, *, what: str = "upload", progress: Progress = silent
    ) -> pb.Blob:
        """Make content visible in a project; what is there already does not travel.

        Args:
            project: its id, for example `default`.
            source: the bytes, or a file that nobody changes meanwhile.
            what: how the progress calls it.
            progress: told after every part.

        Raises:
            BoardwrightError: the registry refused (BLOB_TOO_LARGE, PERMISSION_MISSING…) or is away.
            DigestMismatch: the file changed while it was read; nothing was kept.
            StoreFull, StoreUnavailable: the store takes no parts now. The same call later sends the rest.
            OSError: the file cannot be read.
        """
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size <= SMALL_BYTES:
            data = source if isinstance(source, bytes) else source.read_bytes()
            if len(data) <= SMALL_BYTES:
                with _rpc_errors():
                    blob = self._stub.CreateBlob(
                        pb.CreateBlobRequest(parent=f"projects/{project}", data=data)
                    )
                progress(len(data), len(data), what)
                return blob
        digest = Digest.of(source) if isinstance(source, bytes) else digest_file(source)
        return _Upload(self, project, source, digest, size, what, progress).run()

    def download(
        self,
        project: str,
        digest: Digest,
        path: Path,
        *,
        max_bytes: int | None = None,
        what: str = "download",
        progress: Progress = silent,
    ) -> pb.Blob:
        """Write a blob to a file, which appears whole and verified or not at all.

        A download that broke off left `<name>.<digest>.part` beside it, and goes on from there.

        Args:
            project: its id.
            digest: which blob.
            path: the file; one that is there is replaced.
            max_bytes: refuse a larger blob before anything travels.
            what: how the progress calls it.
            progress: told about every mebibyte.

        Raises:
            BoardwrightError: the registry refused (BLOB_NOT_FOUND, DIGEST_NOT_GRANTED…) or is away.
            BlobTooLarge: it has more than `max_bytes`.
            DigestMismatch: what came is not the blob, twice.
            StoreUnavailable: the store is away. The same call later fetches the rest.
            OSError: the file cannot be written.
        """
        last: ContentError | None = None
        for wait in (0.0, *_WAITS_SECONDS):
            time.sleep(wait)
            request = pb.CreateDownloadRequest(name=f"projects/{project}/blobs/{digest}")
            with _rpc_errors():
                answer = self._stub.CreateDownload(request)
            size = answer.blob.size_bytes
            if max_bytes is not None and size > max_bytes:
                raise BlobTooLarge(f"{digest} has {size} bytes, over the limit of {max_bytes}")

            def tell(done_bytes: int, size: int = size) -> None:
                progress(done_bytes, size, what)

            headers = dict(answer.request.headers)
            try:
                self._downloads.fetch(answer.request.url, headers, digest, size, path, tell)
                return answer.blob
            except DigestMismatch as error:
                if isinstance(last, DigestMismatch):
                    raise
                last = error
            except StoreUnavailable as error:
                last = error
        raise last or StoreUnavailable("the store is away")

    def read(self, project: str, digest: Digest) -> bytes:
        """A blob of at most 1 MiB, verified.

        Raises:
            BoardwrightError: the registry refused (BLOB_NOT_FOUND, BLOB_TOO_LARGE…) or is away.
            DigestMismatch: what came is not the blob.
        """
        with _rpc_errors():
            data = self._stub.ReadBlob(pb.ReadBlobRequest(name=f"projects/{project}/blobs/{digest}")).data
        if Digest.of(data) != digest:
            raise DigestMismatch(f"what came is not {digest}: read it again")
        return data


class _Upload:
    """One upload: rounds of "what is missing?" and "send that", until nothing is."""

    def __init__(
        self,
        transfer: BlobTransfer,
        project: str,
        source: bytes | Path,
        digest: Digest,
        size: int,
        what: str,
        progress: Progress,
    ) -> None:
        self._stub = transfer._stub
        self._http = transfer._http
        self._parallel = transfer._parallel
        self._project = project
        self._source = source
        self._digest = digest
        self._size = size
        self._what = what
        self._progress = progress

    def run(self) -> pb.Blob:
        failures = 0
        received = -1
        upload = self._start()
        while True:
            if upload.state == pb.Upload.STATE_COMPLETED:
                self._tell(self._size)
                return self._blob()
            now_received = sum(part.size_bytes for part in upload.parts if part.received)
            failures = 0 if now_received > received else failures + 1
            received = now_received
            self._tell(received)
            try:
                if all(part.received for part in upload.parts):
                    return self._complete(upload)
                self._send_all(upload, received)
                upload = self._get(upload.name)
            except (StoreUnavailable, StoreFull) as error:
                if failures >= len(_WAITS_SECONDS) or isinstance(error, StoreFull):
                    raise
                time.sleep(_WAITS_SECONDS[failures])
                upload = self._start()
            except (NotFound, FailedPrecondition):
                # The upload expired, or parts that were there are gone: what is missing is known anew.
                if failures >= len(_WAITS_SECONDS):
                    raise
                upload = self._start()

    def _tell(self, done_bytes: int) -> None:
        self._progress(done_bytes, self._size, self._what)

    def _start(self) -> pb.Upload:
        request = pb.StartUploadRequest(
            parent=f"projects/{self._project}", digest=str(self._digest), size_bytes=self._size
        )
        with _rpc_errors():
            return self._stub.StartUpload(request)

    def _get(self, name: str) -> pb.Upload:
        with _rpc_errors():
            return self._stub.GetUpload(pb.GetUploadRequest(name=name))

    def _blob(self) -> pb.Blob:
        name = f"projects/{self._project}/blobs/{self._digest}"
        # Who may upload may not always read (a worker's grant), so this is put together here.
        return pb.Blob(name=name, digest=str(self._digest), size_bytes=self._size)

    def _complete(self, upload: pb.Upload) -> pb.Blob:
        seconds = _COMPLETE_SECONDS + self._size / _VERIFIED_BYTES_PER_SECOND
        try:
            with _rpc_errors():
                return self._stub.CompleteUpload(pb.CompleteUploadRequest(name=upload.name), timeout=seconds)
        except BoardwrightError as error:
            if error.reason == "DIGEST_MISMATCH":
                raise DigestMismatch(
                    f"what arrived is not {self._digest}: the source changed meanwhile; upload it again"
                ) from error
            raise

    def _send_all(self, upload: pb.Upload, received: int) -> None:
        parts = [part for part in upload.parts if part.HasField("request")]
        failure: ContentError | None = None
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="boardwright-upload") as executor:
            futures = [executor.submit(self._send, part) for part in parts]
            try:
                for future in as_completed(futures):
                    try:
                        received += future.result()
                        self._tell(received)
                    except (StoreUnavailable, StoreFull) as error:
                        failure = error
                        executor.shutdown(wait=False, cancel_futures=True)
                        break
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
        if failure is not None:
            raise failure

    def _send(self, part: pb.Upload.Part) -> int:
        body = self._read(part.offset, part.size_bytes)
        headers = {"Content-Length": str(len(body)), **part.request.headers}
        try:
            answer = self._http.request(
                part.request.method,
                part.request.url,
                body=body,  # type: ignore[arg-type]  # urllib3 takes any buffer
                headers=headers,
            )
        except (HTTPError, OSError) as error:
            raise StoreUnavailable(
                f"part {part.number} could not be sent ({cause_of(error)}): "
                "start the store and upload again; what arrived is kept"
            ) from error
        if answer.status == 200:
            return int(part.size_bytes)
        text = answer.data[:500].decode("utf-8", "replace")
        if answer.status == _FULL_STATUS:
            raise StoreFull(f"the store has no room left ({text}): free some and upload again")
        raise StoreUnavailable(f"the store refused part {part.number} ({answer.status} {text}): upload again")

    def _read(self, offset: int, length: int) -> memoryview:
        if isinstance(self._source, bytes):
            return memoryview(self._source)[offset : offset + length]
        with self._source.open("rb", buffering=0) as file:
            file.seek(offset)
            buffer = memoryview(bytearray(length))
            filled = 0
            while filled < length and (count := file.readinto(buffer[filled:])):
                filled += count
        if filled < length:
            raise DigestMismatch(f"{self._source} became shorter while it was sent: upload it again")
        return buffer


@contextlib.contextmanager
def _rpc_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
