"""optimize, job outputs and the written report, on a real stack, with a small network of real digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SETS = ("max-drop=2,max-size-mb=0.02", "max-drop=2,max-size-mb=0.001")
LADDER = ("--recipe", "baseline", "--recipe", "quick")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx (a multi-layer perceptron on 8×8 images), input.json, calibration/ and evaluation/."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8)
    network = MLPClassifier((96,), max_iter=40, random_state=7, tol=0.0, n_iter_no_change=40)
    with np.errstate(all="ignore"), pytest.warns(match="Maximum iterations"):
        network.fit(images[:1200] / 255, labels[:1200])
    held = [
        numpy_helper.from_array(np.asarray(array, np.float32), name)
        for name, array in (
            ("w0", network.coefs_[0]), ("b0", network.intercepts_[0]),
            ("w1", network.coefs_[1]), ("b1", network.intercepts_[1]),
        )
    ]  # fmt: skip
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w0", "b0"], ["hidden"], "hidden"),
        helper.make_node("Relu", ["hidden"], ["positive"], "relu"),
        helper.make_node("Gemm", ["positive", "w1", "b1"], ["scores"], "scores"),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    spec = {"schema": "input-spec/1", "name": "image", "height": 8, "width": 8, "channels": 1,
            "color": "GRAY", "scale": 1 / 255, "resize": "stretch"}  # fmt: skip
    (folder / "input.json").write_text(json.dumps(spec))
    for role, chosen in (("calibration", range(60)), ("evaluation", range(1200, 1400))):
        for number in chosen:
            path = folder / role / str(labels[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number].reshape(8, 8)).save(path)
    return folder


@pytest.fixture(scope="session")
def pushed(boardwright: Any, digits: Path) -> tuple[str, ...]:
    """The version and its datasets, as `optimize` takes them."""
    boardwright.json(
        "push", "perceptron", str(digits / "model.onnx"), "--input-spec", str(digits / "input.json"),
        "--task", "classification",
    )  # fmt: skip
    for role in ("calibration", "evaluation"):
        boardwright.json("dataset", "add", f"perceptron-{role}", str(digits / role))
    return (
        "perceptron@1", "--calibration", "perceptron-calibration", "--evaluation", "perceptron-evaluation",
    )  # fmt: skip


@pytest.fixture(scope="session")
def optimized(boardwright: Any, pushed: tuple[str, ...]) -> dict[str, Any]:
    """Two sets of constraints in one search, the second beyond reach: its exit code is 3."""
    sets = [word for text in SETS for word in ("--constraints", text)]
    done = boardwright.run("optimize", *pushed, *sets, *LADDER, "--runs", "20", "-o", "json", timeout=170)
    assert done.returncode == 3, done.stderr
    assert "[NOTHING_SATISFIES]" in done.stderr and "baseline (1 of 2)" in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_optimize_finds_the_cheapest_that_satisfies_and_says_why_not_the_others(
    optimized: dict[str, Any],
) -> None:
    good, beyond = optimized["outcomes"]
    assert (good["choice"], good["variant"].rpartition("/")[2]) == ("quick", "quick")
    judged = {held["candidate"]: held for held in good["judgements"]}
    assert judged["baseline"]["verdict"] == "misses" and "over 0.02 MB" in judged["baseline"]["reason"]
    assert judged["quick"]["verdict"] == "satisfies" and "top-1" in judged["quick"]["reason"]
    assert (beyond["choice"], optimized["satisfied"]) == ("", False)
    assert beyond["reason"].startswith("no candidate satisfies; quick comes nearest: size")
    attempts = {held["candidate"]: held for held in optimized["attempts"]}
    (figures,) = attempts["quick"]["boards"].values()
    assert figures["accuracy"] > 0.85 and abs(figures["drop_points"]) <= 2
    assert figures["latencies_ms"]["1"]["p95_ms"] > 0 and figures["memory_bytes"] > 0
    assert figures["latencies_ms"]["1"]["speedup"] > 0, "measured beside the baseline"


def test_again_nothing_runs(boardwright: Any, pushed: tuple[str, ...], optimized: dict[str, Any]) -> None:
    again = boardwright.json("optimize", *pushed, "--constraints", SETS[0], *LADDER, "--runs", "20")
    assert [attempt["cached"] for attempt in again["attempts"]] == [True, True]
    assert again["outcomes"][0]["choice"] == "quick"
    first = {held["candidate"]: held["boards"] for held in optimized["attempts"]}
    for attempt in again["attempts"]:
        (board,) = attempt["boards"]
        for name in ("accuracy", "artifact", "size_bytes"):
            assert attempt["boards"][board][name] == first[attempt["candidate"]][board][name]


def test_a_board_elsewhere_is_unknown_and_never_estimated(
    boardwright: Any, pushed: tuple[str, ...], optimized: dict[str, Any]
) -> None:
    done = boardwright.run(
        "optimize", *pushed, "--board", "raspberry-pi-5", "--max-latency-ms", "1000", *LADDER, "-o", "json"
    )
    assert done.returncode == 3
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert (outcome["choice"], outcome["undecided"]) == ("", "quick")
    assert "no measurement for that board" in outcome["reason"]
    assert {held["verdict"] for held in outcome["judgements"]} == {"unknown"}


def test_a_failure_is_remembered_until_retry(
    boardwright: Any, pushed: tuple[str, ...], optimized: dict[str, Any], tmp_path: Path
) -> None:
    recipe = tmp_path / "broken.yaml"
    recipe.write_text(
        "version: 1\nname: broken\npasses:\n- pass: import\n- pass: evaluate\n"
        "- pass: quantize\n  profile: {activation_type: int3}\n- pass: evaluate\n"
    )
    command = ("optimize", *pushed, "--max-drop", "50", "--max-size-mb", "0.001",
               "--recipe", str(recipe), "-o", "json")  # fmt: skip
    known = []
    for options in ((), (), ("--retry",)):
        done = boardwright.run(*command, *options)
        assert done.returncode == 3, done.stderr
        failure = json.loads(done.stdout)["attempts"][-1]["failure"]
        assert (failure["step"], failure["reason"]) == ("quantize-int8", "SCHEME_UNKNOWN")
        known.append(failure["known"])
    assert known == [False, True, False]


def test_what_is_missing_is_told_before_anything_runs(boardwright: Any, pushed: tuple[str, ...]) -> None:
    assert (
        boardwright.refused(2, "optimize", "perceptron@1", "--max-drop", "1")["reason"] == "DATASET_MISSING"
    )
    assert boardwright.run("optimize", *pushed, "--constraints", "max-drp=1").returncode == 2
    error = boardwright.refused(2, "optimize", *pushed, "--max-drop", "1", "--recipe", "defalt")
    assert error["reason"] == "RECIPE_INVALID"


def test_the_files_of_steps_can_be_fetched(
    boardwright: Any, optimized: dict[str, Any], tmp_path: Path
) -> None:
    job = next(held["job"] for held in optimized["attempts"] if held["candidate"] == "quick")
    listed = boardwright.json("job", "outputs", job)
    assert {(held["step"], held["name"]) for held in listed} >= {
        ("import", "model.onnx"), ("observe-baseline", "calibration-record.json"),
        ("evaluate-quick", "evaluation.json"),
    }  # fmt: skip
    paths = boardwright.json("job", "download", job, str(tmp_path), "--file", "evaluation.json")
    assert paths == [str(tmp_path / f"evaluate-{name}" / "evaluation.json") for name in ("baseline", "quick")]
    assert json.loads(Path(paths[1]).read_text())["accuracy"]["top1"] > 0.85
    assert boardwright.refused(3, "job", "outputs", job, "nonsense")["reason"] == "STEP_NOT_FOUND"
    refused = boardwright.refused(3, "job", "download", job, str(tmp_path), "--file", "nonsense")
    assert refused["reason"] == "OUTPUT_NOT_FOUND" and "evaluate-quick/evaluation.json" in refused["message"]


def test_a_full_report_makes_what_is_missing_and_tells_what_the_steps_left(
    boardwright: Any, pushed: tuple[str, ...], optimized: dict[str, Any], tmp_path: Path
) -> None:
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    rows = boardwright.json(
        "report", *pushed, "--full", "--recipe", "quick", "--runs", "20",
        "--html", str(html), "--markdown", str(markdown),
    )  # fmt: skip
    assert {row["variant"] for row in rows} >= {"baseline", "quick"}
    page, text = html.read_text(), markdown.read_text()
    for part in ("Report on perceptron@1", "Precisions", "INT8 static", "Activation ranges", "<svg"):
        assert part in page
    assert "## Deployment" in text and "boardwright report perceptron@1 --full" in text
    assert (tmp_path / "r-plots" / "pareto.svg").is_file()
    assert boardwright.refused(3, "report", "nobody@1", "--html", str(html))["reason"] == "VERSION_NOT_FOUND"
