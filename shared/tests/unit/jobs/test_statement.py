"""A step's record is a canonical in-toto statement."""

import base64
import json
from typing import Any

from boardwright.content import Digest, canonical_json
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.statement import step_statement

_MODEL = Blob("sha256:" + "a" * 64, 5, "application/vnd.boardwright.onnx")
_GRAPH = Blob("sha256:" + "b" * 64, 7, "application/vnd.boardwright.onnx")


def _statement(**changes: Any) -> bytes:
    given: dict[str, Any] = {
        "kind": "compile/quantize",
        "version": "3",
        "parameters": {"bits": 8},
        "inputs": {"model": _MODEL},
        "environment": {"onnxruntime": "1.31.1"},
        "seed": 0,
        "cache_key": "sha256:" + "f" * 64,
        "outputs": {"graph": _GRAPH},
        "values": {"top1": 0.5},
        "warnings": ("a warning",),
        "worker": "worker-1",
        "started_us": 1_700_000_000_000_000,
        "finished_us": 1_700_000_001_000_000,
    }
    return step_statement(**{**given, **changes})


def test_the_statement_says_what_was_made_from_what() -> None:
    statement = json.loads(_statement())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"][0] == {
        "name": "graph",
        "digest": {"sha256": "b" * 64},
        "mediaType": _GRAPH.media_type,
    }
    values = base64.b64decode(statement["predicate"]["runDetails"]["byproducts"][0]["content"])
    assert statement["subject"][1]["digest"]["sha256"] == Digest.of(values).hex
    definition = statement["predicate"]["buildDefinition"]
    assert definition["buildType"] == "https://boardwright.dev/steps/compile/quantize@3"
    assert definition["resolvedDependencies"][0]["digest"] == {"sha256": "a" * 64}
    assert statement["predicate"]["runDetails"]["metadata"]["startedOn"].startswith("2023-11-14T22:13:20")


def test_the_statement_is_canonical() -> None:
    assert _statement() == canonical_json(json.loads(_statement()))
    assert _statement() == _statement(outputs={"graph": _GRAPH})
