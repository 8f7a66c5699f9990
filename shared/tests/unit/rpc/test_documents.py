from __future__ import annotations

import json

from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.rpc.documents import to_document


def test_numbers_stay_numbers_and_everything_is_json() -> None:
    version = pb.ModelVersion(number=2**53, metrics={"top1": 0.5}, labels={"b": "2", "a": "1"})
    version.create_time.FromJsonString("2026-11-21T08:00:00.5Z")
    version.files.add(path="m.onnx", size_bytes=2**40)
    document = to_document(version)
    assert document["number"] == 2**53
    assert document["files"] == [{"path": "m.onnx", "digest": "", "size_bytes": 2**40, "media_type": ""}]
    assert document["create_time"] == "2026-11-21T08:00:00.500Z"
    assert list(document["labels"]) == ["a", "b"]
    assert json.loads(json.dumps(document)) == document


def test_what_is_unset_is_null_and_of_a_oneof_only_the_set_one_appears() -> None:
    gate = pb.Gate(stage="production", accuracy_drop=pb.AccuracyDrop(metric="top1", max_drop_points=1))
    document = to_document(gate)
    assert document == {"stage": "production", "accuracy_drop": {"metric": "top1", "max_drop_points": 1.0}}
    assert to_document(pb.ModelVersion())["create_time"] is None


def test_enums_durations_and_bytes_are_text() -> None:
    step = jobs_pb2.Step(state=jobs_pb2.Step.STATE_RUNNING)
    step.requires.time_limit.FromMilliseconds(1500)
    document = to_document(step)
    assert document["state"] == "STATE_RUNNING"
    assert document["requires"]["time_limit"] == "1.500s"
    step.inputs["model"].digest = "sha256:0"
    assert to_document(step)["inputs"]["model"]["digest"] == "sha256:0"


def test_an_enum_value_from_the_future_stays_a_number() -> None:
    assert to_document(jobs_pb2.Step(state=99))["state"] == 99
