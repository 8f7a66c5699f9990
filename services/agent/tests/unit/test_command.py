"""The command line: usage, progress, and what an answer's error becomes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest

from boardwright.agent.cli import main
from boardwright.agent.device import Device, Pass
from boardwright.agent.enrolment import default_id
from boardwright.agent.errors import TurnedAway, Unavailable
from boardwright.agent.home import Home, Identity
from boardwright.agent.http import Answer, ServerClock, problem
from boardwright.agent.progress import ConsoleProgress, console_progress
from boardwright.agent.update import Outcome


@pytest.mark.parametrize("arguments", [[], ["fly"], ["enroll"], ["run", "--interval", "soon"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: boardwright-agent" in capsys.readouterr().err


def test_a_missing_token_is_wrong_usage(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("BOARDWRIGHT_ENROLMENT_TOKEN", raising=False)
    assert main(["enroll", "--home", str(tmp_path), "--server", "http://127.0.0.1:9"]) == 2
    assert "--token" in capsys.readouterr().err


def test_a_token_from_standard_input(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("bwe1.half\n"))
    code = main(["enroll", "--home", str(tmp_path), "--server", "http://127.0.0.1:9", "--token", "-"])
    assert code == 3 and "TOKEN_MALFORMED" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (403, {"reason": "DEVICE_REVOKED", "detail": "ask"}, TurnedAway, "DEVICE_REVOKED"),
        (503, {"reason": "DATABASE_UNAVAILABLE", "detail": "wait"}, Unavailable, "DATABASE_UNAVAILABLE"),
        (502, "<html>", Unavailable, "HTTP_502"),
        (429, [], Unavailable, "HTTP_429"),
        (418, {"title": "teapot"}, TurnedAway, "HTTP_418"),
    ],
)
def test_answers_become_errors(status: int, body: object, kind: type[Exception], reason: str) -> None:
    error = problem(Answer(status, {}, json.dumps(body).encode()), "the report")
    assert type(error) is kind and error.reason == reason and error.message.startswith("the report: ")


def test_an_answer_that_is_nested_too_deeply_is_an_outage() -> None:
    answer = Answer(502, {}, b"[" * 200_000)
    assert problem(answer, "the report").reason == "HTTP_502"
    with pytest.raises(Unavailable, match="is not JSON"):
        answer.json()


def test_a_server_clock_that_makes_no_sense_is_ignored() -> None:
    clock = ServerClock()
    for text in (None, "", "yesterday", "Sat, 99 Nov 2026 00:00:00 GMT"):
        clock.note(text)
    assert clock.ahead_seconds is None
    clock.note("Sat, 21 Nov 2026 00:00:00 GMT")
    assert clock.ahead_seconds is not None


def test_progress_on_a_terminal_and_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        show = ConsoleProgress(stream)
        show(0, 0, "checking")
        show(0, 0, "checking")
        show(0, 4 << 20, "model.onnx")
        show(4 << 20, 4 << 20, "model.onnx")
        show(0, 0, "done")
        text = stream.getvalue()
        assert (
            text.count("checking\n") == 1 and "4.0 of 4.0 MiB model.onnx" in text and text.endswith("done\n")
        )
        assert ("\r[" in text) is stream.isatty()
    quiet = io.StringIO()
    console_progress(quiet, quiet=True)(1, 2, "x")
    assert not quiet.getvalue()


def test_the_default_id_is_one(monkeypatch) -> None:
    for name, wanted in (("Cam_01.local", "cam-01-local"), ("7seven", "device-7seven"), ("", "device")):
        monkeypatch.setattr("platform.node", lambda name=name: name)
        assert default_id() == wanted


def test_people_read_short_names_and_programs_full_ones(tmp_path, capsys) -> None:
    home = Home(tmp_path / "home")
    fleet = "projects/default/fleets/cameras"
    home.prepare()
    home.save_identity(Identity("http://127.0.0.1:9", f"{fleet}/devices/cam-1", fleet, "tuf"))
    arguments = ["status", "--home", str(tmp_path / "home")]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "device            cameras/cam-1\n" in told and "fleet             cameras\n" in told
    assert main([*arguments, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["fleet"] == fleet


def test_run_says_a_result_once_until_another_comes(tmp_path, capsys, monkeypatch) -> None:
    same = Pass(Outcome("up-to-date", "digits@r1 is installed"), None, None)
    away = Pass(
        None, Unavailable("SERVER_UNREACHABLE", "no route"), Unavailable("SERVER_UNREACHABLE", "no route")
    )

    def run(device: Device, stop: object, interval: int, finished: Callable[[Pass], None]) -> None:
        for result in (same, same, away, away, same):
            finished(result)

    monkeypatch.setattr(Device, "run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["run", "--home", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out == "up-to-date: digits@r1 is installed\n" * 2 and told.err.count("no route") == 2


def test_a_user_without_a_home_and_a_damaged_installation(tmp_path, capsys, monkeypatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "BOARDWRIGHT_AGENT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert main(["status", "--home", str(tmp_path)]) == 3
    assert "NOT_ENROLLED" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "boardwright.agent.device", None)
    assert main(["status", "--home", str(tmp_path)]) == 1
    assert "install it again" in capsys.readouterr().err
