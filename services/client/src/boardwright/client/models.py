"""Models and everything below them: reads, aliases, gates, stages."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.client import references
from boardwright.client.connection import Connection, every_page
from boardwright.rpc.errors import NotFound


class Models:
    """`client.models`. References are shorthand or full names (`boardwright.client.references`)."""

    def __init__(self, connection: Connection, project: str) -> None:
        self._connection = connection
        self._project = project

    @property
    def _parent(self) -> str:
        return f"projects/{self._project}"

    def create(
        self,
        model: str,
        *,
        task: str = "",
        description: str = "",
        stages: Iterable[str] = (),
        gates: Iterable[pb.Gate] = (),
        request_id: str = "",
    ) -> pb.Model:
        """Create a model. Raises: AlreadyExists MODEL_EXISTS; InvalidArgument FIELD_INVALID."""
        created: pb.Model = self._connection.registry.CreateModel(
            pb.CreateModelRequest(
                parent=self._parent,
                model_id=model,
                model=pb.Model(task=task, description=description, stages=list(stages), gates=list(gates)),
                request_id=request_id,
            )
        )
        return created

    def get(self, model: str) -> pb.Model:
        """A model. Raises: NotFound MODEL_NOT_FOUND."""
        name = references.model_name(self._project, model)
        found: pb.Model = self._connection.registry.GetModel(pb.GetModelRequest(name=name))
        return found

    def list(self, *, where: str = "", limit: int = 0) -> Iterator[pb.Model]:
        """The project's models by id, at most `limit` (0: all). Raises: InvalidArgument FILTER_INVALID."""
        request = pb.ListModelsRequest(parent=self._parent, filter=where)
        return every_page(self._connection.registry.ListModels, request, "models", limit)

    def set_gates(self, model: str, gates: Iterable[pb.Gate]) -> pb.Model:
        """Replace a model's gates. Raises: NotFound MODEL_NOT_FOUND; Aborted ETAG_MISMATCH."""
        current = self.get(model)
        changed = pb.Model(name=current.name, gates=list(gates), etag=current.etag)
        updated: pb.Model = self._connection.registry.UpdateModel(
            pb.UpdateModelRequest(model=changed, update_fields=["gates"])
        )
        return updated

    def version(self, reference: str) -> pb.ModelVersion:
        """A version: digits@3, digits@latest, digits@alias. Raises: NotFound VERSION_NOT_FOUND."""
        name = references.version_name(self._project, reference)
        found: pb.ModelVersion = self._connection.registry.GetModelVersion(
            pb.GetModelVersionRequest(name=name)
        )
        return found

    def versions(self, model: str, *, where: str = "", limit: int = 0) -> Iterator[pb.ModelVersion]:
        """A model's versions, newest first."""
        request = pb.ListModelVersionsRequest(
            parent=references.model_name(self._project, model), filter=where
        )
        return every_page(self._connection.registry.ListModelVersions, request, "versions", limit)

    def set_alias(self, reference: str, alias: str, *, etag: str = "") -> pb.Alias:
        """Point an alias at a version. Raises: NotFound VERSION_NOT_FOUND; Aborted ETAG_MISMATCH."""
        version = self.version(reference)
        model = references.model_name(self._project, reference)
        wanted = pb.Alias(name=f"{model}/aliases/{alias}", version=version.name, etag=etag)
        stored: pb.Alias = self._connection.registry.SetAlias(pb.SetAliasRequest(alias=wanted))
        return stored

    def aliases(self, model: str) -> Iterator[pb.Alias]:
        """A model's aliases."""
        request = pb.ListAliasesRequest(parent=references.model_name(self._project, model))
        return every_page(self._connection.registry.ListAliases, request, "aliases")

    def variant(self, reference: str) -> pb.Variant:
        """A variant: digits@3/int8. Raises: NotFound VARIANT_NOT_FOUND."""
        name = self._resolved(references.variant_name(self._project, reference))
        found: pb.Variant = self._connection.registry.GetVariant(pb.GetVariantRequest(name=name))
        return found

    def variants(self, version: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Variant]:
        """A version's variants, newest first."""
        request = pb.ListVariantsRequest(parent=self.version(version).name, filter=where)
        return every_page(self._connection.registry.ListVariants, request, "variants", limit)

    def artifact(self, reference: str) -> pb.Artifact:
        """An artifact by name. Raises: NotFound ARTIFACT_NOT_FOUND."""
        name = self._resolved(references.artifact_name(self._project, reference))
        found: pb.Artifact = self._connection.registry.GetArtifact(pb.GetArtifactRequest(name=name))
        return found

    def artifacts(self, reference: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Artifact]:
        """Artifacts of a variant (digits@3/int8) or of all variants of a version (digits@3)."""
        if "/variants/" in reference or (
            not references.is_full(reference) and references.parse(reference).inner
        ):
            parent = self._resolved(references.variant_name(self._project, reference))
        else:
            parent = f"{self.version(reference).name}/variants/-"
        request = pb.ListArtifactsRequest(parent=parent, filter=where)
        return every_page(self._connection.registry.ListArtifacts, request, "artifacts", limit)

    def newest_artifacts(self, reference: str, *, board: str = "") -> builtins.list[pb.Artifact]:
        """The artifact that is named, or the newest one for each pin of a variant (of one board, if given).

        Raises: NotFound: ARTIFACT_NOT_FOUND, also when the variant was not built (for the board).
        """
        parts = reference.split("/") if references.is_full(reference) else references.parse(reference).inner
        if len(parts) in (2, 10):
            return [self.artifact(reference)]
        where = f'board = "{board}"' if board else ""
        newest: dict[bytes, pb.Artifact] = {}
        for artifact in self.artifacts(reference, where=where):
            newest.setdefault(artifact.pin.SerializeToString(deterministic=True), artifact)
        if not newest:
            wanted = f"for {board} " if board else ""
            build = f"boardwright build {reference} --board {board or 'BOARD'}"
            raise NotFound("ARTIFACT_NOT_FOUND", f"{reference} was not built {wanted}yet: {build}")
        return list(newest.values())

    def measurements(self, parent: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Measurement]:
        """Everything measured below a version, a variant or an artifact."""
        request = pb.ListMeasurementsRequest(parent=self._measured(parent), filter=where)
        return every_page(self._connection.registry.ListMeasurements, request, "measurements", limit)

    def measurement(self, reference: str) -> pb.Measurement:
        """A measurement: digits@3/int8/m7, digits@3/int8/ARTIFACT/m8. Raises: NotFound."""
        name = self._resolved(references.measurement_name(self._project, reference))
        request = pb.GetMeasurementRequest(name=name)
        found: pb.Measurement = self._connection.registry.GetMeasurement(request)
        return found

    def release(self, reference: str) -> pb.Release:
        """A release: digits@r2, digits@production, digits (the newest). Raises: NotFound."""
        name = references.release_name(self._project, reference)
        found: pb.Release = self._connection.registry.GetRelease(pb.GetReleaseRequest(name=name))
        return found

    def releases(self, model: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Release]:
        """A model's releases, newest first."""
        request = pb.ListReleasesRequest(parent=references.model_name(self._project, model), filter=where)
        return every_page(self._connection.registry.ListReleases, request, "releases", limit)

    def stage(self, reference: str) -> pb.Stage:
        """A stage: digits@production. Raises: NotFound STAGE_NOT_FOUND."""
        name = references.stage_name(self._project, reference)
        found: pb.Stage = self._connection.registry.GetStage(pb.GetStageRequest(name=name))
        return found

    def stages(self, model: str) -> builtins.list[pb.Stage]:
        """A model's ladder, lowest rung first."""
        request = pb.ListStagesRequest(parent=references.model_name(self._project, model))
        answer: pb.ListStagesResponse = self._connection.registry.ListStages(request)
        return [*answer.stages]

    def history(self, model: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Promotion]:
        """Every change of a model's stages, newest first, with who, when and why."""
        request = pb.ListPromotionsRequest(parent=references.model_name(self._project, model), filter=where)
        return every_page(self._connection.registry.ListPromotions, request, "promotions", limit)

    def lineage(self, reference: str, *, direction: str = "both", depth: int = 10) -> pb.Lineage:
        """What a digest or resource was made of ("ancestors"), went into ("descendants"), or both.

        Raises:
            NotFound: LINEAGE_NOT_FOUND.
        """
        ways = {
            "both": pb.GetLineageRequest.DIRECTION_UNSPECIFIED,
            "ancestors": pb.GetLineageRequest.DIRECTION_ANCESTORS,
            "descendants": pb.GetLineageRequest.DIRECTION_DESCENDANTS,
        }
        graph: pb.Lineage = self._connection.registry.GetLineage(
            pb.GetLineageRequest(
                parent=self._parent, id=self.resolve(reference), direction=ways[direction], depth=depth
            )
        )
        return graph

    def resolve(self, reference: str) -> str:
        """The full name (or digest) that a reference speaks of, with numbers instead of `latest` and stages.

        A name behind the @ is looked for among the stages first, then among the aliases.

        Raises:
            NotFound: there is no such thing.
            InvalidArgument: REFERENCE_INVALID.
        """
        if references.is_full(reference) or reference.startswith("sha256:"):
            return reference
        parsed = references.parse(reference)
        if not parsed.selector:
            return references.model_name(self._project, reference)
        if references.is_measurement(parsed.inner):
            return self.measurement(reference).name
        if len(parsed.inner) == 2:
            return self.artifact(reference).name
        if parsed.inner:
            return self.variant(reference).name
        if parsed.selector.isdigit() or parsed.selector == "latest":
            return self.version(reference).name
        try:
            return self.release(reference).name
        except NotFound:
            if references.names_release(parsed):
                raise
            return self.version(reference).name

    def _measured(self, parent: str) -> str:
        resolved = self.resolve(parent)
        if resolved.split("/")[-2] == "models":
            return self.version(resolved + "/versions/latest").name
        return resolved

    def _resolved(self, name: str) -> str:
        """Replace an alias or `latest` in a name by the version's number."""
        head, versions, tail = name.partition("/versions/")
        selector, slash, rest = tail.partition("/")
        if selector.isdigit():
            return name
        return f"{self.version(f'{head}{versions}{selector}').name}{slash}{rest}"
