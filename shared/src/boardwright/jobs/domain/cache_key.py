"""The cache key of a step: what its result depends on, hashed.

SHA-256 of the canonical JSON of the step's kind, implementation version, parameters with their defaults,
named input digests and declared environment. A ``seeded`` kind adds its seed. Nothing else may change a
result, and nothing else changes the key: not the job, the worker, the time, nor a default written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boardwright.content import Digest, canonical_json
from boardwright.jobs.step_api import Determinism, StepKind


def with_defaults(kind: StepKind, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``parameters`` with the kind's defaults filled in (top level only)."""
    return {**kind.defaults, **parameters}


def cache_key(
    *,
    kind: str,
    version: str,
    determinism: Determinism,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    environment: Mapping[str, str],
    seed: int,
) -> str:
    """Return the key as ``sha256:…``.

    ``parameters`` have their defaults filled in; ``inputs`` maps names to digests.

    Raises:
        InvalidContent: a parameter has no canonical JSON (a NaN, a key that is no string).
    """
    document: dict[str, Any] = {
        "kind": kind,
        "version": version,
        "parameters": dict(parameters),
        "inputs": dict(inputs),
        "environment": dict(environment),
    }
    if determinism is Determinism.SEEDED:
        document["seed"] = seed
    return str(Digest.of(canonical_json(document)))
