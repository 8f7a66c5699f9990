"""The main job, twice: all the way to a healthy device, then with nothing left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


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


def test_a_dataset_is_needed_for_one_s_own_model(boardwright: Any, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    error = boardwright.refused(2, "demo", "--checkpoint", str(tmp_path / "m.onnx"))
    assert error["reason"] == "DATASET_MISSING"
