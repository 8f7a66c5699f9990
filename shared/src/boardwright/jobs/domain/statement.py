"""A step's record: one canonical in-toto statement with a SLSA provenance predicate.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and https://slsa.dev/spec/v1.0/provenance.
The record is the cache entry, the lineage edge and the provenance at the same time. Its subjects are the
step's outputs; its values count as one more subject, ``values.json``, by the digest of their canonical JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from boardwright.content import Digest, canonical_json
from boardwright.jobs.domain.blobs import Blob

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
_BUILD_TYPE = "https://boardwright.dev/steps/"


def step_statement(
    *,
    kind: str,
    version: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Blob],
    environment: Mapping[str, str],
    seed: int,
    cache_key: str,
    outputs: Mapping[str, Blob],
    values: Mapping[str, Any],
    warnings: tuple[str, ...],
    worker: str,
    started_us: int,
    finished_us: int,
) -> bytes:
    """Return the record's bytes (canonical JSON). Times are microseconds since the epoch.

    Raises:
        InvalidContent: a parameter or value has no canonical JSON.
    """
    subjects = [_resource(name, blob) for name, blob in sorted(outputs.items())]
    values_digest = Digest.of(canonical_json(dict(values))).hex
    subjects.append({"name": "values.json", "digest": {"sha256": values_digest}})
    external = {"kind": kind, "parameters": dict(parameters), "seed": seed}
    definition = {
        "buildType": f"{_BUILD_TYPE}{kind}@{version}",
        "externalParameters": external,
        "internalParameters": {
            "cacheKey": cache_key,
            "environment": dict(environment),
        },
        "resolvedDependencies": [_resource(name, blob) for name, blob in sorted(inputs.items())],
    }
    run = {
        "builder": {"id": f"https://boardwright.dev/workers/{worker}"},
        "metadata": {"startedOn": _timestamp(started_us), "finishedOn": _timestamp(finished_us)},
        "byproducts": [_content("values.json", dict(values)), _content("warnings.json", list(warnings))],
    }
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {"buildDefinition": definition, "runDetails": run},
    }
    return canonical_json(statement)


def _timestamp(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="microseconds")


def _content(name: str, value: Any) -> dict[str, Any]:
    encoded = base64.b64encode(canonical_json(value)).decode("ascii")
    return {"name": name, "mediaType": "application/json", "content": encoded}


def _resource(name: str, blob: Blob) -> dict[str, Any]:
    digest = {"sha256": Digest.parse(blob.digest).hex}
    return {"name": name, "digest": digest, "mediaType": blob.media_type}
