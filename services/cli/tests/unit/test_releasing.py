"""What `promote` says it did, or would do."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from boardwright.api.registry.v1.registry_pb2 import PromoteReleaseResponse, Stage
from boardwright.cli.app import app

MODEL = "projects/default/models/digits"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["digits", "production", "--roll-back", "--dry-run"], 0, "digits@production would hold: digits@r1"),
        (["digits", "production", "--roll-back"], 0, "digits@production holds: digits@r1"),
        (["digits@r1", "production"], 0, "digits@production holds: digits@r1"),
        (["digits@r1", "production", "--dry-run"], 3, "digits@r1 would be refused"),
    ],
)
def test_what_a_stage_holds_or_would_hold_is_said(
    arguments: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage(name=f"{MODEL}/stages/production", release=f"{MODEL}/releases/1")

    def answer(*_: Any, **__: Any) -> PromoteReleaseResponse:
        return PromoteReleaseResponse(stage=stage, passed=code == 0)

    client = SimpleNamespace(promote=answer, roll_back=answer)
    monkeypatch.setattr("boardwright.cli.commands.releasing.client_of", lambda _: nullcontext(client))
    with pytest.raises(SystemExit) as ended:
        app(["promote", *arguments])
    assert ended.value.code == code
    first, _, rest = capsys.readouterr().err.partition("\n")
    assert first == said
    assert ("rollout start FLEET digits@production" in rest) is (arguments[2:] == ["--roll-back"])
