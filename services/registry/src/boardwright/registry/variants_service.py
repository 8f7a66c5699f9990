"""Variants, the artifacts built from them, and the measurements of both."""

from __future__ import annotations

from dataclasses import asdict, replace

from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest
from boardwright.database import Transaction
from boardwright.registry import checks, names
from boardwright.registry.domain.lineage import RECORD, Edge, file_edge
from boardwright.registry.domain.resources import MEASUREMENT_KINDS, Artifact, Measurement, ModelKey, Variant
from boardwright.registry.errors import field_invalid, not_found, variant_exists, version_not_found
from boardwright.registry.ports import BlobReferences, Page, Stores
from boardwright.registry.recording import Call, Recorder
from boardwright.rpc.errors import FailedPrecondition
from boardwright.rpc.names import check_id


class VariantsService:
    """See the module."""

    def __init__(self, recorder: Recorder, blobs: BlobReferences) -> None:
        self._recorder = recorder
        self._database = recorder.database
        self._stores = recorder.stores
        self._blobs = blobs

    async def create_variant(self, call: Call, new: Variant) -> Variant:
        """Record what a recipe made; the same graph under the same id again changes nothing.

        Raises: NotFound VERSION_NOT_FOUND, BLOB_NOT_FOUND; AlreadyExists VARIANT_EXISTS, REQUEST_ID_REUSED;
        FailedPrecondition SPEC_NOT_FIXED; InvalidArgument FIELD_INVALID.
        """
        check_id(new.variant, "variant_id")
        checks.files("variant.graph", [new.graph])
        checks.digest("variant.record_digest", new.record_digest, optional=True)
        checks.digest("variant.recipe_digest", new.recipe_digest, optional=True)
        checks.text("variant.recipe", new.recipe)
        checks.text("variant.quantization_profile", new.quantization_profile, 128)
        new = replace(new, details=checks.json_object("variant.details_json", new.details))
        name = names.variant(new.key, new.number, new.variant)

        def make(tx: Transaction, now: int) -> Variant:
            version = self._stores.versions.find_version(tx, new.key, new.number)
            if version is None:
                raise version_not_found(new.key, new.number)
            old = self._stores.variants.find_variant(tx, new.key, new.number, new.variant)
            if old is not None:
                if old.graph.digest != new.graph.digest:
                    raise variant_exists(name)
                return old
            if not version.input_spec:
                raise FailedPrecondition(
                    "SPEC_NOT_FIXED",
                    f"{names.version(new.key, new.number)} has no InputSpec yet; "
                    "run `import` on it or fix its specs",
                    name=names.version(new.key, new.number),
                )
            checks.blobs(tx, self._blobs, new.key.project, [new.graph], [new.record_digest])
            made = replace(
                new,
                creator=call.actor,
                create_us=now,
                sequence=self._stores.journal.next_number(tx, new.key, "sequence"),
            )
            self._stores.variants.insert_variant(tx, made)
            self._blobs.hold(tx, new.key.project, name, _digests(made.graph.digest, made.record_digest))
            edges = [
                Edge(made.graph.digest, name, "graph"),
                Edge(names.version(new.key, new.number), name, "version"),
                *_record_edge(made.record_digest, name),
            ]
            self._stores.lineage.add_edges(tx, new.key.project, edges)
            self._recorder.record(tx, call, now, new.key.project, name, "variant.created", made)
            return made

        return await self._recorder.create(
            call, names.model(new.key), make, lambda v: v.variant,
            lambda tx, variant: _loaded_variant(self._stores, tx, new.key, new.number, variant),
        )  # fmt: skip

    async def get_variant(self, key: ModelKey, number: int, variant: str) -> Variant:
        """Read a variant. Raises: NotFound VARIANT_NOT_FOUND."""
        return await self._database.read(lambda tx: _loaded_variant(self._stores, tx, key, number, variant))

    async def list_variants(self, key: ModelKey, number: int, page: Page) -> tuple[list[Variant], str]:
        """Newest first. Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH."""
        return await self._database.read(
            lambda tx: self._stores.variants.list_variants(tx, key, number, page)
        )

    async def create_artifact(self, call: Call, new: Artifact) -> Artifact:
        """Record a build. Its id follows from its content: the same build again is the same artifact.

        Raises: NotFound VARIANT_NOT_FOUND, BLOB_NOT_FOUND; AlreadyExists REQUEST_ID_REUSED; InvalidArgument.
        """
        checks.files("artifact.files", new.files)
        checks.digest("artifact.manifest_digest", new.manifest_digest)
        checks.digest("artifact.record_digest", new.record_digest, optional=True)
        for field in ("board", "architecture", "runtime"):
            if not getattr(new.pin, field):
                raise field_invalid(
                    f"artifact.pin.{field}", "is missing; an artifact is built for one exact board"
                )
        checks.text("artifact.toolchain", new.toolchain, 128)
        new = replace(
            new,
            details=checks.json_object("artifact.details_json", new.details),
            artifact=_content_id(new),
            size_bytes=sum(f.size_bytes for f in new.files),
        )
        name = names.artifact(new.key, new.number, new.variant, new.artifact)

        def make(tx: Transaction, now: int) -> Artifact:
            _loaded_variant(self._stores, tx, new.key, new.number, new.variant)
            old = self._stores.variants.find_artifact(tx, new.key, new.number, new.variant, new.artifact)
            if old is not None:
                return old
            others = _digests(new.manifest_digest, new.record_digest)
            checks.blobs(tx, self._blobs, new.key.project, new.files, others)
            made = replace(
                new,
                creator=call.actor,
                create_us=now,
                sequence=self._stores.journal.next_number(tx, new.key, "sequence"),
            )
            self._stores.variants.insert_artifact(tx, made)
            self._blobs.hold(tx, new.key.project, name, _digests(*(f.digest for f in made.files), *others))
            edges = [file_edge(f.digest, name, f.path) for f in made.files]
            edges.append(Edge(names.variant(new.key, new.number, new.variant), name, "variant"))
            edges += _record_edge(made.record_digest, name)
            self._stores.lineage.add_edges(tx, new.key.project, edges)
            self._recorder.record(tx, call, now, new.key.project, name, "artifact.created", made)
            return made

        def load(tx: Transaction, artifact: str) -> Artifact:
            return _loaded_artifact(self._stores, tx, new.key, new.number, new.variant, artifact)

        return await self._recorder.create(call, names.model(new.key), make, lambda a: a.artifact, load)

    async def get_artifact(self, key: ModelKey, number: int, variant: str, artifact: str) -> Artifact:
        """Read an artifact. Raises: NotFound ARTIFACT_NOT_FOUND."""
        return await self._database.read(
            lambda tx: _loaded_artifact(self._stores, tx, key, number, variant, artifact)
        )

    async def list_artifacts(
        self, key: ModelKey, number: int, variant: str, page: Page
    ) -> tuple[list[Artifact], str]:
        """Newest first; of all variants where `variant` is "". Raises: InvalidArgument."""
        return await self._database.read(
            lambda tx: self._stores.variants.list_artifacts(tx, key, number, variant, page)
        )

    async def create_measurement(self, call: Call, new: Measurement) -> Measurement:
        """Record figures of a variant, or of an artifact where `new.artifact` is set.

        Raises: NotFound VARIANT_NOT_FOUND, ARTIFACT_NOT_FOUND, BLOB_NOT_FOUND; AlreadyExists
        REQUEST_ID_REUSED; InvalidArgument FIELD_INVALID.
        """
        _check_measurement(new)
        new = replace(new, details=checks.json_object("measurement.details_json", new.details))

        def make(tx: Transaction, now: int) -> Measurement:
            parent: Variant | Artifact = _loaded_variant(self._stores, tx, new.key, new.number, new.variant)
            if new.artifact:
                parent = _loaded_artifact(self._stores, tx, new.key, new.number, new.variant, new.artifact)
            checks.blobs(tx, self._blobs, new.key.project, [], [new.record_digest])
            sequence = self._stores.journal.next_number(tx, new.key, "sequence")
            made = replace(
                new, measurement=f"m{sequence}", creator=call.actor, create_us=now, sequence=sequence
            )
            self._stores.variants.insert_measurement(tx, made)
            name = names.measurement(made)
            self._blobs.hold(tx, new.key.project, name, _digests(made.record_digest))
            edges = [Edge(names.name_of(parent), name, "measured"), *_record_edge(made.record_digest, name)]
            self._stores.lineage.add_edges(tx, new.key.project, edges)
            self._recorder.record(tx, call, now, new.key.project, name, "measurement.created", made)
            return made

        return await self._recorder.create(
            call, names.model(new.key), make, lambda m: m.measurement,
            lambda tx, figure: _loaded_measurement(self._stores, tx, replace(new, measurement=figure)),
        )  # fmt: skip

    async def get_measurement(self, wanted: Measurement) -> Measurement:
        """Read a measurement by the key fields of `wanted`. Raises: NotFound MEASUREMENT_NOT_FOUND."""
        return await self._database.read(lambda tx: _loaded_measurement(self._stores, tx, wanted))

    async def list_measurements(
        self, key: ModelKey, number: int, variant: str, artifact: str, page: Page
    ) -> tuple[list[Measurement], str]:
        """Everything measured below, newest first. Raises: InvalidArgument."""
        return await self._database.read(
            lambda tx: self._stores.variants.list_measurements(tx, key, number, variant, artifact, page)
        )


def _record_edge(record_digest: str, name: str) -> list[Edge]:
    """From the step to what it made, where the maker told its record."""
    return [Edge(record_digest, name, RECORD)] if record_digest else []


def _digests(*values: str) -> list[str]:
    """Those that are set, once each."""
    return [value for value in dict.fromkeys(values) if value]


def _content_id(new: Artifact) -> str:
    files = [asdict(file) for file in new.files]
    content = [asdict(new.pin), new.toolchain, new.toolchain_version, files, new.manifest_digest]
    return "a" + Digest.of(canonical_json(content)).hex[:12]


def _check_measurement(new: Measurement) -> None:
    checks.one_of("measurement.kind", new.kind, MEASUREMENT_KINDS)
    checks.figures("measurement.values", new.values, needed=True)
    checks.one_of("measurement.origin", new.origin, ("measured", "emulated"))
    checks.digest("measurement.record_digest", new.record_digest, optional=True)
    checks.text("measurement.dataset", new.dataset, 512)
    checks.text("measurement.board", new.board, 63)
    if new.threads < 0:
        raise field_invalid("measurement.threads", "must be 0 (the runtime's default) or more")
    if new.kind in ("accuracy", "parity") and not new.dataset:
        raise field_invalid("measurement.dataset", f"is missing; {new.kind} is judged on a dataset version")
    if new.kind == "latency" and not new.board:
        raise field_invalid("measurement.board", "is missing; a latency speaks of one board")
    if new.kind == "latency" and new.origin == "measured" and new.host.board != new.board:
        raise field_invalid(
            "measurement.origin",
            f"a figure of {new.board} that ran on {new.host.board or 'an unknown host'} was not "
            "measured on the board; record it as emulated",
        )


def _loaded_variant(stores: Stores, tx: Transaction, key: ModelKey, number: int, variant: str) -> Variant:
    found = stores.variants.find_variant(tx, key, number, variant)
    if found is None:
        raise not_found("variant", names.variant(key, number, variant))
    return found


def _loaded_artifact(
    stores: Stores, tx: Transaction, key: ModelKey, number: int, variant: str, artifact: str
) -> Artifact:
    found = stores.variants.find_artifact(tx, key, number, variant, artifact)
    if found is None:
        raise not_found("artifact", names.artifact(key, number, variant, artifact))
    return found


def _loaded_measurement(stores: Stores, tx: Transaction, wanted: Measurement) -> Measurement:
    found = stores.variants.find_measurement(
        tx, wanted.key, wanted.number, wanted.variant, wanted.artifact, wanted.measurement
    )
    if found is None:
        raise not_found("measurement", names.measurement(wanted))
    return found
