"""A real PostgreSQL server for tests: started on a free port, in a folder of its own, stopped at exit."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import lru_cache
from pathlib import Path

_START_SECONDS = 30


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres` (newest version), or None."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    return folders[-1].parent if folders else None


def missing_reason() -> str:
    """Why no server can be started here, or ""."""
    if find_binaries() is None:
        return "no PostgreSQL server binary; install it with: apt-get install postgresql"
    if os.geteuid() == 0 and not _has_user():
        return "PostgreSQL does not run as root and there is no user postgres"
    return ""


def _has_user() -> bool:
    import pwd

    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam("postgres"))
    return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresqlServer:
    """One server process; `start`, `kill` (a crash) and `start` again keep the data."""

    def __init__(self, *, durable: bool = False) -> None:
        binaries = find_binaries()
        if binaries is None:
            raise FileNotFoundError(missing_reason())
        self._binaries = binaries
        self._durable = durable
        self._user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="boardwright-postgresql-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        self._run(
            "initdb",
            "-D",
            str(self.folder / "data"),
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "-E",
            "UTF8",
        )

    def url(self, database: str = "postgres") -> str:
        """The URL of a database on this server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        done = subprocess.run(
            command,
            user=self._user,
            group=self._user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr[-1000:]}")

    def start(self) -> PostgresqlServer:
        """Start and wait until it answers. Raises: RuntimeError with the server's log."""
        options = ["-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        options += ["-c", "max_connections=200", "-c", "shared_buffers=32MB", "-c", "log_min_messages=fatal"]
        if not self._durable:
            options += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.folder / "data"), *options],
                user=self._user,
                group=self._user,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start:\n" + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, sql: str) -> None:
        """Run one statement outside of a transaction, as superuser."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.encode())

    def kill(self) -> None:
        """Crash it: SIGQUIT ends every server process at once, without a checkpoint."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it and remove its folder."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(15)
        self.process = None


@lru_cache(maxsize=1)
def session_server() -> PostgresqlServer:
    """The server that all tests of this process share (not durable); stopped at exit."""
    server = PostgresqlServer().start()
    atexit.register(server.stop)
    return server
