"""Blobs up and down, with the SDK's one kind of error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boardwright.api.types.v1 import types_pb2
from boardwright.client.connection import Connection
from boardwright.client.progress import Progress, silent
from boardwright.rpc.errors import Aborted, InvalidArgument, ResourceExhausted, Unavailable


class Content:
    """`client.content`: files as blobs. Uploads resume; what is there already is not sent again."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project
        self._held: Any = None

    def __reduce__(self) -> tuple[type[Content], tuple[Connection, str]]:
        return Content, (self._connection, self._project)

    def upload(
        self,
        source: bytes | Path,
        *,
        name: str = "",
        media_type: str = "application/octet-stream",
        progress: Progress = silent,
    ) -> types_pb2.File:
        """Make content visible in the project; returns it as a file of a version.

        Raises:
            Unavailable: the store or the registry is away; the same call later sends the rest.
            ResourceExhausted: STORE_FULL, BLOB_TOO_LARGE.
            Aborted: CONTENT_CHANGED, the file changed while it was sent.
            InvalidArgument: FILE_UNREADABLE.
        """
        called = name or (source.name if isinstance(source, Path) else "content")
        with _content_errors(called):
            blob = self._transfer().upload(
                self._project, source, what=f"uploading {called}", progress=progress
            )
        return types_pb2.File(
            path=called, digest=blob.digest, size_bytes=blob.size_bytes, media_type=media_type
        )

    def download(self, digest: str, path: Path, *, progress: Progress = silent) -> Path:
        """Write a blob to a file, which appears whole and verified or not at all.

        Raises:
            NotFound: BLOB_NOT_FOUND.
            Unavailable: the store or the registry is away; the same call later fetches the rest.
            InvalidArgument: the digest is malformed, or the file cannot be written.
        """
        from boardwright.content import Digest

        with _content_errors(str(path)):
            self._transfer().download(
                self._project, Digest.parse(digest), path, what=f"downloading {path.name}", progress=progress
            )
        return path

    def read(self, digest: str) -> bytes:
        """A blob of up to 1 MiB, verified. Raises: NotFound; ResourceExhausted BLOB_TOO_LARGE."""
        from boardwright.content import Digest

        with _content_errors(digest):
            data: bytes = self._transfer().read(self._project, Digest.parse(digest))
        return data

    def close(self) -> None:
        """Close the HTTP connections."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _transfer(self) -> Any:
        if self._held is None:
            from boardwright.api.registry.v1.blobs_pb2_grpc import BlobsStub
            from boardwright.content.transfer import BlobTransfer

            self._held = BlobTransfer(BlobsStub(self._connection.channel))
        return self._held


@contextlib.contextmanager
def _content_errors(what: str) -> Iterator[None]:
    from boardwright.content import (
        ContentError,
        DigestMismatch,
        StoreFull,
        StoreUnavailable,
    )

    try:
        yield
    except StoreFull as error:
        raise ResourceExhausted("STORE_FULL", str(error)) from error
    except StoreUnavailable as error:
        raise Unavailable("STORE_UNAVAILABLE", str(error)) from error
    except DigestMismatch as error:
        raise Aborted("CONTENT_CHANGED", str(error)) from error
    except ContentError as error:
        raise InvalidArgument("CONTENT_INVALID", str(error)) from error
    except OSError as error:
        raise InvalidArgument("FILE_UNREADABLE", f"{what}: {error.strerror or error}") from error
