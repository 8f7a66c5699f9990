"""A Leases server in the test's own event loop, and a blob transfer through a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from boardwright.api.jobs.v1 import jobs_pb2_grpc
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.rpc.leases_servicer import PERMISSIONS, LeasesServicer
from boardwright.jobs.service import JobService
from boardwright.rpc.auth import TokenFile
from boardwright.rpc.errors import NotFound
from boardwright.rpc.grants import verify
from boardwright.rpc.handling import Gate, Service
from boardwright.telemetry import current_trace_id

GRANT_KEY = "0123456789abcdef"
WORKER_TOKEN = "a worker's token"  # noqa: S105 (known to tests alone)


@contextlib.asynccontextmanager
async def serve_leases(jobs: JobService, folder: Path, port: int = 0) -> AsyncIterator[str]:
    """Serve ``jobs`` on loopback; yields "host:port"."""
    tokens = folder / "tokens.json"
    entry = {
        "id": "worker",
        "principal": "worker",
        "kind": "worker",
        "sha256": hashlib.sha256(WORKER_TOKEN.encode()).hexdigest(),
        "roles": [{"role": "worker", "project": "*"}],
    }
    tokens.write_text(json.dumps([entry]), encoding="utf-8")
    gate = Gate(TokenFile(tokens), GRANT_KEY)
    server = grpc.aio.server()
    servicer = LeasesServicer(jobs, GRANT_KEY)
    gate.register(Service(jobs_pb2_grpc.add_LeasesServicer_to_server, servicer, PERMISSIONS), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(0.5)


class FolderTransfer:
    """Blobs as files of a folder, by digest; grants are verified as the registry does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.fetched: list[str] = []
        self.traces: set[str] = set()

    def put(self, content: bytes, media_type: str = "text/plain") -> Blob:
        """Add a blob."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return Blob(f"sha256:{digest}", len(content), media_type)

    def read(self, digest: str) -> bytes:
        """Return a blob's content."""
        return (self.folder / digest.removeprefix("sha256:")).read_bytes()

    async def fetch(self, project: str, blob: Blob, path: Path, grant: str) -> None:
        """See ``BlobTransfer.fetch``."""
        granted = verify(GRANT_KEY, grant)
        self.traces.add(current_trace_id())
        source = self.folder / blob.digest.removeprefix("sha256:")
        if blob.digest not in granted.read_digests or granted.project != project or not source.exists():
            raise NotFound("BLOB_NOT_FOUND", f"{blob.digest} is not visible in {project}.")
        self.fetched.append(blob.digest)
        shutil.copyfile(source, path)

    async def store(self, project: str, content: Path | bytes, media_type: str, grant: str) -> Blob:
        """See ``BlobTransfer.store``."""
        verify(GRANT_KEY, grant)
        return self.put(content if isinstance(content, bytes) else content.read_bytes(), media_type)
