from __future__ import annotations

import pytest

from boardwright.cli.output import Format
from boardwright.cli.progress import Bars


def test_without_a_terminal_each_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(Format.JSON) as bars:
        bars(0, 10, "uploading model.onnx")
        bars(5, 10, "uploading model.onnx")
        bars(10, 10, "")
        bars(1, 9, "quantize: calibrating")
        bars(2, 9, "quantize: writing")
    captured = capsys.readouterr()
    assert captured.err == "uploading model.onnx\nquantize\n"
    assert captured.out == ""


def test_a_bar_shows_short_names_and_files_as_they_are_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("boardwright.cli.progress._QUIET_SECONDS", 0.0)
    with Bars() as bars:
        bars(1, 2, "measure: projects/default/models/digits/versions/1/variants/int8 of digits[1].onnx")
    assert "measure: digits@1/int8 of digits[1].onnx" in capsys.readouterr().err
