"""The main job, twice: all the way to a healthy device, then with nothing left to do."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boardwright.cli.embedded import stack


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_main_job_reaches_a_device_and_repeats_nothing(boardwright: Any) -> None:
    first = boardwright.json("demo", timeout=400)
    assert [stage["stage"] for stage in first["stages"]] == [
        "start", "train", "push", "calibration", "evaluation", "compile", "build", "measure", "release",
        "promote", "enrol", "roll out",
    ]  # fmt: skip
    rows = {row["variant"]: row for row in first["report"]}
    small = next(row for row in first["report"] if row["variant"].startswith("int8") and row["p95_ms"])
    assert rows["baseline"]["accuracies"]["top1"] > 0.97
    assert small["accuracies"]["top1"] > 0.96
    assert small["size_bytes"] < 0.5 * rows["baseline"]["size_bytes"]
    assert small["measured_on"] == small["board"]
    elsewhere = next(row for row in first["report"] if row["board"] == "raspberry-pi-5")
    assert elsewhere["p95_ms"] is None, "no figure of this machine may be shown as a board's"

    again = boardwright.json("demo", timeout=200)
    assert [stage["stage"] for stage in again["stages"] if not stage["reused"]] == []
    assert again["device"] == first["device"]
    assert again["report"] == first["report"]

    device = boardwright.json("device", "show", "digits-fleet/device-1")
    assert device["state"] == "STATE_HEALTHY"
    assert device["release"] == boardwright.json("show", "digits@production")["name"]
    history = boardwright.json("history", "digits")
    assert [(entry["kind"], entry["reason"]) for entry in history] == [("KIND_PROMOTE", "demonstration")]
    tree = boardwright.run("lineage", "digits@production", "--depth", "20").stdout
    assert "compile/quantize" in tree and "digits.pt" in tree
    kinds = [report["kind"] for report in boardwright.json("device", "reports", "digits-fleet/device-1")]
    assert "installed" in kinds


def test_a_run_that_is_ended_leaves_no_service_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "boardwright.cli", "--data", str(tmp_path), "demo"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        while "1/12  start" not in (line := demo.stderr.readline()):
            assert line, "the services did not start"
        assert stack.status(tmp_path).running
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=60)
    assert demo.returncode == 128 + signal.SIGTERM
    assert not stack.status(tmp_path).running


def test_a_dataset_is_needed_for_one_s_own_model(boardwright: Any, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    error = boardwright.refused(2, "demo", "--checkpoint", str(tmp_path / "m.onnx"))
    assert error["reason"] == "DATASET_MISSING"
