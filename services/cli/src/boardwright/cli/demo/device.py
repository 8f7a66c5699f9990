"""The device agent, in a process and a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boardwright.rpc.errors import FailedPrecondition, Unavailable

_ENROL_SECONDS = 30.0
_STOP_SECONDS = 5.0
_UNAVAILABLE = 4


class DeviceAgent:
    """A `boardwright-agent` on this machine.

    Args:
        home: its folder; keys, trust and slots lie there.
        log: what it prints.
    """

    def __init__(self, home: Path, log: Path) -> None:
        self.home = home
        self._log = log

    def enrolled_fleet(self) -> str:
        """Name of the fleet it is enrolled in, "" for none."""
        done = self._run("status", "-o", "json")
        try:
            return str(json.loads(done.stdout).get("device", "") or "").partition("/devices/")[0]
        except ValueError:
            return ""

    def enrol(self, server: str, token: str, device: str, board: str) -> None:
        """Enrol with a one-time token.

        Raises:
            FailedPrecondition: ENROLMENT_REFUSED.
            Unavailable: ENROLMENT_UNAVAILABLE.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        arguments = ["--server", server, "--token", "-", "--id", device, "--again"]
        done = self._run("enroll", *arguments, *(["--board", board] if board else []), given=token)
        if done.returncode != 0:
            said = done.stderr.strip()[-1000:]
            if done.returncode == _UNAVAILABLE:
                raise Unavailable("ENROLMENT_UNAVAILABLE", f"the device could not enrol: {said}")
            raise FailedPrecondition("ENROLMENT_REFUSED", f"the device could not enrol: {said}")

    @contextmanager
    def running(self, poll_seconds: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """Let the agent run until the block ends."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [*self._command("run"), "--interval", str(poll_seconds)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def last_words(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace").strip()[-1000:] if self._log.exists() else ""

    def _command(self, verb: str) -> list[str]:
        return [sys.executable, "-m", "boardwright.agent", verb, "--home", str(self.home)]

    def _run(self, verb: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command(verb), *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=_ENROL_SECONDS,
            check=False,
        )
