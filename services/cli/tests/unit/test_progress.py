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
