"""The step process's own parts: progress lines, the result file, kinds and requests."""

import io
import json
from pathlib import Path

import pytest

from boardwright.jobs import confinement, step
from boardwright.jobs.step import FileProgress, main, write_result
from boardwright.jobs.step_api import (
    InputFile,
    Requirements,
    StepError,
    StepKind,
    StepRequest,
    StepResult,
    kind_of,
)
from boardwright.testing import sample_steps


def test_progress_is_thinned_but_never_loses_a_stages_end() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = FileProgress(stream, lambda: now[0])
    for done in range(101):
        now[0] += 0.001
        progress(done, 100, "tracing")
    progress(0, 0, "writing")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) <= 5
    assert lines[-2] == {"done": 100, "total": 100, "what": "tracing"}
    assert lines[-1] == {"done": 0, "total": 0, "what": "writing"}


def test_the_result_appears_whole(tmp_path: Path) -> None:
    write_result(tmp_path, {"outcome": "succeeded"})
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("closed", [True, False])
def test_a_step_that_saw_all_files_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    monkeypatch.syspath_prepend(sample_steps.install(tmp_path / "kinds"))
    monkeypatch.setattr(confinement, "confine", lambda limits: None)
    monkeypatch.setattr(confinement, "close_files", lambda folders, inputs: closed)
    (tmp_path / "text").write_text("digits")
    text = {"path": str(tmp_path / "text"), "digest": "sha256:" + "0" * 64, "media_type": "text/plain"}
    request = {"kind": "sample/upper", "parameters": {"suffix": ""}, "inputs": {"text": text}, "seed": 0}
    (tmp_path / "request.json").write_text(json.dumps({**request, "outputs_dir": str(tmp_path)}))
    assert main([str(tmp_path)]) == 0
    warnings = json.loads((tmp_path / "result.json").read_text())["warnings"]
    assert any("no Landlock" in warning for warning in warnings) is not closed


@pytest.mark.parametrize("taken_for_damage", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        ValueError("Non-zero status code returned while running Conv node: std::bad_alloc"),
    ],
)
def test_a_library_s_own_word_for_too_little_memory_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, taken_for_damage: bool
) -> None:
    def hungry(request: StepRequest, progress: object) -> StepResult:
        if taken_for_damage:
            raise StepError("CHECKPOINT_UNREADABLE", "save it again") from error
        raise error

    monkeypatch.setattr(step, "find_function", lambda kind: hungry)
    request = {
        "kind": "sample/hoard",
        "parameters": {},
        "inputs": {},
        "seed": 0,
        "outputs_dir": str(tmp_path),
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    failure = step.perform(tmp_path)["error"]
    assert (failure["reason"], failure["deterministic"]) == ("OUT_OF_MEMORY", True)
    assert "smaller" in failure["message"]


def test_a_missing_input_is_named_with_those_there_are(tmp_path: Path) -> None:
    given = {"labels": InputFile(tmp_path, "sha256:" + "0" * 64, "text/plain")}
    request = StepRequest("compile/import", {}, given, 0, tmp_path)
    assert request.input("labels") is given["labels"]
    with pytest.raises(StepError, match="needs the input 'model'; the inputs given are: labels") as caught:
        request.input("model")
    assert caught.value.reason == "INPUT_MISSING"


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "x" * 200])
def test_an_output_is_a_plain_file_name(tmp_path: Path, name: str) -> None:
    request = StepRequest("compile/import", {}, {}, 0, tmp_path)
    assert request.output_path("model.onnx") == tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="plain file name"):
        request.output_path(name)


def test_kinds_and_requirements_are_checked() -> None:
    with pytest.raises(ValueError, match="area/name"):
        StepKind("quantize", "1")
    with pytest.raises(ValueError, match="no version"):
        StepKind("compile/quantize", "")
    with pytest.raises(ValueError, match="positive"):
        Requirements(memory_bytes=0)


def test_a_function_knows_its_kind() -> None:
    assert kind_of(sample_steps.upper) is sample_steps.UPPER
    assert kind_of(sample_steps.refuse) is None
