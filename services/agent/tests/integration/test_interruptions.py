"""Bad links, full disks and kills at any moment."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MEGABYTE = 1 << 20


def start(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "boardwright.agent", *arguments, "--home", str(home), "-o", "json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def blob_ranges(fleet) -> list[str]:
    return [given for _, path, given in fleet.server.requests if "/blobs/" in path]


def test_a_link_that_breaks_again_and_again(enrolled, fleet, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fleet.release(1, padding_bytes=2 * MEGABYTE)
    fleet.server.fault.cut_blobs_after = MEGABYTE // 2
    assert enrolled("once")[1]["result"] == "installed"
    assert [given for given in blob_ranges(fleet) if given][:3] == [
        f"bytes={number * MEGABYTE // 2}-" for number in (1, 2, 3)
    ]


def test_a_link_that_brings_nothing_is_given_up_for_now(enrolled, fleet, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fleet.release(1)
    fleet.server.fault.cut_blobs_after = 0
    code, said = enrolled("once")
    assert code == 4 and said["reason"] in ("LINK_BROKE", "SERVER_UNREACHABLE")
    fleet.server.fault.cut_blobs_after = None
    assert enrolled("once")[1]["result"] == "installed"


def test_a_link_that_trickles_does_not_hold_a_check_up_for_ever(enrolled, fleet, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fleet.release(1, padding_bytes=MEGABYTE)
    fleet.server.fault.cut_blobs_after = 100
    code, said = enrolled("once")
    assert code == 4 and said["reason"] in ("LINK_BROKE", "SERVER_UNREACHABLE")
    fleet.server.fault.cut_blobs_after = None
    assert enrolled("once")[1]["result"] == "installed"
    assert "bytes=500-" in blob_ranges(fleet)


def test_killed_during_the_download_only_the_rest_travels(enrolled, fleet) -> None:
    bundle = fleet.release(1, padding_bytes=3 * MEGABYTE)
    fleet.server.fault.slow_bytes_per_second = 2 * MEGABYTE
    part = enrolled.home / "downloads" / f"{bundle.file('model').digest.hex}.part"
    process = start(enrolled.home, "once")
    wait_for(lambda: part.exists() and part.stat().st_size > 1.8 * MEGABYTE)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    arrived = part.stat().st_size
    fleet.server.requests.clear()
    fleet.server.fault.slow_bytes_per_second = 0
    assert enrolled("once")[1]["result"] == "installed"
    assert blob_ranges(fleet)[0] == f"bytes={arrived}-"


def test_a_download_that_the_disk_damaged_later_is_fetched_again(enrolled, fleet) -> None:
    model = fleet.release(1).file("model")
    (enrolled.home / "downloads" / model.digest.hex).write_bytes(b"\0" * model.size_bytes)
    assert enrolled("once")[1]["result"] == "installed"


def test_a_damaged_partial_download_starts_over(enrolled, fleet) -> None:
    bundle = fleet.release(1, padding_bytes=MEGABYTE)
    model = bundle.file("model")
    part = enrolled.home / "downloads" / f"{model.digest.hex}.part"
    part.write_bytes(b"\0" * (MEGABYTE // 2))
    assert enrolled("once")[1]["result"] == "installed"
    assert [given for given in blob_ranges(fleet) if given] == [f"bytes={MEGABYTE // 2}-"]


def test_too_little_space_is_known_before_the_download(enrolled, fleet, monkeypatch) -> None:
    fleet.release(1, padding_bytes=MEGABYTE)
    usage = os.statvfs_result((4096, 4096, 1000, 10, 10, 0, 0, 0, 0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: usage)
        code, said = enrolled("once")
    assert (code, said["reason"]) == (4, "DISK_FULL")
    assert "the update needs 17 MiB" in said["message"]
    assert not blob_ranges(fleet)
    assert fleet.server.reports[-1]["kind"] == "failed"
    assert enrolled("once")[1]["result"] == "installed"


def test_a_disk_that_becomes_full_during_the_download(enrolled, fleet, monkeypatch) -> None:
    fleet.release(1, padding_bytes=2 * MEGABYTE)
    real = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, said = enrolled("once")
    assert (code, said["reason"]) == (4, "DISK_FULL") and "free some space" in said["message"]
    assert enrolled("once")[1]["result"] == "installed"


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "DISK_FULL"), (errno.EROFS, "HOME_UNWRITABLE")]
)
def test_a_disk_that_takes_nothing_does_not_keep_the_device_from_saying_so(
    enrolled, fleet, monkeypatch, number: int, reason: str
) -> None:
    fleet.release(1)
    real = os.open

    def refusing(path, flags: int, *more: object, **named: object) -> int:
        if str(path).startswith(str(enrolled.home)) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        code, said = enrolled("once")
    assert (code, said["reason"]) == (4, reason)
    assert fleet.server.reports[-1]["refusal"]["reason"] == reason
    assert enrolled("once")[1]["result"] == "installed"


def test_a_power_cut_between_switch_and_check_is_finished_on_the_next_start(
    enrolled, fleet, monkeypatch
) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    fleet.release(2, scale=3.0)
    process = start(enrolled.home, "once", "--health-command", "sleep 60")
    wait_for(lambda: os.readlink(enrolled.home / "current").endswith("b"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert enrolled("status")[1]["trial_pending"]
    code, said = enrolled("once", "--health-command", "false")
    assert (code, said["reason"]) == (3, "HEALTH_FAILED")
    assert enrolled.run_model() == 2.0 and not enrolled("status")[1]["trial_pending"]


def test_a_slot_that_the_disk_lost_under_trial_is_left_at_once(enrolled, fleet) -> None:
    from boardwright.agent.home import Home, Trial

    for number in (1, 2):
        fleet.release(number, scale=float(number))
        enrolled("once")
    Home(enrolled.home).save_state(trial=Trial("b", "a", attempts=1))
    (enrolled.home / "current" / "slot.json").write_bytes(b"")
    (enrolled.home / "current" / "model.onnx").unlink()
    fleet.server.fault.refuse["/tuf"] = 503
    assert enrolled("once")[1]["reason"] == "SERVER_ERROR"
    assert enrolled.run_model() == 1.0
    fleet.server.fault.refuse.clear()
    assert enrolled("once")[1]["result"] == "installed"
    assert enrolled.run_model() == 2.0


def test_a_slot_that_takes_the_device_down_every_time_is_given_up(enrolled, fleet) -> None:
    from boardwright.agent.home import Home, Trial

    for number in (1, 2):
        fleet.release(number, scale=float(number))
        enrolled("once")
    Home(enrolled.home).save_state(trial=Trial("b", "a", attempts=3))
    code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "HEALTH_FAILED") and "3 times" in said["message"]
    assert enrolled.run_model() == 1.0


@pytest.mark.parametrize("name", ["model.onnx", "slot.json", "manifest.json"])
def test_a_slot_that_the_disk_damaged_is_installed_again(enrolled, fleet, name: str) -> None:
    fleet.release(1, scale=2.0)
    enrolled("once")
    damaged = enrolled.home / "current" / name
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert enrolled("once", "-q")[1]["result"] == "installed"
    assert enrolled.run_model() == 2.0
    assert enrolled("status")[1]["slot"] == "b"
    assert enrolled("once")[1]["result"] == "up-to-date"


def test_a_model_that_kills_its_process(enrolled, fleet, tmp_path: Path, monkeypatch) -> None:
    """A crash in the runtime must not be the agent's."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'boardwright.agent.check' in sys.orig_argv: os.abort()\n"
    )
    fleet.release(1)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
        code, said = enrolled("once")
    assert (code, said["reason"]) == (3, "RUNTIME_CRASHED") and "signal 6" in said["message"]


def test_killed_at_random_moments_a_slot_always_works(enrolled, fleet) -> None:
    fleet.release(1, scale=1.0)
    enrolled("once")
    fleet.server.fault.slow_bytes_per_second = 3 * MEGABYTE
    moments = random.Random(7)
    for number in range(2, 8):
        fleet.release(number, scale=float(number), padding_bytes=MEGABYTE)
        process = start(enrolled.home, "once", "-q")
        time.sleep(moments.uniform(0.2, 1.9))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert enrolled.run_model() in (number - 1.0, float(number))
        fleet.server.fault.slow_bytes_per_second = 0
        assert enrolled("once")[0] == 0
        assert enrolled.run_model() == float(number)
        fleet.server.fault.slow_bytes_per_second = 3 * MEGABYTE
    assert sorted(path.name for path in (enrolled.home / "slots").iterdir()) == ["a", "b"]
    assert not list((enrolled.home / "downloads").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_keeps_the_device_up_to_date_until_stopped(enrolled, fleet, number: int) -> None:
    process = start(enrolled.home, "run", "--interval", "1")
    try:
        wait_for(lambda: bool(fleet.server.reports))
        fleet.release(1, scale=2.0)
        wait_for(lambda: any(report["kind"] == "installed" for report in fleet.server.reports))
    finally:
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    kinds = [report["kind"] for report in fleet.server.reports]
    assert kinds[:2] == ["seen", "installed"]
    fleet.server.reports.clear()
    process = start(enrolled.home, "run", "--interval", "60")
    try:
        wait_for(lambda: bool(fleet.server.reports))  # a start is always reported
    finally:
        process.send_signal(number)
        process.communicate(timeout=10)
    assert [json.loads(line)["result"] for line in out.splitlines()][:1] == ["nothing-assigned"]
    assert b"MiB" in err and b"running the golden samples" in err


def test_run_stops_in_the_middle_of_a_download(enrolled, fleet) -> None:
    bundle = fleet.release(1, padding_bytes=4 * MEGABYTE)
    fleet.server.fault.slow_bytes_per_second = MEGABYTE // 4
    part = enrolled.home / "downloads" / f"{bundle.file('model').digest.hex}.part"
    process = start(enrolled.home, "run")
    wait_for(lambda: part.exists() and part.stat().st_size > 0)
    begun = time.monotonic()
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, b""), err
    assert time.monotonic() - begun < 10
    assert 0 < part.stat().st_size < 4 * MEGABYTE
    fleet.server.fault.slow_bytes_per_second = 0
    assert enrolled("once")[1]["result"] == "installed"
