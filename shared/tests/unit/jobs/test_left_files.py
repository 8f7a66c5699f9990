"""Whatever lies where a step's files should lie: only plain files and true values get through."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from boardwright.jobs.left_files import claim_outputs, open_plain, read_result
from boardwright.jobs.step_api import StepError

Plant = Callable[[Path], None]


def _symlink(path: Path) -> None:
    path.symlink_to(_secret(path))


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _hard_link(path: Path) -> None:
    path.hardlink_to(_secret(path))


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        previous = Path.cwd()
        os.chdir(path.parent)  # the path itself may be longer than a socket's may be
        bound.bind(path.name)
        os.chdir(previous)


def _secret(path: Path) -> Path:
    secret = path.parent.parent / "secret"
    secret.write_text('{"outcome": "succeeded", "outputs": {}, "values": {}, "warnings": []}')
    return secret


PLANTS = [_symlink, _dangling, _hard_link, os.mkfifo, _folder, _socket]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", ["log.txt", "progress.jsonl", "result.json"])
def test_what_is_no_plain_file_is_refused_without_waiting(run: Path, plant: Plant, name: str) -> None:
    plant(run / name)
    with pytest.raises(StepError) as caught:
        open_plain(run / name)
    assert caught.value.reason == "STEP_FILE_REFUSED" and name in caught.value.message


def test_a_plain_file_is_read(run: Path) -> None:
    (run / "log.txt").write_text("words")
    with open_plain(run / "log.txt") as stream:
        assert stream.read() == b"words"
    with pytest.raises(FileNotFoundError):
        open_plain(run / "none")


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("path", ["text", "below/text"])
def test_an_output_is_a_plain_file_of_its_folder(run: Path, plant: Plant, path: str) -> None:
    outputs = run / "outputs"
    (outputs / path).parent.mkdir(parents=True)
    plant(outputs / path)
    with pytest.raises(StepError) as caught:
        claim_outputs({"text": (path, "text/plain")}, outputs, run / "claimed")
    assert caught.value.reason == "OUTPUT_MISSING"


@pytest.mark.parametrize(
    "told", ["", ".", "..", "../run/outputs/text", "/etc/passwd", "none", "text/more", "\0"]
)
def test_an_output_is_named_below_its_folder(run: Path, told: str) -> None:
    (run / "outputs").mkdir()
    (run / "outputs" / "text").write_text("A")
    with pytest.raises(StepError) as caught:
        claim_outputs({"text": (told, "text/plain")}, run / "outputs", run / "claimed")
    assert caught.value.reason == "OUTPUT_MISSING"


@pytest.mark.parametrize("inside", [False, True])
def test_a_linked_folder_leads_no_output_away(run: Path, inside: bool) -> None:
    elsewhere = run / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "text").write_text("a token")
    outputs, path = run / "outputs", "text"
    if inside:
        outputs.mkdir()
        (outputs / "below").symlink_to(elsewhere)
        path = "below/text"
    else:
        outputs.symlink_to(elsewhere)
    with pytest.raises(StepError):
        claim_outputs({"text": (path, "text/plain")}, outputs, run / "claimed")


def test_outputs_are_taken_out_of_the_steps_reach(run: Path) -> None:
    (run / "outputs" / "below").mkdir(parents=True)
    (run / "outputs" / "below" / "text").write_text("A")
    got = claim_outputs({"text": ("below/text", "text/plain")}, run / "outputs", run / "claimed")
    assert got["text"].path == run / "claimed" / "below" / "text" and not (run / "outputs").exists()
    assert got["text"].path.read_text() == "A"


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"outcome": "failed"}',
        b'{"outcome": "failed", "error": []}',
        b'{"outcome": "succeeded", "outputs": {}, "values": [], "warnings": []}',
        b'{"outcome": "succeeded", "outputs": {"a": "b"}, "values": {}, "warnings": []}',
        b'{"outcome": "succeeded", "outputs": {}, "values": {"a": NaN}, "warnings": []}',
        b'{"outcome": "succeeded", "outputs": {}, "values": {"a": "\\ud800"}, "warnings": []}',
        b'{"outcome": "succeeded", "outputs": {}, "values": {}, "warnings": [1]}',
        b"[" * 100_000,
    ],
)
def test_a_result_that_no_step_writes_is_refused(run: Path, written: bytes) -> None:
    (run / "result.json").write_bytes(written)
    with pytest.raises(StepError) as caught:
        read_result(run / "result.json")
    assert caught.value.reason == "RESULT_BROKEN"


def test_a_result_has_a_bounded_size(run: Path) -> None:
    (run / "result.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(StepError) as caught:
        read_result(run / "result.json")
    assert caught.value.reason == "RESULT_TOO_LARGE"


def test_a_result_is_read_as_written(run: Path) -> None:
    assert read_result(run / "result.json") is None
    document = {"outcome": "succeeded", "outputs": {"a": {"path": "b", "media_type": "c"}}}
    document |= {"values": {"length": 1}, "warnings": ["w"]}
    (run / "result.json").write_text(json.dumps(document))
    result = read_result(run / "result.json")
    assert result is not None
    assert (result.outputs, result.values, result.warnings) == ({"a": ("b", "c")}, {"length": 1}, ("w",))
    error = {"reason": "a\nb", "message": "x" * 20_000, "deterministic": True}
    (run / "result.json").write_text(json.dumps({"outcome": "failed", "error": error}))
    with pytest.raises(StepError) as caught:
        read_result(run / "result.json")
    assert caught.value.reason == "STEP_FAILED" and len(caught.value.message) == 10_000
