"""The compiler's own work: a request becomes a planned job. What a job made is for ``publishing``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from boardwright.compiler.domain.passes import CHECKPOINT, PASSES
from boardwright.compiler.domain.plan import (
    INPUT_SPEC,
    NETWORK_MODULE,
    OUTPUT_SPEC,
    DatasetContent,
    FromStep,
    Given,
    PlannedStep,
    Subject,
    Teacher,
    plan,
)
from boardwright.compiler.domain.profiles import BoardProfile
from boardwright.compiler.domain.recipe import Recipe, RecipeError
from boardwright.compiler.errors import dataset_not_sealed, recipe_refused, unknown_role
from boardwright.compiler.kinds import IMPORT, KINDS, integer_arithmetic
from boardwright.compiler.ports import Boards, Datasets, Registry, Version
from boardwright.compiler.recipes import parse_recipe, read_shipped
from boardwright.content import Digest, canonical_json
from boardwright.database import Database, Transaction, requests
from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.cache_key import cache_key, with_defaults
from boardwright.jobs.domain.dag import OutputOf, StepSpec
from boardwright.jobs.domain.job import Job, NewJob, StepOutcome
from boardwright.jobs.service import JobService
from boardwright.jobs.storage import cache
from boardwright.jobs.storage.jobs import get_job
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument
from boardwright.rpc.names import NameTemplate

JOB = NameTemplate("projects/{project}/compileJobs/{job}")
ROLES = tuple(sorted({role for kind in PASSES.values() for role in kind.datasets + kind.optional_datasets}))
BUILDER_LABEL, BUILDER_ARGUMENTS_LABEL = "network-builder", "network-builder-arguments"

_MANIFEST_SCHEMA = "dataset/1"
_MANIFEST_TYPE = "application/vnd.boardwright.dataset.manifest.v1+json"
_PACK_TYPE = "application/vnd.boardwright.samples.pack.v1.tar"
_METHOD = "CreateCompileJob"
_SPEC_OUTPUTS = {"input_spec": INPUT_SPEC, "output_spec": OUTPUT_SPEC}


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """What a caller asks for. ``version`` and the ``datasets`` (by role) are resource names.

    One of ``recipe_name`` and ``recipe_yaml`` is set; neither means the recipe ``default``.
    """

    project: str
    version: str
    recipe_name: str = ""
    recipe_yaml: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    boards: tuple[str, ...] = ()
    principal: str = ""
    trace: str = ""
    request_id: str = ""
    fingerprint: str = ""
    validate_only: bool = False
    retry_failed: bool = False


class _Rehearsed(Exception):
    """Carries the job that would have been made out of a transaction that is rolled back."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.name)
        self.job = job


class CompilerService:
    """Plans recipes and creates their jobs."""

    def __init__(
        self, database: Database, jobs: JobService, registry: Registry, datasets: Datasets, boards: Boards
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._registry = registry
        self._datasets = datasets
        self._boards = boards

    async def create_job(self, request: CompileRequest) -> Job:
        """Start a recipe on a version; the same ``request_id`` again returns the same job.

        Raises:
            InvalidArgument: RECIPE_INVALID, FIELD_INVALID.
            NotFound: VERSION_NOT_FOUND, DATASET_NOT_FOUND, BOARD_NOT_FOUND, RECIPE_NOT_FOUND.
            FailedPrecondition: DATASET_NOT_SEALED, DATASET_MISSING, CHECKPOINT_MISSING.
            AlreadyExists: REQUEST_ID_REUSED.
            Unavailable: a service that has to be asked is away.
        """
        earlier = await self._database.read(lambda tx: self._recall(tx, request))
        if earlier is not None:
            return await self._jobs.get(earlier)
        recipe = read_recipe(request)
        version = await self._registry.get_version(request.version, request.principal)
        subject = await self._subject(request, recipe, version)
        try:
            planned = plan(recipe, subject)
        except RecipeError as error:
            raise recipe_refused(error, recipe.name) from error
        new = self._new_job(request, recipe, version, planned)

        def create(tx: Transaction) -> Job:
            known = self._recall(tx, request)
            if known is not None:
                return get_job(tx, known)
            job = self._jobs.create_in(tx, new)
            if request.validate_only:
                raise _Rehearsed(job)
            requests.remember(
                tx, request.principal, _METHOD, request.request_id, request.fingerprint, new.name.encode()
            )
            return job

        try:
            return await self._database.write(create)
        except _Rehearsed as rehearsed:
            return rehearsed.job

    def _recall(self, tx: Transaction, request: CompileRequest) -> str | None:
        if request.validate_only:
            return None
        answer = requests.recall(tx, request.principal, _METHOD, request.request_id, request.fingerprint)
        return answer.decode() if answer is not None else None

    async def _subject(self, request: CompileRequest, recipe: Recipe, version: Version) -> Subject:
        if not version.files:
            raise FailedPrecondition(
                "CHECKPOINT_MISSING", f"{version.name} holds no file: push the checkpoint again."
            )
        module, inputs = _files(version)
        importing = recipe.passes[0].parameters
        return Subject(
            checkpoint=version.files[0].content,
            module=module,
            import_parameters=await self._import_parameters(request.project, version, importing, inputs),
            datasets=await self._read_datasets(request, recipe),
            profiles=await self._profiles(request),
            teachers={name: await self._teacher(name, request) for name in sorted(recipe.teachers)},
        )

    async def _teacher(self, name: str, request: CompileRequest) -> Teacher:
        """Read the version that a recipe names as ``MODEL@NUMBER``, in the project of the request."""
        model, _, number = name.partition("@")
        if not model or not number.isdecimal():
            raise InvalidArgument("RECIPE_INVALID", _unfit_teacher(name, number))
        parent = f"projects/{request.project}/models/{model}"
        version = await self._registry.get_version(f"{parent}/versions/{number}", request.principal)
        if not version.files:
            raise FailedPrecondition("CHECKPOINT_MISSING", f"{version.name} holds no file: push it again.")
        module, inputs = _files(version)
        told = await self._import_parameters(request.project, version, {}, inputs)
        return Teacher(version.files[0].content, told, module)

    async def _import_parameters(
        self, project: str, version: Version, importing: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return what the import step is told; ``importing`` are the parameters of the pass itself.

        Once import has derived a spec, the version holds it as if it had been declared. Telling the step
        would give it another cache key for the same result: a spec that a known import derived is left out.
        """
        told = import_parameters(version)
        for derived in (("input_spec", "output_spec"), ("output_spec",), ("input_spec",)):
            if any(name not in told for name in derived):
                continue
            fewer = {name: value for name, value in told.items() if name not in derived}
            key = _import_key({**importing, **fewer}, inputs)
            known = await self._database.read(partial(cache.look_up, project=project, cache_key=key))
            if isinstance(known, StepOutcome) and all(
                known.outputs[_SPEC_OUTPUTS[name]].digest == str(Digest.of(canonical_json(told[name])))
                for name in derived
            ):
                return fewer
        return told

    async def _read_datasets(self, request: CompileRequest, recipe: Recipe) -> dict[str, DatasetContent]:
        for role in request.datasets:
            if role not in ROLES:
                raise unknown_role(role, ROLES)
        found = {}
        for role in sorted(recipe.datasets & set(request.datasets)):
            sealed = await self._datasets.get_sealed(request.datasets[role], request.principal)
            if not sealed.manifest_digest:
                raise dataset_not_sealed(sealed.name)
            data = await self._registry.read(request.project, sealed.manifest_digest, request.principal)
            manifest = Given(sealed.manifest_digest, len(data), _MANIFEST_TYPE)
            found[role] = DatasetContent(sealed.name, manifest, read_packs(data, sealed.name))
        return found

    async def _profiles(self, request: CompileRequest) -> tuple[BoardProfile, ...]:
        """Return the distinct profiles of the boards asked for; without boards, that of this machine."""
        if not request.boards:
            return (own_profile(),)
        found: dict[str, BoardProfile] = {}
        for board in request.boards:
            profile = await self._boards.get_profile(board, request.principal)
            found.setdefault(profile.name, profile)
        return tuple(found.values())

    def _new_job(
        self, request: CompileRequest, recipe: Recipe, version: Version, planned: tuple[PlannedStep, ...]
    ) -> NewJob:
        spec = {
            "version": version.name,
            "recipe": {"name": recipe.name, "digest": recipe_digest(recipe), "yaml": recipe.text},
            "datasets": dict(request.datasets),
            "boards": list(request.boards),
            "declared_specs": {INPUT_SPEC: version.input_spec_json, OUTPUT_SPEC: version.output_spec_json},
            "plan": [
                {
                    "step": step.name,
                    "variant": step.variant,
                    "makes_variant": step.makes_variant,
                    "profile": step.profile,
                    "dataset": step.dataset,
                    "measures": list(step.measures),
                }
                for step in planned
            ],
        }
        model = version.name.split("/models/")[-1].split("/")[0]
        return NewJob(
            name=JOB.format(request.project, f"job-{secrets.token_hex(6)}"),
            project=request.project,
            principal=request.principal,
            spec=spec,
            steps=tuple(to_step_spec(step) for step in planned),
            title=f"{model}@{version.number} by {recipe.name}",
            trace=version.traceparent or request.trace,
            retry=request.retry_failed,
        )


def read_recipe(request: CompileRequest) -> Recipe:
    """Return the recipe that a request names or brings.

    Raises:
        InvalidArgument: RECIPE_INVALID, with the line and the nearest known name.
        NotFound: RECIPE_NOT_FOUND.
    """
    try:
        if request.recipe_yaml is not None:
            return parse_recipe(request.recipe_yaml)
        return read_shipped(request.recipe_name or "default")
    except RecipeError as error:
        raise recipe_refused(error) from error


def _files(version: Version) -> tuple[Given | None, dict[str, str]]:
    """Return the user's module, where there is one, and the import step's inputs by their digests."""
    inputs = {CHECKPOINT: version.files[0].content.digest}
    module = next((file.content for file in version.files[1:] if file.path.endswith(".py")), None)
    if module is not None:
        inputs[NETWORK_MODULE] = module.digest
    return module, inputs


def _unfit_teacher(name: str, number: str) -> str:
    if number:
        return (
            f"the teacher {name!r} names the stage {number!r}, whose version changes with every promotion; a "
            f"recipe needs the version itself: write {name.partition('@')[0] or 'MODEL'}@NUMBER (resnet@3)."
        )
    return (
        f"the teacher {name!r} is no model version: write MODEL@NUMBER (resnet@3), or 'baseline' to learn "
        "from the version's own checkpoint."
    )


def _import_key(parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    return cache_key(
        kind=IMPORT.name,
        version=IMPORT.version,
        determinism=IMPORT.determinism,
        parameters=with_defaults(IMPORT, parameters),
        inputs=inputs,
        environment=dict(IMPORT.environment()),
        seed=0,
    )


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of the recipe's text."""
    return str(Digest.of(recipe.text.encode()))


def own_profile() -> BoardProfile:
    """Return the profile of the machine that the compiler runs on."""
    arithmetic = integer_arithmetic()
    if arithmetic.startswith(("aarch64", "arm")):
        return BoardProfile("arm")
    return BoardProfile("x86-vnni" if arithmetic.endswith("vnni") else "x86")


def import_parameters(version: Version) -> dict[str, Any]:
    """Return the parameters of ``compile/import`` that follow from what was pushed.

    Raises:
        InvalidArgument: FIELD_INVALID, when a spec or the builder's arguments are no JSON objects.
    """
    parameters: dict[str, Any] = {"format": version.format or None, "task": version.task}
    texts = {
        "input_spec": version.input_spec_json,
        "output_spec": version.output_spec_json,
        "builder_arguments": version.labels.get(BUILDER_ARGUMENTS_LABEL, ""),
    }
    for name, text in texts.items():
        if text:
            parameters[name] = _json_object(text, name)
    if version.labels.get(BUILDER_LABEL):
        parameters["builder"] = version.labels[BUILDER_LABEL]
    return parameters


def read_packs(manifest: bytes, name: str) -> tuple[Given, ...]:
    """Return the packs that a sealed dataset's manifest lists.

    Raises:
        FailedPrecondition: DATASET_UNREADABLE, when it is of another schema.
    """
    try:
        document = json.loads(manifest)
        if document["schema"] != _MANIFEST_SCHEMA:
            raise ValueError(document["schema"])
        return tuple(Given(str(pack["digest"]), int(pack["size"]), _PACK_TYPE) for pack in document["packs"])
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            "DATASET_UNREADABLE",
            f"the manifest of {name} is not of schema {_MANIFEST_SCHEMA}: seal a new version.",
        ) from error


def to_step_spec(step: PlannedStep) -> StepSpec:
    """Return a planned step as ``boardwright.jobs`` declares it, with its kind's defaults and environment."""
    kind = KINDS[step.kind]
    inputs: dict[str, Blob | OutputOf] = {
        name: OutputOf(given.step, given.output)
        if isinstance(given, FromStep)
        else Blob(given.digest, given.size_bytes, given.media_type)
        for name, given in step.inputs.items()
    }
    return StepSpec(
        step=step.name,
        kind=kind.name,
        version=kind.version,
        determinism=kind.determinism,
        parameters=with_defaults(kind, step.parameters),
        inputs=inputs,
        environment=dict(kind.environment()),
        requires=kind.requires,
    )


def _json_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidArgument("FIELD_INVALID", f"{name} of the version is no JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidArgument("FIELD_INVALID", f"{name} of the version must be a JSON object.")
    return value
