"""Our services as real processes, for integration tests.

    with running_service("registry", {}, folder=tmp_path) as registry:
        channel = connect_sync(registry.endpoint, token=registry.tokens["admin"])

Without settings a service gets SQLite in `folder`, a directory store and tokens of every role.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from boardwright.rpc.auth import hash_token

START_SECONDS = 120.0

_PRINCIPALS = {
    "admin": ("user", "admin"),
    "releaser": ("user", "releaser"),
    "developer": ("user", "developer"),
    "viewer": ("user", "viewer"),
    "service": ("service", "service"),
    "worker": ("worker", "worker"),
}


def write_tokens(path: Path, project: str = "*") -> dict[str, str]:
    """Write a token file with one principal per role, named like the role; return role → token."""
    tokens = {role: f"test-token-{role}" for role in _PRINCIPALS}
    entries = [
        {
            "id": role,
            "principal": role,
            "kind": kind,
            "sha256": hash_token(tokens[role]),
            "roles": [{"role": granted, "project": project}],
        }
        for role, (kind, granted) in _PRINCIPALS.items()
    ]
    path.write_text(json.dumps(entries))
    return tokens


@dataclass
class RunningService:
    """A service process. `kill` and `start` again act like a crash and a restart on the same data."""

    name: str
    folder: Path
    environment: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    endpoint: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the process wrote to standard error and output."""
        return self.folder / f"{self.name}.log"

    def start(self) -> RunningService:
        """Start the process and wait until it serves. Raises: RuntimeError with its log."""
        ready = self.folder / f"{self.name}.ready.json"
        ready.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"boardwright.{self.name}", "serve"],
                env={**self.environment, "BOARDWRIGHT_READY_FILE": str(ready)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)
        self.endpoint = json.loads(ready.read_text())["endpoint"]
        return self

    def kill(self) -> None:
        """SIGKILL it and wait."""
        self._end(signal.SIGKILL)

    def stop(self, seconds: float = 10.0) -> int:
        """SIGTERM it, wait, return the exit status. Raises: subprocess.TimeoutExpired if it does not end."""
        if self.process is None:
            return 0
        self.process.terminate()
        return self.process.wait(seconds)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            self.process.wait(10)


def service_environment(folder: Path, name: str) -> dict[str, str]:
    """Settings for a service that stands alone in `folder`; nothing of the caller's BOARDWRIGHT_ settings."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("BOARDWRIGHT_", "OTEL_"))}
    return inherited | {
        "BOARDWRIGHT_DATABASE_URL": f"sqlite://{folder / f'{name}.db'}",
        "BOARDWRIGHT_BLOBS_URL": f"file://{folder / 'blobs'}",
        "BOARDWRIGHT_TOKENS_FILE": str(folder / "tokens.json"),
        "BOARDWRIGHT_SERVICE_TOKEN": "test-token-service",
        "BOARDWRIGHT_GRANT_KEY": "test-grant-key",
        "BOARDWRIGHT_SIGNING_KEY": "test-signing-key",
        "BOARDWRIGHT_GATEWAY_URL": "http://127.0.0.1:9",
    }


@contextmanager
def running_service(name: str, env: Mapping[str, str], *, folder: Path) -> Iterator[RunningService]:
    """Run `python -m boardwright.<name> serve` with `env` over the defaults; stop it at the end.

    The token file with every role (`RunningService.tokens`) is written unless `env` names another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = service_environment(folder, name) | dict(env)
    tokens = {}
    if "BOARDWRIGHT_TOKENS_FILE" not in env:
        tokens = write_tokens(folder / "tokens.json")
    service = RunningService(name, folder, environment, tokens)
    try:
        service.start()
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.process.terminate()
            try:
                service.process.wait(10)
            except subprocess.TimeoutExpired:
                service.kill()
