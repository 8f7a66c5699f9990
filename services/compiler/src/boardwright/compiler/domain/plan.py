"""From a recipe and what it works on to a DAG of steps.

A pass that quantizes for the board's profile is planned once for each profile that the boards have. With
several, the Variants made from there on carry the profile in their names (``int8-arm``). What does not depend
on a profile is one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from boardwright.compiler.domain.passes import BASELINE, CHECKPOINT, PASSES
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.compiler.domain.recipe import Pass, Recipe, RecipeError

NETWORK_MODULE = "module"
MODEL, INPUT_SPEC, OUTPUT_SPEC = "model.onnx", "input-spec.json", "output-spec.json"
BASELINE_MODEL = "baseline.onnx"
_IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Given:
    """Content that exists before the job, by its digest."""

    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class FromStep:
    """Content that an earlier step of the same job makes."""

    step: str
    output: str


@dataclass(frozen=True, slots=True)
class DatasetContent:
    """A sealed dataset version as a step sees it: its manifest, and the packs that hold its samples."""

    name: str
    manifest: Given
    packs: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a recipe is run on.

    ``import_parameters`` describe the checkpoint (format, declared specs, builder). ``datasets`` are keyed by
    what they are for (``calibration``, ``evaluation``). ``profiles`` are those of the boards, at least one.
    """

    checkpoint: Given
    import_parameters: Mapping[str, Any]
    datasets: Mapping[str, DatasetContent] = field(default_factory=dict)
    module: Given | None = None
    profiles: tuple[BoardProfile, ...] = (BoardProfile("x86-vnni"),)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step: what runs it, with which parameters, on which inputs.

    ``variant`` is made or judged by it; ``profile`` is the quantization profile that this Variant serves,
    empty for a float graph. ``dataset`` is the name of the dataset version it reads.
    """

    name: str
    kind: str
    variant: str
    makes_variant: bool
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Given | FromStep]
    profile: str = ""
    dataset: str = ""


@dataclass(slots=True)
class _Branch:
    """The Variants made so far for one profile, by the name that the recipe gives them."""

    models: dict[str, FromStep] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, str] = field(default_factory=dict)
    latest: str = BASELINE


def plan(recipe: Recipe, subject: Subject) -> tuple[PlannedStep, ...]:
    """Return the steps of ``recipe`` on ``subject``, each after those it needs.

    Raises:
        RecipeError: DATASET_MISSING, when a pass reads a dataset that was not given.
    """
    steps: dict[str, PlannedStep] = {_IMPORT: _import_step(recipe.passes[0], subject)}
    branches = []
    for _ in subject.profiles:
        branch = _Branch({BASELINE: FromStep(_IMPORT, MODEL)}, {BASELINE: BASELINE}, {BASELINE: ""})
        branches.append(branch)
    for number, entry in enumerate(recipe.passes[1:], start=1):
        for profile, branch in zip(subject.profiles, branches, strict=True):
            step = _step(entry, profile, branch, subject)
            known = steps.get(step.name)
            if known is not None and known != step:
                step = replace(step, name=f"{step.name}-{number}")
            steps[step.name] = step
            if entry.makes_variant:
                _remember(branch, entry, step)
    return tuple(steps.values())


def _remember(branch: _Branch, entry: Pass, step: PlannedStep) -> None:
    branch.models[entry.variant] = FromStep(step.name, MODEL)
    branch.ids[entry.variant] = step.variant
    branch.profiles[entry.variant] = step.profile
    branch.latest = entry.variant


def _step(entry: Pass, profile: BoardProfile, branch: _Branch, subject: Subject) -> PlannedStep:
    kind = PASSES[entry.name]
    parameters = dict(entry.parameters)
    if entry.makes_variant:
        source = branch.latest
        serves, variant = branch.profiles[source], entry.variant
        if entry.name == "quantize":
            serves = _own_profile(entry) or profile.name
            if "profile" not in parameters:
                parameters["profile"] = profile.parameter
                variant = _for_profile(entry.variant, profile, subject)
        elif branch.ids[source] != source:
            variant = _for_profile(entry.variant, profile, subject)
    else:
        source = entry.variant
        serves, variant = branch.profiles[source], branch.ids[source]
    inputs: dict[str, Given | FromStep] = {
        MODEL: branch.models[source],
        INPUT_SPEC: FromStep(_IMPORT, INPUT_SPEC),
        OUTPUT_SPEC: FromStep(_IMPORT, OUTPUT_SPEC),
    }
    if entry.name == "evaluate" and source != BASELINE:
        inputs[BASELINE_MODEL] = branch.models[BASELINE]
    dataset = ""
    for role in kind.datasets:
        inputs.update(_dataset_inputs(entry, role, subject))
        dataset = subject.datasets[role].name
    return PlannedStep(
        f"{entry.name}-{variant}",
        kind.step_kind,
        variant,
        entry.makes_variant,
        parameters,
        inputs,
        serves,
        dataset,
    )


def _for_profile(variant: str, profile: BoardProfile, subject: Subject) -> str:
    return f"{variant}-{profile.id}" if len(subject.profiles) > 1 else variant


def _own_profile(entry: Pass) -> str:
    own = entry.parameters.get("profile", "")
    return own if isinstance(own, str) else "custom"


def _import_step(entry: Pass, subject: Subject) -> PlannedStep:
    inputs: dict[str, Given | FromStep] = {CHECKPOINT: subject.checkpoint}
    if subject.module is not None:
        inputs[NETWORK_MODULE] = subject.module
    parameters = {**entry.parameters, **subject.import_parameters}
    return PlannedStep(_IMPORT, PASSES["import"].step_kind, entry.variant, True, parameters, inputs)


def _dataset_inputs(entry: Pass, role: str, subject: Subject) -> dict[str, Given]:
    content = subject.datasets.get(role)
    if content is None:
        raise RecipeError(
            "DATASET_MISSING",
            f"{entry.name} needs a sealed {role} dataset: name one, or choose a recipe without {entry.name}.",
            entry.line,
        )
    packs = {f"{role}.pack-{number}": pack for number, pack in enumerate(content.packs)}
    return {role: content.manifest, **packs}
