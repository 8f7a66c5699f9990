"""Which accuracy stands in a table of variants, and when a report is done."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from boardwright.api.jobs.v1.jobs_pb2 import Job
from boardwright.api.registry.v1.registry_pb2 import Artifact, Measurement
from boardwright.cli.app import app
from boardwright.cli.report import _accuracies, _row, _shared_conditions, print_report
from boardwright.client import JobFailed


def accuracy(variant: str, top1: float, samples: float, dataset: str = "d/1") -> Measurement:
    name = f"v/variants/{variant}/measurements/{top1}"
    return Measurement(name=name, kind="accuracy", values={"top1": top1, "samples": samples}, dataset=dataset)


def test_only_figures_of_the_same_samples_stand_side_by_side() -> None:
    newest_first = [
        accuracy("int8", 1.0, 10),
        accuracy("baseline", 0.5, 500, "other/1"),
        accuracy("int8", 0.98, 500),
        accuracy("baseline", 0.99, 500),
    ]
    judged_on = _shared_conditions(newest_first)
    assert judged_on == ("d/1", 500)
    shown = {
        name: _accuracies([m for m in newest_first if f"/{name}/" in m.name], judged_on)
        for name in ("int8", "baseline", "dynamic")
    }
    assert shown == {"int8": {"top1": 0.98}, "baseline": {"top1": 0.99}, "dynamic": {}}
    assert _shared_conditions([]) is None


class FailingRecipe:
    """A server whose recipe fails after its first variant, and which builds and measures as asked."""

    def __init__(self) -> None:
        self.jobs = self.boards = self.models = self
        self.started: list[str] = []

    def get(self, board: str) -> SimpleNamespace:
        return SimpleNamespace(name="boards/x86-64", quantization_profile=SimpleNamespace(name="x86"))

    def variants(self, version: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="v/variants/baseline", quantization_profile="")]

    def compile(self, *_: Any, **__: Any) -> Job:
        return Job(name="compile")

    def build(self, variant: str, *_: Any, **__: Any) -> Job:
        return Job(name="build")

    def measure(self, artifacts: list[str], **_: Any) -> Job:
        return Job(name="measure")

    def wait(self, job: str, **_: Any) -> Job:
        self.started.append(job)
        if job == "compile":
            raise JobFailed(Job(name=job, state=Job.STATE_FAILED))
        return Job(name=job, results=["v/variants/baseline/artifacts/a"])


def test_a_full_report_whose_recipe_fails_is_not_called_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FailingRecipe()
    monkeypatch.setattr("boardwright.cli.commands.reporting.client_of", lambda _: nullcontext(server))
    monkeypatch.setattr("boardwright.cli.report.collect", lambda *_: [])
    with pytest.raises(SystemExit) as ended:
        app(["report", "v", "--full"], standalone_mode=True)
    assert ended.value.code == 3
    assert server.started == ["compile", "build", "measure"]
    said = capsys.readouterr().err
    assert "comparison: compile failed" in said and "the report holds what there is" in said


def test_a_busy_host_is_told_under_the_figures_it_gave(capsys: pytest.CaptureFixture[str]) -> None:
    details = '{"warnings": ["The host was busy."]}'
    latency = Measurement(
        kind="latency", threads=1, board="x86-64", values={"p50_ms": 1.0}, details_json=details
    )
    artifact = Artifact(name="a", pin={"board": "x86-64"}, toolchain="onnxruntime")
    rows = [_row("baseline", artifact, {}, [latency]), _row("int8", artifact, {}, [])]
    assert [row.warnings for row in rows] == [("The host was busy.",), ()]
    print_report(rows)
    assert capsys.readouterr().out.endswith("baseline:\n  The host was busy.\n")
