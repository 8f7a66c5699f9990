"""Pushing clients die at random moments; the same push run again ends in one version."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from boardwright.client import Client
from boardwright.content import Digest

PUSHES = 6
SIZE = 12_000_000
_PUSH = """
import sys
from boardwright.client import Client
data, path, number = sys.argv[1:]
with Client(data=data) as client:
    print("pushing", flush=True)
    given = {"format": "onnx", "task": "classification", "commit": "", "run": ""}
    client.push("digits", path, request_id=f"push-{number}", **given)
"""


def push_once(data: Path, path: Path, number: int, kill_after: float | None) -> int:
    """Push in a process of its own; SIGKILL it ``kill_after`` seconds after it began to push."""
    command = [sys.executable, "-c", _PUSH, str(data), str(path), str(number)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        return process.wait(kill_after if kill_after is not None else 120)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        return process.wait()
    finally:
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_clients_leave_no_half_version_and_finish_when_run_again(data: Path, tmp_path: Path) -> None:
    random_moments = random.Random(7)
    killed = 0
    digests = set()
    for number in range(PUSHES):
        path = tmp_path / f"model-{number}.onnx"
        content = random_moments.randbytes(SIZE)
        path.write_bytes(content)
        digests.add(str(Digest.of(content)))
        while push_once(data, path, number, random_moments.uniform(0.05, 0.6)) != 0:
            killed += 1
            with Client(data=data) as client:
                models = {model.name for model in client.models.list()}
                seen = list(client.models.versions("digits")) if models else []
            assert len(seen) <= number + 1
            if killed % 3 == 0:
                assert push_once(data, path, number, None) == 0
                break
    assert killed > 0, "no client was killed: the moments are too late"
    with Client(data=data) as client:
        versions = list(client.models.versions("digits"))
        assert len(versions) == PUSHES
        assert {version.files[0].digest for version in versions} == digests
        for digest in digests:
            client.content.download(digest, tmp_path / "downloaded")
