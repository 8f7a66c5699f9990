"""build/measure: figures, their provenance, and refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boardwright.builder.steps import measure
from boardwright.builder.steps.kinds import MEASURE, golden_input, model_input, weights_input
from boardwright.jobs.step_api import InputFile, StepError, StepRequest, StepResult, ignore_progress
from boardwright.testing import sample_graphs

Build = Callable[..., StepResult]
DIGEST = "sha256:" + "2" * 64


def _measure(tmp_path: Path, builds: dict[str, StepResult], **parameters: Any) -> StepResult:
    inputs, subjects = {}, []
    for number, (name, built) in enumerate(builds.items()):
        # A worker hands files over by the name of the input: no suffix tells the format.
        model = tmp_path / f"input-{number}"
        model.write_bytes(built.outputs[built.values["entry"]].path.read_bytes())
        inputs[model_input(number)] = InputFile(model, DIGEST, "application/octet-stream")
        beside = built.outputs.get("model.bin")
        if beside is not None:
            weights = tmp_path / f"weights-{number}"
            weights.write_bytes(beside.path.read_bytes())
            inputs[weights_input(number)] = InputFile(weights, DIGEST, "application/octet-stream")
        inputs[golden_input(number)] = InputFile(built.outputs["golden.npz"].path, DIGEST, "")
        settings = built.values["runtime_settings"]
        subjects.append({"name": name, "pin": built.values["pin"], "runtime_settings": settings})
    out = tmp_path / "measured"
    out.mkdir(exist_ok=True)
    values = {**MEASURE.defaults, "subjects": subjects, "runs": 20, "warm_up_runs": 2, **parameters}
    return measure.run(StepRequest("build/measure", values, inputs, 0, out), ignore_progress)


@pytest.fixture
def pair(run_build: Build, tmp_path: Path) -> dict[str, StepResult]:
    """Return a float build and one quantized for any x86 machine, for this board."""
    narrow = sample_graphs.write_quantized_classifier(tmp_path / "i.onnx", weight_bits=7)
    return {
        "baseline": run_build(sample_graphs.write_classifier(tmp_path / "f.onnx")),
        "int8": run_build(narrow),
    }


@pytest.fixture(autouse=True)
def _on_x86() -> None:
    from boardwright.model.host import detect_host

    if detect_host().board != "x86-64":
        pytest.skip("the artifacts of these tests are for an x86-64 host")


def test_both_are_measured_side_by_side(tmp_path: Path, pair: dict[str, StepResult]) -> None:
    result = _measure(tmp_path, pair, baseline=0)
    baseline, int8 = result.values["subjects"]
    assert baseline["origin"] == int8["origin"] == "measured"
    assert [entry["threads"] for entry in int8["latency"]] == [1, 0]
    for entry in int8["latency"]:
        assert entry["runs"] == 20 and entry["rounds"] == 2
        assert 0 < entry["min_ms"] <= entry["p50_ms"] <= entry["p95_ms"] <= entry["p99_ms"]
        assert entry["speedup_low"] <= entry["speedup"] <= entry["speedup_high"]
    assert "speedup" not in baseline["latency"][0]
    assert int8["memory"]["peak_rss_bytes"] >= int8["memory"]["runtime_rss_bytes"] > 10 << 20
    assert not _besides_noise(result)


def _besides_noise(result: StepResult) -> list[str]:
    """The warnings, but for the one of a busy host: other tests may run beside this one."""
    return [warning for warning in result.warnings if not warning.startswith("The host was busy")]


def test_every_single_time_is_kept(tmp_path: Path, pair: dict[str, StepResult]) -> None:
    result = _measure(tmp_path, pair, runs=25)
    runs = json.loads(result.outputs["runs.json"].path.read_bytes())
    assert [(lane["subject"], lane["threads"]) for lane in runs["lanes"]] == [
        ("baseline", 1),
        ("baseline", 0),
        ("int8", 1),
        ("int8", 0),
    ]
    assert [[len(block) for block in lane["rounds"]] for lane in runs["lanes"]] == [[10, 10, 5]] * 4


def test_where_it_was_measured_is_told(tmp_path: Path, pair: dict[str, StepResult]) -> None:
    host = _measure(tmp_path, pair).values["host"]
    assert host["pin"]["board"] == "x86-64" and host["pin"]["runtime"] == "onnxruntime"
    assert host["machine"] and host["cpus"] >= 1
    assert {"load_average_1m", "stolen_share", "preemptions"} <= host.keys()


def test_a_figure_of_another_board_is_refused(run_build: Build, tmp_path: Path) -> None:
    arm = run_build(sample_graphs.write_classifier(tmp_path / "f.onnx"), "raspberry-pi-5", "ort-format")
    with pytest.raises(StepError, match="built for board raspberry-pi-5") as caught:
        _measure(tmp_path, {"arm": arm})
    assert caught.value.reason == "BOARD_NEEDS_AGENT"


def test_or_marked_as_emulated_and_never_compared(
    run_build: Build, tmp_path: Path, pair: dict[str, StepResult]
) -> None:
    graph = sample_graphs.write_classifier(tmp_path / "f.onnx")
    arm = run_build(graph, "raspberry-pi-5", "ort-format")
    result = _measure(tmp_path, {**pair, "arm": arm}, baseline=0, allow_emulated=True)
    assert [subject["origin"] for subject in result.values["subjects"]] == [
        "measured",
        "measured",
        "emulated",
    ]
    emulated = result.values["subjects"][2]
    assert emulated["board"] == "raspberry-pi-5" and emulated["emulated_because"]
    assert all("speedup" not in entry for entry in emulated["latency"])
    assert any("emulated" in warning for warning in result.warnings)


def test_a_model_that_computes_something_else_is_not_measured(
    tmp_path: Path, pair: dict[str, StepResult]
) -> None:
    swapped = StepResult(
        {**pair["baseline"].outputs, "golden.npz": _other_golden(tmp_path, pair["baseline"])},
        pair["baseline"].values,
    )
    with pytest.raises(StepError, match="Build it again") as caught:
        _measure(tmp_path, {"baseline": swapped})
    assert caught.value.reason == "GOLDEN_SAMPLES_FAILED"


def _other_golden(tmp_path: Path, built: StepResult):  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from boardwright.jobs.step_api import OutputFile
    from boardwright.model.golden import GoldenSamples

    golden = GoldenSamples.from_bytes(built.outputs["golden.npz"].path.read_bytes())
    wrong = replace(golden, outputs={name: array + 1 for name, array in golden.outputs.items()})
    path = tmp_path / "wrong.npz"
    path.write_bytes(wrong.to_bytes())
    return OutputFile(path, "")


def test_runs_are_cut_to_the_time_there_is(tmp_path: Path, pair: dict[str, StepResult]) -> None:
    result = _measure(tmp_path, pair, runs=10_000_000, max_seconds=1e-9)
    assert result.values["subjects"][0]["latency"][0]["runs"] == 10
    assert "10 runs instead of 10000000" in _besides_noise(result)[0]


def test_a_runtime_that_is_not_here_is_named(tmp_path: Path, pair: dict[str, StepResult]) -> None:
    values = {**pair["baseline"].values}
    values["pin"] = {**values["pin"], "runtime": "tensorrt", "runtime_version": "10.3.0"}
    with pytest.raises(StepError, match="tensorrt") as caught:
        _measure(tmp_path, {"engine": StepResult(pair["baseline"].outputs, values)})
    assert caught.value.reason == "RUNTIME_UNSUPPORTED"


@pytest.fixture
def openvino() -> None:
    from boardwright.toolchains.openvino_session import runtime_version

    if not runtime_version():
        pytest.skip("OpenVINO is not installed (pip install openvino)")


@pytest.mark.usefixtures("openvino")
def test_two_runtimes_are_measured_side_by_side(run_build: Build, tmp_path: Path) -> None:
    graph = sample_graphs.write_quantized_classifier(tmp_path / "i.onnx", weight_bits=7)
    builds = {name: run_build(graph, "x86-64", name) for name in ("onnxruntime", "openvino")}
    result = _measure(tmp_path, builds, baseline=0)
    ours, theirs = result.values["subjects"]
    assert ours["origin"] == theirs["origin"] == "measured"
    assert [entry["threads"] for entry in theirs["latency"]] == [1, 0]
    assert all(entry["speedup"] > 0 for entry in theirs["latency"])
    files = builds["openvino"].outputs
    assert theirs["model_size_bytes"] == sum(
        files[name].path.stat().st_size for name in ("model.xml", "model.bin")
    )
    assert theirs["memory"]["peak_rss_bytes"] >= theirs["memory"]["runtime_rss_bytes"] > 10 << 20
    pins = [subject["host_pin"] for subject in result.values["subjects"]]
    assert [pin["runtime"] for pin in pins] == ["onnxruntime", "openvino"]
    assert all(pin["runtime_version"] for pin in pins)
    assert not _besides_noise(result)


@pytest.mark.usefixtures("openvino")
def test_a_figure_of_another_openvino_is_no_measurement(run_build: Build, tmp_path: Path) -> None:
    built = run_build(sample_graphs.write_classifier(tmp_path / "f.onnx"), "x86-64", "openvino")
    values = {**built.values, "pin": {**built.values["pin"], "runtime_version": "2020.1.0"}}
    with pytest.raises(StepError, match=r"needs openvino 2020\.1\.0") as caught:
        _measure(tmp_path, {"old": StepResult(built.outputs, values)})
    assert caught.value.reason == "BOARD_NEEDS_AGENT"
