"""From a recipe and what it works on to a DAG of steps.

A pass that quantizes for the board's profile is planned once for each profile that the boards have. With
several, the Variants made from there on carry the profile in their names (``int8-arm``). What does not depend
on a profile is one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from boardwright.compiler.domain.passes import BASELINE, CHECKPOINT, EVALUATION_REPORT, PASSES
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
class Teacher:
    """Another ModelVersion that a pass learns from: its checkpoint, as ``import`` would be told of it."""

    checkpoint: Given
    import_parameters: Mapping[str, Any]
    module: Given | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What a recipe is run on.

    ``import_parameters`` describe the checkpoint (format, declared specs, builder). ``datasets`` are keyed by
    what they are for (``calibration``, ``evaluation``, ``training``). ``profiles`` are those of the boards,
    at least one. ``teachers`` are keyed as the recipe names them.
    """

    checkpoint: Given
    import_parameters: Mapping[str, Any]
    datasets: Mapping[str, DatasetContent] = field(default_factory=dict)
    module: Given | None = None
    profiles: tuple[BoardProfile, ...] = (BoardProfile("x86-vnni"),)
    teachers: Mapping[str, Teacher] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step: what runs it, with which parameters, on which inputs.

    ``variant`` is made or judged by it; ``profile`` is the quantization profile that this Variant serves,
    empty for a float graph. ``dataset`` is the name of the dataset version it reads, ``measures`` the kinds
    of Measurement among its values.
    """

    name: str
    kind: str
    variant: str
    makes_variant: bool
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Given | FromStep]
    profile: str = ""
    dataset: str = ""
    measures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Made:
    """A Variant on the way: its graph, its id in the registry, and what belongs to it.

    ``profile`` is the quantization profile it serves. ``checkpoint`` and ``module`` are what training starts
    from; ``files`` what earlier passes found out about this very graph.
    """

    model: FromStep
    id: str
    profile: str = ""
    checkpoint: Mapping[str, Given | FromStep] = field(default_factory=dict)
    files: Mapping[str, FromStep] = field(default_factory=dict)


@dataclass(slots=True)
class _Branch:
    """The Variants made so far for one profile, by the name that the recipe gives them."""

    variants: dict[str, _Made]
    latest: str = BASELINE

    def source_of(self, entry: Pass) -> str:
        """Return the recipe's name of the Variant that a pass starts from, or judges."""
        if not entry.makes_variant:
            return entry.variant
        return entry.source or self.latest


def plan(recipe: Recipe, subject: Subject) -> tuple[PlannedStep, ...]:
    """Return the steps of ``recipe`` on ``subject``, each after those it needs.

    Raises:
        RecipeError: DATASET_MISSING, when a pass reads a dataset that was not given; TEACHER_MISSING;
            RECIPE_ORDER, when a pass compares what no pass before it made or evaluated.
    """
    steps: dict[str, PlannedStep] = {_IMPORT: _import_step(recipe.passes[0], subject)}
    started = _Made(FromStep(_IMPORT, MODEL), BASELINE, checkpoint=_checkpoint(subject))
    branches = [_Branch({BASELINE: started}) for _ in subject.profiles]
    for number, entry in enumerate(recipe.passes[1:], start=1):
        for profile, branch in zip(subject.profiles, branches, strict=True):
            step = _step(entry, profile, branch, subject)
            known = steps.get(step.name)
            if known is not None and known != step:
                step = replace(step, name=f"{step.name}-{number}")
            steps[step.name] = step
            _remember(branch, entry, step)
    return tuple(steps.values())


def _remember(branch: _Branch, entry: Pass, step: PlannedStep) -> None:
    kind = PASSES[entry.name]
    source = branch.variants[branch.source_of(entry)]
    given = {name: FromStep(step.name, name) for name in kind.gives}
    if not entry.makes_variant:
        branch.variants[entry.variant] = replace(source, files={**source.files, **given})
        return
    checkpoint = {CHECKPOINT: FromStep(step.name, CHECKPOINT)} if kind.trains else source.checkpoint
    branch.variants[entry.variant] = _Made(
        FromStep(step.name, MODEL), step.variant, step.profile, checkpoint, given
    )
    branch.latest = entry.variant


def _step(entry: Pass, profile: BoardProfile, branch: _Branch, subject: Subject) -> PlannedStep:
    kind = PASSES[entry.name]
    parameters = dict(entry.parameters)
    source = branch.variants[branch.source_of(entry)]
    serves, variant = source.profile, entry.variant if entry.makes_variant else source.id
    own = kind.for_profile and "profile" not in parameters
    if own:
        parameters["profile"] = profile.parameter
    if kind.quantized:
        serves = _own_profile(entry) or profile.name
    if entry.makes_variant and (own or source.id != branch.source_of(entry)):
        variant = _for_profile(entry.variant, profile, subject)
    inputs: dict[str, Given | FromStep] = {
        MODEL: source.model,
        INPUT_SPEC: FromStep(_IMPORT, INPUT_SPEC),
        OUTPUT_SPEC: FromStep(_IMPORT, OUTPUT_SPEC),
        **{name: source.files[name] for name in kind.takes if name in source.files},
    }
    if kind.beside_baseline and source.id != BASELINE:
        inputs[BASELINE_MODEL] = branch.variants[BASELINE].model
    if kind.trains:
        inputs.update(source.checkpoint)
        parameters["import"] = dict(subject.import_parameters)
    if kind.compares:
        _add_experiments(entry, branch, inputs)
    _add_teacher(entry, subject, inputs, parameters)
    dataset = ""
    for role in _roles(entry, subject):
        inputs.update(_dataset_inputs(entry, role, subject))
        dataset = subject.datasets[role].name
    name = f"{entry.name}-{variant}"
    if own and not entry.makes_variant and len(subject.profiles) > 1 and not source.profile:
        name = f"{name}-{profile.id}"
    return PlannedStep(
        name, kind.step_kind, variant, entry.makes_variant, parameters, inputs, serves, dataset, kind.measures
    )


def _roles(entry: Pass, subject: Subject) -> tuple[str, ...]:
    kind = PASSES[entry.name]
    if kind.needs_one_of and not any(role in subject.datasets for role in kind.needs_one_of):
        roles = " or ".join(kind.needs_one_of)
        raise RecipeError(
            "DATASET_MISSING",
            f"{entry.name} needs a sealed {roles} dataset: name one, or choose another recipe.",
            entry.line,
        )
    return kind.datasets + tuple(role for role in kind.optional_datasets if role in subject.datasets)


def _checkpoint(subject: Subject) -> dict[str, Given | FromStep]:
    found: dict[str, Given | FromStep] = {CHECKPOINT: subject.checkpoint}
    if subject.module is not None:
        found[NETWORK_MODULE] = subject.module
    return found


def _add_experiments(entry: Pass, branch: _Branch, inputs: dict[str, Given | FromStep]) -> None:
    """Give the pass the graph and the evaluation of the baseline and of each Variant that it compares."""
    for variant in (BASELINE, *entry.parameters["experiments"]):
        made = branch.variants.get(variant)
        if made is None:
            known = ", ".join(sorted(set(branch.variants) - {BASELINE}))
            raise RecipeError(
                "RECIPE_ORDER",
                f"{entry.name} compares the variant {variant!r}, which no pass before it makes (made so far: "
                f"{known or 'none'}).",
                entry.line,
            )
        if EVALUATION_REPORT not in made.files:
            raise RecipeError(
                "RECIPE_ORDER", f"{entry.name} compares {variant!r}: evaluate it before.", entry.line
            )
        inputs[f"{variant}.{MODEL}"] = made.model
        inputs[f"{variant}.{EVALUATION_REPORT}"] = made.files[EVALUATION_REPORT]


def _add_teacher(
    entry: Pass, subject: Subject, inputs: dict[str, Given | FromStep], parameters: dict[str, Any]
) -> None:
    """Give the pass the checkpoint of the teacher that it names, and tell it how to import that.

    The teacher ``baseline`` is the version's own checkpoint, before any pass.
    """
    wanted = entry.parameters.get("teacher")
    if not wanted:
        return
    own = Teacher(subject.checkpoint, subject.import_parameters, subject.module)
    teacher = own if wanted == BASELINE else subject.teachers.get(str(wanted))
    if teacher is None:
        raise RecipeError(
            "TEACHER_MISSING", f"there is no model version {wanted!r} to learn from.", entry.line
        )
    inputs["teacher"] = teacher.checkpoint
    if teacher.module is not None:
        inputs["teacher-module"] = teacher.module
    parameters["teacher_import"] = dict(teacher.import_parameters)


def _for_profile(variant: str, profile: BoardProfile, subject: Subject) -> str:
    return f"{variant}-{profile.id}" if len(subject.profiles) > 1 else variant


def _own_profile(entry: Pass) -> str:
    own = entry.parameters.get("profile", "")
    return own if isinstance(own, str) else "custom"


def _import_step(entry: Pass, subject: Subject) -> PlannedStep:
    parameters = {**entry.parameters, **subject.import_parameters}
    kind = PASSES["import"].step_kind
    return PlannedStep(_IMPORT, kind, entry.variant, True, parameters, _checkpoint(subject))


def _dataset_inputs(entry: Pass, role: str, subject: Subject) -> dict[str, Given]:
    content = subject.datasets.get(role)
    if content is None:
        raise RecipeError(
            "DATASET_MISSING",
            f"{entry.name} needs a sealed {role} dataset: name one (--{role} DATASET), or choose a recipe "
            f"without {entry.name}.",
            entry.line,
        )
    packs = {f"{role}.pack-{number}": pack for number, pack in enumerate(content.packs)}
    return {role: content.manifest, **packs}
