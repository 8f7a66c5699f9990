"""From a step kind to a declared step: defaults, environment and requirements filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.cache_key import with_defaults
from boardwright.jobs.domain.dag import OutputOf, StepSpec
from boardwright.jobs.step_api import Requirements, StepKind


def declare_step(
    kind: StepKind,
    step: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Blob | OutputOf],
    requires: Requirements | None = None,
    seed: int = 0,
    again: bool = False,
) -> StepSpec:
    """Return a step of ``kind`` under the id ``step``.

    The environment is the declaring service's own: workers whose libraries differ refuse the step, so that
    what is cached under a key was made by what the key says.
    """
    return StepSpec(
        step=step,
        kind=kind.name,
        version=kind.version,
        determinism=kind.determinism,
        parameters=with_defaults(kind, parameters),
        inputs=inputs,
        environment=dict(kind.environment()),
        requires=requires or kind.requires,
        seed=seed,
        again=again,
    )
