"""Releases, and their way over the stages: promotion through gates, dry run, roll back, history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from boardwright.content.digest import Digest
from boardwright.content.oci import (
    INDEX_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    RELEASE_ARTIFACT_TYPE,
    Descriptor,
    ImageIndex,
)
from boardwright.database import Transaction
from boardwright.registry import checks, names
from boardwright.registry.domain import stages
from boardwright.registry.domain.gates import Evidence, judge
from boardwright.registry.domain.lineage import Edge
from boardwright.registry.domain.resources import (
    Artifact,
    ModelKey,
    Promotion,
    Release,
    ReleaseEntry,
    Stage,
    Verdict,
)
from boardwright.registry.errors import (
    blobs_not_found,
    etag_mismatch,
    field_invalid,
    gate_refused,
    not_found,
    stage_not_found,
)
from boardwright.registry.ports import BlobReferences, Documents, Page, Stores
from boardwright.registry.recording import Call, Recorder
from boardwright.rpc.errors import FailedPrecondition, InvalidArgument, NotFound

_MAX_ARTIFACTS = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a promotion or roll back did, or (without `promotion`) would do."""

    stage: Stage
    promotion: Promotion | None
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(verdict.passed for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Intent:
    """How a stage shall be changed. `etag` may be empty only for a dry run."""

    reason: str
    etag: str
    validate_only: bool


class ReleasesService:
    """See the module."""

    def __init__(self, recorder: Recorder, blobs: BlobReferences, documents: Documents) -> None:
        self._recorder = recorder
        self._database = recorder.database
        self._stores = recorder.stores
        self._blobs = blobs
        self._documents = documents

    async def create(
        self, call: Call, key: ModelKey, artifacts: Sequence[tuple[int, str, str]], description: str
    ) -> Release:
        """Make a release of artifacts, each as (version number, variant id, artifact id).

        Raises: NotFound ARTIFACT_NOT_FOUND, BLOB_NOT_FOUND; InvalidArgument PIN_TWICE, FIELD_INVALID,
        ARTIFACT_OF_OTHER_VERSION; AlreadyExists REQUEST_ID_REUSED.
        """
        checks.text("description", description)
        if not 1 <= len(artifacts) <= _MAX_ARTIFACTS:
            raise field_invalid("artifacts", f"needs 1 to {_MAX_ARTIFACTS} artifacts")
        number = artifacts[0][0]
        if any(a[0] != number for a in artifacts):
            raise InvalidArgument(
                "ARTIFACT_OF_OTHER_VERSION", "all artifacts of a release must come from one version"
            )
        found, sizes = await self._database.read(lambda tx: self._collect(tx, key, artifacts))
        _check_pins(found)
        index = _index(key, number, found, sizes)
        digest = await self._documents.store(key.project, index, INDEX_MEDIA_TYPE)
        entries = tuple(ReleaseEntry(a.variant, a.artifact, a.pin, a.manifest_digest) for a in found)

        def make(tx: Transaction, now: int) -> Release:
            taken = self._stores.journal.next_number(tx, key, "release")
            version = self._stores.versions.find_version(tx, key, number)
            # What is made of a version goes on in the trace of its push.
            trace = version.traceparent if version and version.traceparent else call.traceparent
            release = Release(key, taken, number, entries, digest, description, call.actor, now, trace)
            name = names.name_of(release)
            if digest not in self._blobs.sizes(tx, key.project, [digest]):
                raise blobs_not_found([digest])
            self._stores.releases.insert_release(tx, release)
            self._blobs.hold(tx, key.project, name, [digest, *{e.manifest_digest for e in entries}])
            self._stores.lineage.add_edges(
                tx, key.project, [Edge(names.name_of(a), name, a.pin.board) for a in found]
            )
            self._recorder.record(tx, call, now, key.project, name, "release.created", release)
            return release

        return await self._recorder.create(
            call, names.model(key), make, lambda r: str(r.number),
            lambda tx, stored: _loaded(self._stores, tx, key, int(stored)),
        )  # fmt: skip

    def _collect(
        self, tx: Transaction, key: ModelKey, wanted: Sequence[tuple[int, str, str]]
    ) -> tuple[list[Artifact], dict[str, int]]:
        """The artifacts, sorted by pin, and the sizes of their manifests."""
        found = []
        for number, variant, artifact in dict.fromkeys(wanted):
            one = self._stores.variants.find_artifact(tx, key, number, variant, artifact)
            if one is None:
                raise not_found("artifact", names.artifact(key, number, variant, artifact))
            found.append(one)
        sizes = dict(self._blobs.sizes(tx, key.project, [a.manifest_digest for a in found]))
        missing = [a.manifest_digest for a in found if a.manifest_digest not in sizes]
        if missing:
            raise blobs_not_found(missing)
        return sorted(found, key=lambda a: (a.pin.board, a.artifact)), sizes

    async def get(self, key: ModelKey, reference: str) -> Release:
        """Read a release by number, "latest" or stage. Raises: NotFound RELEASE_NOT_FOUND, STAGE_EMPTY."""

        def read(tx: Transaction) -> Release:
            if reference.isdecimal():
                return _loaded(self._stores, tx, key, int(reference))
            if reference == "latest":
                newest = self._stores.releases.newest_release(tx, key)
                if newest is None:
                    raise not_found("release", f"{names.model(key)}/releases/latest")
                return newest
            stage = self._stores.models.find_stage(tx, key, reference)
            if stage is None:
                raise not_found("release", f"{names.model(key)}/releases/{reference}")
            if not stage.release:
                raise NotFound(
                    "STAGE_EMPTY",
                    f"no release is on stage {reference}; promote one",
                    stage=names.name_of(stage),
                )
            return _loaded(self._stores, tx, key, stage.release)

        return await self._database.read(read)

    async def page(self, key: ModelKey, page: Page) -> tuple[list[Release], str]:
        """Newest first. Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH."""
        return await self._database.read(lambda tx: self._stores.releases.list_releases(tx, key, page))

    async def promote(self, call: Call, key: ModelKey, number: int, stage: str, intent: Intent) -> Outcome:
        """Judge a release by a stage's gates and, if all pass, put it there.

        Raises: NotFound RELEASE_NOT_FOUND, STAGE_NOT_FOUND; Aborted ETAG_MISMATCH; FailedPrecondition
        GATE_REFUSED; InvalidArgument FIELD_INVALID; AlreadyExists REQUEST_ID_REUSED.
        """
        _check_intent(intent)

        def prepare(tx: Transaction) -> tuple[Stage, tuple[Verdict, ...]]:
            release = _loaded(self._stores, tx, key, number)
            current = _current(self._stores, tx, key, stage, intent)
            return current, _judge(self._stores, tx, release, current)

        if intent.validate_only:
            current, verdicts = await self._database.read(prepare)
            return Outcome(current, None, verdicts)

        def make(tx: Transaction, now: int) -> Outcome:
            current, verdicts = prepare(tx)
            refusals = [verdict for verdict in verdicts if not verdict.passed]
            if refusals:
                raise gate_refused(refusals, stage)
            again = current.promotion if current.release == number else 0
            standing = self._stores.models.find_promotion(tx, key, again) if again else None
            taken = self._stores.journal.next_number(tx, key, "promotion")
            move = stages.promote(
                current,
                number,
                taken,
                reason=intent.reason,
                verdicts=verdicts,
                actor=call.actor,
                now_us=now,
                standing=standing,
            )
            return self._store(tx, call, now, move)

        return await self._change(call, key, make)

    async def roll_back(self, call: Call, key: ModelKey, stage: str, intent: Intent) -> Outcome:
        """Put the release back that the stage held before. It stood there: its gates are not judged again.

        Raises: NotFound STAGE_NOT_FOUND; Aborted ETAG_MISMATCH; FailedPrecondition NOTHING_TO_ROLL_BACK;
        InvalidArgument FIELD_INVALID; AlreadyExists REQUEST_ID_REUSED.
        """
        _check_intent(intent)

        def prepare(tx: Transaction) -> tuple[Stage, Promotion]:
            current = _current(self._stores, tx, key, stage, intent)
            top = (
                self._stores.models.find_promotion(tx, key, current.promotion) if current.promotion else None
            )
            base = self._stores.models.find_promotion(tx, key, top.base) if top and top.base else None
            if base is None:
                raise FailedPrecondition(
                    "NOTHING_TO_ROLL_BACK",
                    f"stage {stage} held no release before the present one; promote another release instead",
                    stage=names.name_of(current),
                )
            return current, base

        if intent.validate_only:
            current, base = await self._database.read(prepare)
            return Outcome(replace(current, release=base.release), None, ())

        def make(tx: Transaction, now: int) -> Outcome:
            current, base = prepare(tx)
            move = stages.roll_back(
                current,
                base,
                self._stores.journal.next_number(tx, key, "promotion"),
                reason=intent.reason,
                actor=call.actor,
                now_us=now,
            )
            return self._store(tx, call, now, move)

        return await self._change(call, key, make)

    def _store(self, tx: Transaction, call: Call, now: int, move: stages.Move) -> Outcome:
        self._stores.models.update_stage(tx, move.stage)
        self._stores.models.insert_promotion(tx, move.promotion)
        name = names.name_of(move.stage)
        self._recorder.record(
            tx, call, now, move.stage.key.project, name, "stage.changed",
            {"stage": move.stage, "promotion": move.promotion}, move.promotion.reason,
        )  # fmt: skip
        return Outcome(move.stage, move.promotion, move.promotion.verdicts)

    async def _change(
        self, call: Call, key: ModelKey, make: Callable[[Transaction, int], Outcome]
    ) -> Outcome:
        def load(tx: Transaction, number: str) -> Outcome:
            record = self._stores.models.find_promotion(tx, key, int(number))
            stage = self._stores.models.find_stage(tx, key, record.stage) if record else None
            if record is None or stage is None:
                raise not_found("promotion", f"{names.model(key)}/promotions/{number}")
            return Outcome(stage, record, record.verdicts)

        return await self._recorder.create(
            call, names.model(key), make, lambda o: str(o.promotion.number if o.promotion else 0), load
        )

    async def list_promotions(self, key: ModelKey, page: Page) -> tuple[list[Promotion], str]:
        """Newest first. Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH."""
        return await self._database.read(lambda tx: self._stores.models.list_promotions(tx, key, page))


def _check_intent(intent: Intent) -> None:
    checks.text("reason", intent.reason)
    if not intent.etag and not intent.validate_only:
        raise field_invalid("etag", "is missing; read the stage and send its etag")


def _loaded(stores: Stores, tx: Transaction, key: ModelKey, number: int) -> Release:
    release = stores.releases.find_release(tx, key, number)
    if release is None:
        raise not_found("release", f"{names.model(key)}/releases/{number}")
    return release


def _current(stores: Stores, tx: Transaction, key: ModelKey, stage: str, intent: Intent) -> Stage:
    current = stores.models.find_stage(tx, key, stage)
    if current is None:
        raise stage_not_found(key, stage, stores.models.list_stages(tx, key))
    if intent.etag and intent.etag != str(current.revision):
        raise etag_mismatch(names.name_of(current), str(current.revision))
    return current


def _judge(stores: Stores, tx: Transaction, release: Release, stage: Stage) -> tuple[Verdict, ...]:
    if not stage.gates:
        return ()
    evidence = Evidence(
        release.entries,
        stores.variants.figures_for_gates(tx, release.key, release.version),
        names.version(release.key, release.version),
        names.measurement,
    )
    return tuple(judge(gate, evidence) for gate in stage.gates)


def _check_pins(found: Sequence[Artifact]) -> None:
    by_pin: dict[object, Artifact] = {}
    for artifact in found:
        other = by_pin.setdefault(artifact.pin, artifact)
        if other is not artifact:
            raise InvalidArgument(
                "PIN_TWICE",
                f"{names.name_of(other)} and {names.name_of(artifact)} are built for the same pin; "
                "keep the better one",
                first=names.name_of(other),
                second=names.name_of(artifact),
            )


def _index(key: ModelKey, number: int, found: Sequence[Artifact], sizes: dict[str, int]) -> bytes:
    """The OCI index over the artifacts' manifests; the pin travels as annotations."""
    manifests = tuple(
        Descriptor(
            MANIFEST_MEDIA_TYPE,
            Digest.parse(a.manifest_digest),
            sizes[a.manifest_digest],
            annotations={
                "dev.boardwright.artifact": names.name_of(a),
                "dev.boardwright.pin.board": a.pin.board,
                "dev.boardwright.pin.runtime": a.pin.runtime,
                "dev.boardwright.pin.runtime-version": a.pin.runtime_version,
            },
        )
        for a in found
    )
    annotations = {"dev.boardwright.version": names.version(key, number)}
    return ImageIndex(manifests, RELEASE_ARTIFACT_TYPE, annotations).to_bytes()
