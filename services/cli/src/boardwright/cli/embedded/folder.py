"""The data folder: where everything lies, and the lock that gives it to one supervisor."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DataFolderInUse(Exception):
    """Another supervisor holds the data folder; the message says who."""

    def __init__(self, path: Path, holder: Mapping[str, Any]) -> None:
        who = f"process {holder['pid']} on {holder['host']}" if "pid" in holder else "another process"
        super().__init__(
            f"{path} is in use by {who}; use the running one (boardwright status), "
            "stop it (boardwright down), or choose another folder with --data."
        )
        self.holder = dict(holder)


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Paths below the folder that ``--data`` names."""

    root: Path

    @property
    def run(self) -> Path:
        """What describes the running stack; made again by each start."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def blobs(self) -> Path:
        """The object store."""
        return self.root / "blobs"

    @property
    def lock(self) -> Path:
        """The file whose lock is the right to this folder."""
        return self.run / "lock"

    @property
    def endpoints(self) -> Path:
        """Where clients find the stack, and the administrator's token (0600)."""
        return self.run / "endpoints.json"

    @property
    def status(self) -> Path:
        """The supervisor's view of its processes."""
        return self.run / "status.json"

    @property
    def credentials(self) -> Path:
        """Tokens and keys in plain text (0600)."""
        return self.root / "credentials.json"

    @property
    def tokens(self) -> Path:
        """The tokens' hashes and roles, which every service reads."""
        return self.root / "tokens.json"

    def state(self, name: str) -> Path:
        """Return the folder where the process ``name`` keeps its own files."""
        return self.root / name

    def database(self, service: str) -> str:
        """Return the URL of a service's database."""
        return f"sqlite:///{self.state(service) / (service + '.db')}"

    def ready_file(self, name: str) -> Path:
        """Return the file that ``name`` writes once it serves."""
        return self.run / f"{name}.ready.json"

    def make(self) -> None:
        """Make the folders; only the user may look inside."""
        for path in (self.root, self.run, self.logs, self.blobs):
            path.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)


class FolderLock:
    """An exclusive lock on a data folder; it ends with the process that holds it."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DataFolderInUse: someone holds it.
        """
        handle = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(handle)
            os.close(handle)
            raise DataFolderInUse(self._folder.root, holder) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        self._file = handle

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def find_holder(folder: DataFolder) -> dict[str, Any] | None:
    """Return who holds the folder's lock ({} if it does not say), or None if nobody does."""
    try:
        handle = os.open(folder.lock, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(handle)
    else:
        return None
    finally:
        os.close(handle)


def _read_holder(handle: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Write JSON in one rename, durably, readable by the user alone unless ``mode`` says otherwise.

    Where there was a file, its owner and permissions stay.
    """
    partial = path.with_name(path.name + ".partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        give_like(handle, path)
        json.dump(value, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def give_like(handle: int, path: Path) -> None:
    """Give an open file to whom the one at ``path`` belongs, with the same permissions, if there is one.

    Raises:
        OSError: this user may not give files away.
    """
    with contextlib.suppress(FileNotFoundError):
        like = path.stat()
        os.fchown(handle, like.st_uid, like.st_gid)
        os.fchmod(handle, stat.S_IMODE(like.st_mode))


def read_json(path: Path) -> Any:
    """Return the JSON in ``path``, or None where there is no such file.

    Raises:
        ValueError: the file holds no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
