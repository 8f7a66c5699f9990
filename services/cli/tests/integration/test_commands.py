"""The commands on a real stack: push to rollout with a small classifier, and what is refused on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boardwright.testing.sample_graphs import sample_images, write_classifier

SPEC = {"schema": "input-spec/1", "name": "input", "resize": "stretch"}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, input.json, and images/ of two classes."""
    import onnx

    folder = tmp_path_factory.mktemp("files")
    write_classifier(folder / "model.onnx")
    graph_input = onnx.load(folder / "model.onnx").graph.input[0]
    _, channels, height, width = (axis.dim_value for axis in graph_input.type.tensor_type.shape.dim)
    assert sample_images(1).shape[1:] == (channels, height, width)
    spec = SPEC | {"name": graph_input.name, "height": height, "width": width, "channels": channels}
    (folder / "input.json").write_text(json.dumps(spec))
    random = np.random.default_rng(7)
    for number in range(12):
        path = folder / "images" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="session")
def pushed(boardwright: Any, files: Path) -> dict[str, Any]:
    """One version with its metadata."""
    version: dict[str, Any] = boardwright.json(
        "push", "small", str(files / "model.onnx"), "--input-spec", str(files / "input.json"),
        "--task", "classification", "--commit", "abc123", "--run", "https://example.org/run/1",
        "--metric", "top1=0.5", "--label", "site=north", "--request-id", "first",
    )  # fmt: skip
    return version


@pytest.fixture(scope="session")
def dataset(boardwright: Any, files: Path) -> str:
    boardwright.json("dataset", "add", "pictures", str(files / "images"))
    return "pictures@1"


def test_a_push_records_what_ci_says(pushed: dict[str, Any], boardwright: Any) -> None:
    assert pushed["name"] == "projects/default/models/small/versions/1"
    assert (pushed["commit"], pushed["run"]) == ("abc123", "https://example.org/run/1")
    assert (pushed["metrics"], pushed["labels"]) == ({"top1": 0.5}, {"site": "north"})
    assert boardwright.json("show", "small@1") == pushed
    assert "abc123" in boardwright.run("ls", "small").stdout


def test_the_same_request_gives_the_same_version(
    pushed: dict[str, Any], boardwright: Any, files: Path
) -> None:
    again = boardwright.json(
        "push", "small", str(files / "model.onnx"), "--input-spec", str(files / "input.json"),
        "--task", "classification", "--commit", "abc123", "--run", "https://example.org/run/1",
        "--metric", "top1=0.5", "--label", "site=north", "--request-id", "first",
    )  # fmt: skip
    assert again == pushed


def test_a_dataset_is_sealed_with_its_statistics(dataset: str, boardwright: Any) -> None:
    shown = boardwright.json("dataset", "show", dataset)
    assert (shown["state"], shown["sample_count"], shown["labelled_count"]) == ("STATE_SEALED", 12, 12)
    assert shown["statistics"]["class_counts"] == {"0": 6, "1": 6}


def test_a_bad_image_is_named_and_left_out_only_when_asked(
    boardwright: Any, files: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(files / "images", tmp_path / "images")
    (tmp_path / "images" / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    error = boardwright.refused(3, "dataset", "add", "broken", str(tmp_path / "images"))
    assert error["reason"] == "SAMPLES_INVALID"
    assert "broken.png" in error["message"] and "--skip-invalid" in error["message"]
    version = boardwright.json("dataset", "add", "broken", str(tmp_path / "images"), "--skip-invalid")
    assert version["name"].endswith("/versions/1"), "the refused one left no open version behind"
    assert version["sample_count"] == 12


def test_a_recipe_runs_and_its_second_run_comes_from_the_cache(
    pushed: dict[str, Any], dataset: str, boardwright: Any, tmp_path: Path
) -> None:
    recipe = tmp_path / "import.yaml"
    recipe.write_text("version: 1\nname: mine\npasses:\n  - pass: import\n")
    first = boardwright.json("compile", "small@1", "--recipe", str(recipe))
    assert first["state"] == "STATE_SUCCEEDED"
    again = boardwright.json("compile", "small@1", "--recipe", str(recipe))
    assert [step["cached"] for step in again["steps"]] == [True]
    job = again["name"].removeprefix("projects/default/")
    assert boardwright.json("job", "show", job)["name"] == again["name"]
    assert job in boardwright.run("job", "ls").stdout
    variant = boardwright.json("show", "small@1/baseline")
    assert variant["recipe"]
    assert "model.onnx" in boardwright.run("lineage", "small@1/baseline").stdout


def test_what_a_job_made_can_be_shown(boardwright: Any, pushed: Any, dataset: str) -> None:
    done = boardwright.json("compile", "small@1", "--recipe", "baseline", "--evaluation", dataset)
    made = [name for name in done["results"] if "/measurements/" in name]
    short = "small@1/baseline/" + made[0].rpartition("/")[2]
    shown = boardwright.json("show", short)
    assert shown["name"] == made[0] and shown["values"] == boardwright.json("show", made[0])["values"]
    assert shown["kind"] in boardwright.run("show", short).stdout


def test_a_recipe_s_mistake_is_named_with_its_line(boardwright: Any, pushed: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("version: 1\nname: mine\npasses:\n  - pass: import\n  - pass: quantise\n")
    error = boardwright.refused(2, "compile", "small@1", "--recipe", str(recipe))
    assert "line 5" in error["message"]
    assert "quantize" in error["message"]


@pytest.mark.parametrize(
    ("code", "reason", "arguments"),
    [
        (3, "MODEL_NOT_FOUND", ("ls", "nothing")),
        (3, "VERSION_NOT_FOUND", ("show", "small@99")),
        (2, "REFERENCE_INVALID", ("show", "Not A Name")),
        (3, "FLEET_NOT_FOUND", ("fleet", "show", "nothing")),
        (2, "CHECKPOINT_NOT_FOUND", ("push", "small", "missing.onnx")),
        (3, "BOARD_NOT_FOUND", ("build", "small@1/baseline", "--board", "raspberry-pi-55")),
    ],
)
def test_refusals_have_a_code_a_reason_and_words(
    boardwright: Any, pushed: Any, code: int, reason: str, arguments: tuple[str, ...]
) -> None:
    assert boardwright.refused(code, *arguments)["reason"] == reason


def test_gates_fleets_and_devices(boardwright: Any, pushed: Any) -> None:
    gates = boardwright.json(
        "gate", "set", "small", "production", "--accuracy-drop", "top1=1", "--latency", "x86-64:p95=20"
    )
    assert [gate["stage"] for gate in gates] == ["production", "production"]
    assert "top1 drops by at most 1 points" in boardwright.run("gate", "ls", "small").stdout
    fleet = boardwright.json("fleet", "create", "cameras", "--model", "small", "--stage", "production")
    assert fleet["name"] == "projects/default/fleets/cameras"
    token = boardwright.json("fleet", "token", "cameras")
    assert token["token"].startswith("bwe1.")
    assert boardwright.json("device", "ls", "cameras") == []
    assert boardwright.json("rollout", "ls") == []


def test_a_refused_promotion_says_what_is_missing(boardwright: Any, pushed: Any) -> None:
    error = boardwright.refused(3, "promote", "small", "production")
    assert error["reason"] == "RELEASE_NOT_FOUND"


def test_without_a_server_it_says_how_to_start_one(boardwright: Any, tmp_path: Path) -> None:
    from dataclasses import replace

    error = replace(boardwright, data=tmp_path / "none").refused(4, "ls")
    assert error["reason"] == "NO_SERVER"
    assert "boardwright up" in error["message"]


def test_status_and_doctor_see_the_stack(boardwright: Any) -> None:
    held = boardwright.json("status")
    assert held["ready"] and {process["name"] for process in held["processes"]} >= {"registry", "gateway"}
    findings = {finding["check"]: finding["state"] for finding in boardwright.json("doctor")}
    assert findings["server"] == findings["delivery"] == "ok"


def test_catalogues(boardwright: Any) -> None:
    boards = {board["name"] for board in boardwright.json("ls", "boards")}
    assert {"boards/raspberry-pi-5", "boards/x86-64"} <= boards
    assert any(toolchain["waits_for"] for toolchain in boardwright.json("ls", "toolchains"))
    assert "default" in boardwright.run("ls", "recipes").stdout


def test_login_is_checked_before_it_is_stored(boardwright: Any, tmp_path: Path) -> None:
    held = boardwright.json("status")
    done = boardwright.run("login", held["grpc"], "--token", "wrong")
    assert done.returncode == 3
    assert "TOKEN_UNKNOWN" in done.stderr


def test_from_version_to_rollout_by_commands(
    pushed: Any, dataset: str, boardwright: Any, tmp_path: Path
) -> None:
    recipe = tmp_path / "import.yaml"
    recipe.write_text("version: 1\nname: mine\npasses:\n  - pass: import\n")
    boardwright.json("compile", "small@1", "--recipe", str(recipe))
    built = boardwright.json("build", "small@1/baseline", "--board", "host", "--golden", dataset)
    artifact = next(name for name in built["results"] if "/artifacts/" in name)
    measured = boardwright.json("measure", "small@1/baseline", "--runs", "20")
    assert measured["state"] == "STATE_SUCCEEDED"
    row = boardwright.json("report", "small@1")[0]
    assert row["variant"] == "baseline" and row["p95_ms"] > 0 and row["measured_on"] == row["board"]
    release = boardwright.json("release", "small@1/baseline")
    assert [entry["artifact"] for entry in release["entries"]] == [artifact]
    assert boardwright.json("promote", "small@r1", "staging", "--dry-run")["passed"]
    boardwright.json("promote", "small@r1", "staging", "--reason", "first")
    assert boardwright.json("history", "small")[0]["reason"] == "first"
    boardwright.json("fleet", "create", "lab", "--model", "small", "--stage", "production")
    error = boardwright.refused(3, "rollout", "start", "lab", "small@staging")
    assert error["reason"] == "RELEASE_NOT_PROMOTED"
    done = [event["method"] for event in boardwright.json("history", "--audit", "--limit", "0")]
    assert done.index("CreateFleet") < done.index("PromoteRelease") < done.index("SealDatasetVersion")
    of_model = {event["resource"] for event in boardwright.json("history", "small", "--audit")}
    assert all(name.startswith("projects/default/models/small") for name in of_model) and of_model
    assert boardwright.run("ls", "small@r1").returncode == 2
    trace = pushed["traceparent"].split("-")[1]
    assert built["traceparent"].split("-")[1] == measured["traceparent"].split("-")[1] == trace
    assert release["traceparent"].split("-")[1] == trace, "one trace from the push on"
    rolled_back = boardwright.refused(3, "promote", "small", "staging", "--roll-back")
    assert rolled_back["reason"] == "NOTHING_TO_ROLL_BACK"


def test_a_given_token_is_the_one_that_is_shown(boardwright: Any) -> None:
    done = boardwright.run("--token", "bw_wrong", "ls", "-o", "json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["reason"] == "TOKEN_UNKNOWN"


def test_a_push_that_will_be_refused_uploads_nothing(boardwright: Any, files: Path) -> None:
    for model in ("BAD_ID", "brand-new"):
        done = boardwright.run(
            "push", model, str(files / "model.onnx"), "--input-spec", str(files / "input.json")
        )
        assert done.returncode == 2
        assert "uploading" not in done.stderr


def test_a_recipe_s_refusal_comes_before_the_push_or_names_what_was_pushed(
    boardwright: Any, files: Path
) -> None:
    push = (
        "push", "planned", str(files / "model.onnx"), "--input-spec", str(files / "input.json"),
        "--task", "classification", "--recipe", "default",
    )  # fmt: skip
    assert boardwright.refused(3, *push, "--calibration", "none")["reason"] == "DATASET_NOT_FOUND"
    assert boardwright.refused(3, "show", "planned")["reason"] == "MODEL_NOT_FOUND"
    error = boardwright.refused(3, *push)
    assert error["reason"] == "DATASET_MISSING"
    assert error["message"].startswith("planned@1 was pushed")
    assert error["metadata"]["pushed"] == "projects/default/models/planned/versions/1"


def test_what_is_not_there_is_refused_by_its_own_name(boardwright: Any) -> None:
    assert boardwright.refused(3, "history", "nope")["reason"] == "MODEL_NOT_FOUND"
    assert boardwright.refused(3, "show", "nope@r9")["reason"] == "RELEASE_NOT_FOUND"
    assert boardwright.run("compile", "nope@1", "--recipe", "missing.yaml").returncode == 2
