from __future__ import annotations

import pytest

from boardwright.cli.demo.stages import Stages
from boardwright.cli.output import Format


def test_notes_stand_below_their_stage_and_break_before_the_terminal_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Stages(12, Format.TABLE).stage("promote") as stage:
        stage.done(
            "digits@r1 is on production", notes=["projects/default/models/digits/releases/1 is good. " * 3]
        )
    told, *notes = capsys.readouterr().err.splitlines()
    assert told.startswith(" 1/12  promote     digits@r1 is on production  ")
    column = told.index("digits")
    assert len(notes) == 2 and all(len(note) <= 60 and note[:column].isspace() for note in notes)
    assert notes[0][column:].startswith("digits@r1 is good. digits@r1")
