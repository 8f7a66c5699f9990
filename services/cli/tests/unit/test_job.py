"""What `job show` and `job logs` tell of a step."""

from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from boardwright.api.jobs.v1.jobs_pb2 import Job, Step
from boardwright.cli.app import app
from boardwright.cli.commands.job import _seconds, print_job
from boardwright.cli.output import Format

BEGUN, ENDED = Timestamp(seconds=1_800_000_000), Timestamp(seconds=1_800_000_002, nanos=500_000_000)


def test_a_step_that_ran_tells_how_long() -> None:
    assert _seconds(Step(start_time=BEGUN, finish_time=ENDED)) == "2.5"


def test_a_step_that_was_skipped_or_still_runs_tells_no_time() -> None:
    assert _seconds(Step(finish_time=ENDED)) == ""
    assert _seconds(Step(start_time=BEGUN)) == ""


def test_what_a_step_says_at_length_stands_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    long = "Calibrated with 10 samples; 100 and more give steadier ranges."
    steps = [Step(step="quantize", warnings=[long, "Look"]), Step(step="evaluate", warnings=["Short."])]
    print_job(Job(name="projects/default/compileJobs/7", steps=steps), Format.TABLE)
    table, _, below = capsys.readouterr().out.partition("quantize:\n")
    assert "Short." in table and long not in table
    assert below == f"  {long} Look.\n"


def test_a_step_that_says_much_tells_how_much_more_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step(step="import", warnings=["Axis 0 is fixed to 1.", "Axis 2 is.", "Axis 3 is.", "Odd."])]
    print_job(Job(name="projects/default/compileJobs/7", steps=steps), Format.TABLE)
    assert "Axis 0 is fixed to 1. Axis 2 is. 2 more: --output json." in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_step_that_printed_nothing_is_not_an_empty_line(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = {"quantize": "calibrating\n", "evaluate": ""}
    steps = [Step(step=name, attempts=1) for name in printed]
    job = Job(name="projects/default/compileJobs/7", steps=steps)
    jobs = SimpleNamespace(get=lambda _: job, logs=lambda _, step: printed[step])

    class Client:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.jobs = jobs

        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr("boardwright.client.Client", Client)
    done = CliRunner().invoke(app, ["job", "logs", "compileJobs/7"])
    assert done.stdout == "--- quantize\ncalibrating\n"
    assert "evaluate printed nothing" in done.stderr
