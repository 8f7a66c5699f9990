"""What `job show` tells of a step."""

from google.protobuf.timestamp_pb2 import Timestamp

from boardwright.api.jobs.v1.jobs_pb2 import Step
from boardwright.cli.commands.job import _seconds

BEGUN, ENDED = Timestamp(seconds=1_800_000_000), Timestamp(seconds=1_800_000_002, nanos=500_000_000)


def test_a_step_that_ran_tells_how_long() -> None:
    assert _seconds(Step(start_time=BEGUN, finish_time=ENDED)) == "2.5"


def test_a_step_that_was_skipped_or_still_runs_tells_no_time() -> None:
    assert _seconds(Step(finish_time=ENDED)) == ""
    assert _seconds(Step(start_time=BEGUN)) == ""
