"""The embedded stack as users run it: start, use, stop, and go on where it was."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boardwright.cli.embedded import stack
from boardwright.cli.embedded.folder import DataFolder, DataFolderInUse
from boardwright.client import Client, PermissionDenied, Unauthenticated

NAMES = ["registry", "calibration", "compiler", "builder", "delivery", "gateway", "worker"]


@pytest.mark.slow
def test_a_stack_starts_serves_stops_and_goes_on_where_it_was(tmp_path: Path) -> None:
    data = tmp_path / "a folder with spaces, #1"
    told: list[str] = []
    endpoints = stack.up(data, detach=True, on_progress=lambda done, total, what: told.append(what))
    try:
        assert told[-1] == "ready"
        status = stack.status(data)
        assert [process.name for process in status.processes] == NAMES
        assert all(process.running and not process.restarts for process in status.processes)
        assert status.endpoints == endpoints
        with pytest.raises(DataFolderInUse, match=str(status.pid)):
            stack.up(data, detach=True)
        path = tmp_path / "model.onnx"
        path.write_bytes(b"x" * 2_000_000)
        with Client(data=data) as client:
            version = client.push("digits", path, format="onnx", task="classification", commit="", run="")
        with Client(endpoints.grpc, "bw_wrong") as stranger, pytest.raises(Unauthenticated):
            stranger.models.get("digits")
        assert stack.down(data)
        assert not stack.status(data).running
        again = stack.up(data, detach=True)
        assert (again.grpc, again.url, again.token) == (endpoints.grpc, endpoints.url, endpoints.token)
        with Client(data=data) as client:
            assert client.models.version("digits@1") == version
            client.content.download(version.files[0].digest, tmp_path / "downloaded")
        assert (tmp_path / "downloaded").read_bytes() == path.read_bytes()
    finally:
        stack.down(data)


@pytest.mark.slow
def test_ctrl_c_stops_everything_and_no_secret_is_left_readable(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [sys.executable, "-m", "boardwright.cli", "--data", str(data), "up"]
    supervisor = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while stack.read_endpoints(data) is None:
            assert supervisor.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        folder = DataFolder(data)
        pids = [process.pid for process in stack.status(data).processes]
        assert data.stat().st_mode & 0o077 == 0
        for private in (folder.endpoints, folder.credentials, folder.tokens):
            assert private.stat().st_mode & 0o077 == 0, private
        shown = b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)
        held = json.loads(folder.credentials.read_text(encoding="utf-8"))
        for secret in (held["worker"], *held["services"].values(), held["grant_key"], held["signing_key"]):
            assert secret.encode() not in shown
        tokens = folder.tokens.read_text(encoding="utf-8")
        worker = json.loads(folder.credentials.read_text(encoding="utf-8"))["worker"]
        assert worker not in tokens
        endpoints = stack.read_endpoints(data)
        assert endpoints is not None
        with Client(endpoints.grpc, worker) as client, pytest.raises(PermissionDenied):
            list(client.models.list())
    finally:
        supervisor.send_signal(signal.SIGINT)
        told = supervisor.communicate(timeout=15)[1]
    assert supervisor.returncode == 0 and told.endswith("Stopped.\n")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not folder.endpoints.exists()
