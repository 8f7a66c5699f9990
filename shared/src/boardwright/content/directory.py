"""The blob store in a folder: the embedded default.

    <root>/sha256/ab/abcd…          visible blobs, read-only files
    <root>/staging/<handle>/data    the bytes of an open upload, each part at its place
    <root>/staging/<handle>/part-7  part 7 arrived whole
    <root>/staging/new-…            a `put` in progress

How the promises of `store` are kept:

- *Verified before visible*: a blob appears in `sha256/` by link(2), after its file was hashed and synced.
- *Never overwritten*: link(2) refuses an existing name. An upload's file is sealed (its write bit taken away
  under an exclusive flock) before it is hashed; `parts` looks at that bit under a shared flock before each
  write, so that a request still under way, in whatever process, cannot change what was verified.
- *Survives*: the file, then the folder that names it, are synced before success is reported.

Several processes may use one folder at a time. The file system needs hard links and flock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from boardwright.content.digest import Digest, digest_file
from boardwright.content.durable import sync_folder
from boardwright.content.errors import (
    BlobNotFound,
    BlobTooLarge,
    DigestMismatch,
    SizeMismatch,
    StoreFull,
    StoreUnavailable,
    UploadNotFound,
)
from boardwright.content.file_errors import store_errors
from boardwright.content.file_range import FileRange
from boardwright.content.parts import PartWriter
from boardwright.content.signing import sign_request
from boardwright.content.store import (
    CHUNK_BYTES,
    DEFAULT_MEDIA_TYPE,
    BlobStat,
    Part,
    PartPlan,
    SignedRequest,
    UploadStat,
    check_digest,
    part_plan,
    range_end,
)

_HANDLE = re.compile(r"[0-9a-f]{32}")
_SEALED_MODE = 0o444


class DirectoryStore:
    """Blobs in a folder (implements `BlobStore`).

    Args:
        root: the folder; made if it is missing.
        signing_key: of part and download requests.
        public_url: where clients reach the endpoint (`directory_endpoint`) that serves those requests.

    Raises:
        StoreUnavailable: the folder cannot be made.
    """

    def __init__(self, root: Path, *, signing_key: bytes = b"", public_url: str = "") -> None:
        self._root = root
        self._blobs = root / "sha256"
        self._staging = root / "staging"
        self._signing_key = signing_key
        self._public_url = public_url.rstrip("/")
        with store_errors(root):
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._staging.mkdir(exist_ok=True)

    # -- reading -----------------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """The read-only file of a visible blob, for who reads without copying.

        Raises:
            BlobNotFound: there is none.
        """
        if self.stat(digest) is None:
            raise BlobNotFound(f"there is no blob {digest}")
        return self._path(digest)

    def stat(self, digest: Digest) -> BlobStat | None:
        with store_errors(self._root):
            try:
                found = self._path(digest).stat()
            except FileNotFoundError:
                self._check_present()
                return None
        return BlobStat(digest, found.st_size, found.st_mtime_ns // 1000)

    def open(self, digest: Digest, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        found = self.stat(digest)
        if found is None:
            raise BlobNotFound(f"there is no blob {digest}")
        size = found.size_bytes
        end = range_end(digest, size, offset, length)
        if offset == 0 and end == size:
            return self._verified(digest, size)
        return self._chunks(digest, offset, end)

    def open_range(self, digest: Digest, offset: int, end: int) -> FileRange:
        """The bytes from `offset` to `end`, unverified, for who reads without blocking.

        Raises:
            BlobNotFound: there is no such blob.
        """
        with store_errors(self._root):
            try:
                return FileRange(self._root, self._path(digest), offset, end)
            except FileNotFoundError:
                self._check_present()
                raise BlobNotFound(f"there is no blob {digest}") from None

    def _chunks(self, digest: Digest, offset: int, end: int) -> Iterator[bytes]:
        with contextlib.closing(self.open_range(digest, offset, end)) as opened:
            yield from iter(opened.read, b"")

    def read(self, digest: Digest, max_bytes: int) -> bytes:
        found = self.stat(digest)
        if found is None:
            raise BlobNotFound(f"there is no blob {digest}")
        if found.size_bytes > max_bytes:
            raise BlobTooLarge(f"{digest} has {found.size_bytes} bytes, over the limit of {max_bytes}")
        return b"".join(self.open(digest))

    def blobs(self) -> Iterator[BlobStat]:
        with store_errors(self._root):
            shards = sorted(entry.name for entry in self._blobs.iterdir())
        for shard in shards:
            with store_errors(self._root):
                names = sorted(entry.name for entry in (self._blobs / shard).iterdir())
            for name in names:
                found = self.stat(Digest(name))
                if found is not None:
                    yield found

    # -- writing -----------------------------------------------------------------------------------

    def put(self, data: bytes | BinaryIO | Path, digest: Digest | None = None) -> BlobStat:
        known = Digest.of(data) if isinstance(data, bytes) else None
        if isinstance(data, Path) and digest is not None and self.stat(digest) is not None:
            known = digest_file(data)
        if known is not None:
            check_digest(digest, known)
            if (found := self.stat(known)) is not None:
                # Whoever linked it may not have synced the folder yet, and we are about to acknowledge.
                with store_errors(self._root):
                    sync_folder(self._path(known).parent)
                return found
        temporary = self._staging / f"new-{secrets.token_hex(16)}"
        try:
            with store_errors(self._root):
                file = temporary.open("xb", buffering=0)
            with file:
                written = self._write_hashed(data, file)
                check_digest(digest, written)
                with store_errors(self._root):
                    os.fchmod(file.fileno(), _SEALED_MODE)
                    os.fsync(file.fileno())
            with store_errors(self._root):
                self._publish(temporary, written)
        finally:
            with store_errors(self._root):
                temporary.unlink(missing_ok=True)
        return self._stored(written)

    def delete(self, digest: Digest) -> None:
        with store_errors(self._root):
            self._check_present()
            self._path(digest).unlink(missing_ok=True)

    # -- uploads -----------------------------------------------------------------------------------

    def begin_upload(self, size_bytes: int) -> str:
        part_plan(size_bytes)
        handle = secrets.token_hex(16)
        folder = self._staging / handle
        with store_errors(self._root):
            free = shutil.disk_usage(self._staging).free
            if size_bytes > free:
                raise StoreFull(
                    f"an upload needs {size_bytes} bytes, {self._root} has {free}: free more, then retry"
                )
            folder.mkdir()
            try:
                with (folder / "data").open("xb") as file:
                    os.truncate(file.fileno(), size_bytes)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return handle

    def part_request(self, handle: str, number: int, expires_seconds: int) -> SignedRequest:
        self.upload_plan(handle).length(number)
        return self._signed("PUT", f"/parts/{handle}/{number}", expires_seconds, {})

    def received_parts(self, handle: str) -> list[Part]:
        plan = self.upload_plan(handle)
        with store_errors(self._root):
            names = os.listdir(self._staging / handle)
        numbers = sorted(int(name[len("part-") :]) for name in names if name.startswith("part-"))
        return [Part(number, plan.length(number)) for number in numbers]

    def finish_upload(self, handle: str, digest: Digest, size_bytes: int) -> BlobStat:
        data = self._folder(handle) / "data"
        self._seal(handle, size_bytes)
        with store_errors(self._root):
            # The disk writes while the processor hashes.
            with data.open("rb") as file, ThreadPoolExecutor(1) as executor:
                syncing = executor.submit(os.fsync, file.fileno())
                found = digest_file(data)
                syncing.result()
            if found != digest:
                self.abort_upload(handle)
                raise DigestMismatch(f"what was sent is not {digest}; nothing was kept, send it again")
            self._publish(data, digest)
        return self._stored(digest)

    def abort_upload(self, handle: str) -> None:
        folder = self._folder(handle)
        with store_errors(self._root):
            self._check_present()
            # The new name first: whoever looks for the upload meanwhile finds all of it or nothing.
            dropped = self._staging / f"old-{secrets.token_hex(16)}"
            try:
                folder.rename(dropped)
            except FileNotFoundError:
                return
            shutil.rmtree(dropped)

    def uploads(self) -> Iterator[UploadStat]:
        with store_errors(self._root):
            names = sorted(os.listdir(self._staging))
        for name in names:
            if _HANDLE.fullmatch(name):
                with store_errors(self._root):
                    try:
                        started = (self._staging / name).stat().st_mtime_ns // 1000
                    except FileNotFoundError:
                        continue
                yield UploadStat(name, started)

    def download_request(
        self, digest: Digest, expires_seconds: int, media_type: str = DEFAULT_MEDIA_TYPE
    ) -> SignedRequest:
        self.path(digest)
        return self._signed("GET", f"/blobs/{digest}", expires_seconds, {"media_type": media_type})

    def sweep(self, older_than_us: int) -> int:
        swept = 0
        with store_errors(self._root):
            for name in sorted(os.listdir(self._staging)):
                path = self._staging / name
                try:
                    if path.stat().st_mtime_ns // 1000 >= older_than_us:
                        continue
                    if _HANDLE.fullmatch(name):
                        self.abort_upload(name)
                    elif path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                except FileNotFoundError:
                    continue
                swept += 1
        return swept

    def close(self) -> None:
        """Nothing is held open."""

    # -- parts, for the endpoint that receives them ---------------------------------------------------

    def upload_plan(self, handle: str) -> PartPlan:
        """How an open upload is split.

        Raises:
            UploadNotFound: the handle is unknown or given up.
        """
        with store_errors(self._root):
            try:
                return part_plan((self._folder(handle) / "data").stat().st_size)
            except FileNotFoundError:
                self._check_present()
                raise UploadNotFound(f"there is no upload {handle}: begin a new one") from None

    def write_part(self, handle: str, number: int) -> PartWriter:
        """A writer for the bytes of one part, which need not come at once.

        Raises:
            UploadNotFound: the handle is unknown, sealed or given up.
            InvalidContent: there is no such part.
        """
        plan = self.upload_plan(handle)
        return PartWriter(self._root, self._folder(handle), number, plan.offset(number), plan.length(number))

    # -- inside ----------------------------------------------------------------------------------------

    def _path(self, digest: Digest) -> Path:
        return self._blobs / digest.hex[:2] / digest.hex

    def _folder(self, handle: str) -> Path:
        if not _HANDLE.fullmatch(handle):
            raise UploadNotFound(f"{handle[:40]!r} is no upload of this store: begin a new one")
        return self._staging / handle

    def _check_present(self) -> None:
        # A folder that lost its mount has no blobs either, and that must not read as "not found".
        if not self._blobs.is_dir():
            raise StoreUnavailable(f"the blob folder {self._root} is gone: mount or restore it, then retry")

    def _signed(self, method: str, path: str, expires_seconds: int, query: dict[str, str]) -> SignedRequest:
        signed = sign_request(self._signing_key, method, path, expires_seconds, query)
        return SignedRequest(method, self._public_url + quote(signed, safe="/:?=&%+"), {})

    def _verified(self, digest: Digest, size: int) -> Iterator[bytes]:
        hasher = hashlib.sha256()
        for chunk in self._chunks(digest, 0, size):
            hasher.update(chunk)
            yield chunk
        if hasher.hexdigest() != digest.hex:
            raise DigestMismatch(f"the medium changed {digest}: restore {self._path(digest)} from a backup")

    def _seal(self, handle: str, size_bytes: int) -> None:
        plan = self.upload_plan(handle)
        if plan.size_bytes != size_bytes:
            raise SizeMismatch(f"upload {handle} was begun with {plan.size_bytes} bytes, not {size_bytes}")
        missing = plan.count - len(self.received_parts(handle))
        if missing:
            raise SizeMismatch(f"{missing} of {plan.count} parts of upload {handle} are missing: send them")
        with store_errors(self._root), (self._folder(handle) / "data").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_mode & ~_SEALED_MODE & 0o777:
                os.fchmod(file.fileno(), _SEALED_MODE)
                os.utime(
                    file.fileno()
                )  # `stored_at_us` tells when it was stored, not when its last part came

    def _publish(self, source: Path, digest: Digest) -> None:
        final = self._path(digest)
        if not final.parent.is_dir():
            final.parent.mkdir(exist_ok=True)
            sync_folder(self._blobs)
        try:
            os.link(source, final)
        except FileExistsError:
            return
        finally:
            sync_folder(final.parent)

    def _write_hashed(self, data: bytes | BinaryIO | Path, file: FileIO) -> Digest:
        hasher = hashlib.sha256()
        for chunk in _source_chunks(data):
            hasher.update(chunk)
            view = memoryview(chunk)
            while view:
                with store_errors(self._root):
                    view = view[file.write(view) :]
        return Digest(hasher.hexdigest())

    def _stored(self, digest: Digest) -> BlobStat:
        found = self.stat(digest)
        if found is None:
            raise StoreUnavailable(f"{digest} was deleted while it was stored: store it again")
        return found


def _source_chunks(data: bytes | BinaryIO | Path) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
    elif isinstance(data, Path):
        with data.open("rb", buffering=0) as source:
            yield from iter(lambda: source.read(CHUNK_BYTES), b"")
    else:
        yield from iter(lambda: data.read(CHUNK_BYTES), b"")
