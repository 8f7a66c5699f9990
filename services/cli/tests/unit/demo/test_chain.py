"""The stages against a client that answers from a list; the whole way runs in the integration tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.cli.demo.chain import Bounds, Built, Chain
from boardwright.cli.demo.stages import Stages
from boardwright.cli.output import Format
from boardwright.rpc.errors import FailedPrecondition

RELEASE = "projects/default/models/digits/releases/1"
BUILT = Built({("digits/variants/int8", "x86-64"): "fast", ("digits/variants/int8", "pi"): "elsewhere"}, {})
TOO_SLOW = FailedPrecondition("GATE_REFUSED", "p95 is 124 ms", gate="LatencyCeiling")
TOO_WRONG = FailedPrecondition("GATE_REFUSED", "top1 is 2 points below", gate="AccuracyDrop")


class Client:
    """Answers promotions from a list, and remembers what was measured."""

    def __init__(self, *answers: FailedPrecondition | pb.PromoteReleaseResponse) -> None:
        self.answers = list(answers)
        self.measured: list[tuple[list[str], bool]] = []
        self.models = SimpleNamespace(stage=lambda _: pb.Stage(etag="1"), get=lambda _: pb.Model())
        self.jobs = SimpleNamespace(wait=lambda _, progress: jobs_pb2.Job())

    def promote(self, *_: str, **__: str) -> pb.PromoteReleaseResponse:
        answer = self.answers.pop(0)
        if isinstance(answer, FailedPrecondition):
            raise answer
        return answer

    def measure(self, artifacts: list[str], *, again: bool) -> jobs_pb2.Job:
        self.measured.append((artifacts, again))
        return jobs_pb2.Job()


def _promote(client: Any) -> None:
    subject: Any = SimpleNamespace(model="digits")
    chain = Chain(client, Stages(1, Format.JSON), subject, "x86-64", "pi", 0)
    chain.promote(pb.Release(name=RELEASE), "classification", Bounds(None, None), BUILT)


def test_a_refused_latency_is_measured_once_more() -> None:
    client = Client(TOO_SLOW, pb.PromoteReleaseResponse())
    _promote(client)
    assert client.measured == [(["fast"], True)]


@pytest.mark.parametrize(("answers", "times"), [((TOO_WRONG,), 0), ((TOO_SLOW, TOO_SLOW), 1)])
def test_a_refusal_that_stands_is_told(answers: tuple[FailedPrecondition, ...], times: int) -> None:
    client = Client(*answers)
    with pytest.raises(FailedPrecondition):
        _promote(client)
    assert len(client.measured) == times
