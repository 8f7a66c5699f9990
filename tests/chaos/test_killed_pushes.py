"""20 SIGKILLs at random moments of 200 pushes: nothing acknowledged is lost, nothing is half-visible.

The registry and the gateway are killed while several clients push small and large checkpoints. A client
repeats a push whose answer it did not get with the same `request_id`, as every client of ours does.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boardwright.cli.embedded import stack
from boardwright.client import BoardwrightError, Client
from boardwright.content import ContentError, Digest

PUSHES = 200
KILLS = 20
CLIENTS = 4
MODEL = "digits"
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


def checkpoint(number: int) -> bytes:
    """Every tenth is sent in parts through the gateway, the others travel in one call."""
    size = 2_500_000 if number % 10 == 0 else 20_000
    return random.Random(number).randbytes(size)


def until_answered(call: Callable[[], object], seconds: float = 60.0) -> object:
    """Repeat a call while something is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (BoardwrightError, ContentError) as error:
            away = isinstance(error, ContentError) or error.code in _AWAY
            if not away or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Killer(threading.Thread):
    """Kills one of two processes at random moments of the pushes, each time after it was up again."""

    def __init__(self, data: Path, acknowledged: Sized) -> None:
        super().__init__(name="killer")
        self.killed: list[str] = []
        self.stop = threading.Event()
        self._data = data
        self._acknowledged = acknowledged
        self._dead: set[int] = set()
        self._random = random.Random(20)

    def run(self) -> None:
        for moment in sorted(self._random.sample(range(PUSHES - 30), KILLS)):
            while len(self._acknowledged) < moment and not self.stop.wait(0.01):
                pass
            self.stop.wait(self._random.uniform(0, 0.1))
            while not self.stop.is_set() and not self._kill(self._random.choice(("registry", "gateway"))):
                self.stop.wait(0.02)

    def _kill(self, name: str) -> bool:
        served = (self._data / "run" / f"{name}.ready.json").exists()
        pids = {p.name: p.pid for p in stack.status(self._data).processes if p.running}
        if not served or name not in pids or pids[name] in self._dead:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[name], signal.SIGKILL)
            self._dead.add(pids[name])
            self.killed.append(name)
            return True
        return False


class Reader(threading.Thread):
    """Looks at every version that becomes visible: all of its files must be there, then and ever after."""

    def __init__(self, data: Path) -> None:
        super().__init__(name="reader")
        self.half_visible: list[str] = []
        self.seen: set[str] = set()
        self.stop = threading.Event()
        self._data = data

    def run(self) -> None:
        with Client(data=self._data) as client:
            while not self.stop.is_set():
                with contextlib.suppress(BoardwrightError):
                    for version in client.models.versions(MODEL):
                        if version.name not in self.seen:
                            self._look(client, version)
                self.stop.wait(0.2)

    def _look(self, client: Client, version: object) -> None:
        from boardwright.api.registry.v1 import blobs_pb2

        for file in version.files:  # type: ignore[attr-defined]
            request = blobs_pb2.GetBlobRequest(name=f"projects/default/blobs/{file.digest}")
            try:
                client.connection.blobs.GetBlob(request)
            except BoardwrightError as error:
                if error.code in _AWAY:
                    return
                self.half_visible.append(f"{version.name}: {error}")  # type: ignore[attr-defined]
        self.seen.add(version.name)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing_and_show_nothing_half(data: Path, tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}

    def push(numbers: range) -> None:
        path = tmp_path / f"model-{numbers.start}.onnx"
        with Client(data=data) as client:
            for number in numbers:
                path.write_bytes(checkpoint(number))
                version = until_answered(
                    lambda number=number: client.push(  # type: ignore[misc]
                        MODEL,
                        path,
                        format="onnx",
                        task="classification",
                        labels={"push": str(number)},
                        commit="",
                        run="",
                        request_id=f"push-{number}",
                    )
                )
                acknowledged[version.name] = number  # type: ignore[attr-defined]

    killer, reader = Killer(data, acknowledged), Reader(data)
    killer.start()
    reader.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            share = PUSHES // CLIENTS
            for done in [pool.submit(push, range(n * share, (n + 1) * share)) for n in range(CLIENTS)]:
                done.result()
    finally:
        killer.stop.set()
        killer.join()
        reader.stop.set()
        reader.join()
    assert reader.half_visible == []
    assert len(killer.killed) == KILLS and set(killer.killed) == {"registry", "gateway"}
    stack.down(data)
    stack.up(data, detach=True)
    with Client(data=data) as client:
        versions = {version.name: version for version in client.models.versions(MODEL)}
        assert set(versions) == set(acknowledged), "exactly what was acknowledged, each push once"
        numbers = sorted(int(name.rpartition("/")[2]) for name in versions)
        assert numbers == list(range(1, PUSHES + 1)), "no number was skipped or given twice"
        for name, version in versions.items():
            number = acknowledged[name]
            assert version.labels["push"] == str(number)
            assert version.files[0].digest == str(Digest.of(checkpoint(number)))
            path = client.content.download(version.files[0].digest, tmp_path / "downloaded")
            assert (tmp_path / "downloaded").read_bytes() == checkpoint(number), path
