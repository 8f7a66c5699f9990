"""What a finished job made, registered: specs, Variants, Measurements and the lineage between them.

Everything here may run again, after a restart or while the registry was away: each create carries a
request id that follows from the step's record, and a Variant with the same graph is the same Variant.
So a job whose steps all came from the cache registers nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boardwright.compiler.domain.plan import INPUT_SPEC, MODEL, OUTPUT_SPEC, Given
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.compiler.ports import (
    FileOfVersion,
    Journal,
    NewMeasurement,
    NewVariant,
    Registry,
    StepRecord,
)
from boardwright.database import Transaction
from boardwright.jobs.domain.job import Job, Step, StepOutcome

_MAX_SAME_NAME = 100


@dataclass(frozen=True, slots=True)
class _PlannedStep:
    step: str
    variant: str
    makes_variant: bool
    profile: str
    dataset: str
    measures: Sequence[str] = ("accuracy", "parity")  # of jobs planned before the plan named them


class Publisher:
    """The owner of compile jobs; see ``boardwright.jobs.ports.JobOwner``."""

    def __init__(self, registry: Registry, journal: Journal) -> None:
        self._registry = registry
        self._journal = journal

    def record(self, tx: Transaction, job: Job) -> None:
        """Write the audit record and the event of the job's new state."""
        self._journal.record(tx, job)

    async def finish(self, job: Job) -> Sequence[str]:
        """Register what the job made; returns the names of Variants and Measurements, in order.

        Raises:
            Unavailable: the registry is away.
            BoardwrightError: what else it refused with.
        """
        await self._record_lineage(job)
        await self._fix_specs(job)
        version = str(job.spec["version"])
        names: dict[str, str] = {}
        made: list[str] = []
        for entry in job.spec["plan"]:
            planned = _PlannedStep(**entry)
            step = job.step(planned.step)
            outcome = step.outcome or StepOutcome()
            if planned.makes_variant:
                name = await self._register_variant(job, version, planned, outcome)
                names[planned.variant] = name
                made.append(name)
                size = {"size_bytes": float(outcome.outputs[MODEL].size_bytes)}
                measured = [NewMeasurement("size", size, "", outcome.record, {})]
            else:
                measured = measurements(planned.measures, planned.dataset, outcome)
            for measurement in measured:
                made.append(
                    await self._registry.create_measurement(
                        names[planned.variant],
                        measurement,
                        request_id(outcome.record, names[planned.variant], measurement.kind),
                        job.principal,
                    )
                )
        return made

    async def _record_lineage(self, job: Job) -> None:
        for step in job.steps:
            outcome = step.outcome or StepOutcome()
            if outcome.record:
                await self._registry.record_step(job.project, _record_of(step, outcome), job.principal)

    async def _fix_specs(self, job: Job) -> None:
        """Fix the specs that import derived, where the push had not declared both; what it declared stays."""
        declared: Mapping[str, str] = job.spec["declared_specs"]
        if all(declared.values()):
            return
        outputs = (job.step(job.spec["plan"][0]["step"]).outcome or StepOutcome()).outputs
        texts = []
        for name in (INPUT_SPEC, OUTPUT_SPEC):
            text = declared[name]
            if not text:
                text = (await self._registry.read(job.project, outputs[name].digest, job.principal)).decode()
            texts.append(text)
        await self._registry.fix_specs(str(job.spec["version"]), texts[0], texts[1], job.principal)

    async def _register_variant(
        self, job: Job, version: str, planned: _PlannedStep, outcome: StepOutcome
    ) -> str:
        graph = outcome.outputs[MODEL]
        variant, is_registered = await self._choose_id(job, version, planned, graph.digest)
        if is_registered:
            return variant_name(version, variant)
        new = NewVariant(
            variant=variant,
            recipe=str(job.spec["recipe"]["name"]),
            recipe_digest=str(job.spec["recipe"]["digest"]),
            graph=FileOfVersion(MODEL, Given(graph.digest, graph.size_bytes, graph.media_type)),
            quantization_profile=planned.profile,
            record_digest=outcome.record,
            details={**outcome.values, "warnings": list(outcome.warnings)},
        )
        return await self._registry.create_variant(
            version, new, request_id(outcome.record, version, variant), job.principal
        )

    async def _choose_id(
        self, job: Job, version: str, planned: _PlannedStep, graph_digest: str
    ) -> tuple[str, bool]:
        """Return the id for a Variant, and whether that very graph is registered under it already.

        Compiled for another profile, ``int8`` becomes ``int8-arm``; with other samples, ``int8-2``.
        """
        wanted = candidate = planned.variant
        for number in range(2, _MAX_SAME_NAME):
            held = await self._registry.find_variant(variant_name(version, candidate), job.principal)
            if held is None:
                return candidate, False
            if held.graph_digest == graph_digest:
                return candidate, True
            if held.quantization_profile != planned.profile:
                wanted = candidate = f"{wanted}-{BoardProfile(planned.profile).id}"
            else:
                candidate = f"{wanted}-{number}"
        return f"{wanted}-{graph_digest.removeprefix('sha256:')[:12]}", False


def variant_name(version: str, variant: str) -> str:
    """Return the resource name of a version's Variant."""
    return f"{version}/variants/{variant}"


def request_id(record_digest: str, parent: str, what: str) -> str:
    """Return the request id of a create: the same for the same step record and resource, 64 characters."""
    return hashlib.sha256("\0".join((record_digest, parent, what)).encode()).hexdigest()


def measurements(kinds: Sequence[str], dataset: str, outcome: StepOutcome) -> list[NewMeasurement]:
    """Return the figures of these kinds among a step's values: accuracy, and parity apart from it.

    What was judged with several views of each image is none: a device shows the model one, and gates would
    compare the figure with those of one view. It stays in the step's report.
    """
    values: Mapping[str, Any] = outcome.values
    if values.get("augmentation"):
        return []
    found = []
    for kind in kinds:
        figures: Mapping[str, float] = values.get(kind) or {}
        if figures:
            found.append(
                NewMeasurement(
                    kind,
                    {**figures, "samples": float(values["samples"])},
                    dataset,
                    outcome.record,
                    {"information": values.get("information", {})},
                    values.get("host", {}),
                )
            )
    return found


def _record_of(step: Step, outcome: StepOutcome) -> StepRecord:
    return StepRecord(
        outcome.record,
        step.spec.kind,
        {name: blob.digest for name, blob in step.inputs.items()},
        {name: blob.digest for name, blob in outcome.outputs.items()},
    )
