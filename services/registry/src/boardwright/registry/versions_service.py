"""Model versions and aliases."""

from __future__ import annotations

from dataclasses import replace

from boardwright.database import Transaction
from boardwright.registry import checks, names
from boardwright.registry.domain.lineage import file_edge
from boardwright.registry.domain.resources import FORMATS, Alias, ModelKey, ModelVersion
from boardwright.registry.errors import (
    alias_not_found,
    etag_mismatch,
    field_invalid,
    model_not_found,
    version_not_found,
)
from boardwright.registry.ports import BlobReferences, Page, Stores
from boardwright.registry.recording import Call, Recorder
from boardwright.rpc.errors import FailedPrecondition
from boardwright.rpc.names import check_id

LATEST = "latest"


class VersionsService:
    """See the module."""

    def __init__(self, recorder: Recorder, blobs: BlobReferences) -> None:
        self._recorder = recorder
        self._database = recorder.database
        self._stores = recorder.stores
        self._blobs = blobs

    async def create(self, call: Call, new: ModelVersion) -> ModelVersion:
        """Record a pushed checkpoint under the model's next number.

        Raises: NotFound MODEL_NOT_FOUND, BLOB_NOT_FOUND; AlreadyExists REQUEST_ID_REUSED; InvalidArgument.
        """
        new = _checked(new)
        key = new.key

        def make(tx: Transaction, now: int) -> ModelVersion:
            if not self._stores.models.model_exists(tx, key):
                raise model_not_found(key)
            checks.blobs(tx, self._blobs, key.project, new.files)
            number = self._stores.journal.next_number(tx, key, "version")
            version = replace(
                new, number=number, creator=call.actor, create_us=now, traceparent=call.traceparent
            )
            self._stores.versions.insert_version(tx, version)
            name = names.version(key, number)
            digests = list(dict.fromkeys(f.digest for f in version.files))
            self._blobs.hold(tx, key.project, name, digests)
            self._stores.lineage.add_edges(
                tx, key.project, [file_edge(f.digest, name, f.path) for f in version.files]
            )
            self._recorder.record(tx, call, now, key.project, name, "version.created", version)
            return version

        return await self._recorder.create(
            call, names.model(key), make, lambda v: str(v.number),
            lambda tx, number: _loaded(self._stores, tx, key, int(number)),
        )  # fmt: skip

    async def get(self, key: ModelKey, reference: str) -> ModelVersion:
        """Read by number, "latest" or alias. Raises: NotFound VERSION_NOT_FOUND, ALIAS_NOT_FOUND."""

        def read(tx: Transaction) -> ModelVersion:
            if reference.isdecimal():
                return _loaded(self._stores, tx, key, int(reference))
            if reference == LATEST:
                newest = self._stores.versions.newest_version(tx, key)
                if newest is None:
                    raise version_not_found(key, LATEST)
                return newest
            found = self._stores.versions.version_of_alias(tx, key, reference)
            if found is None:
                raise alias_not_found(key, reference)
            return found

        return await self._database.read(read, snapshot=False)

    async def page(self, key: ModelKey, page: Page) -> tuple[list[ModelVersion], str]:
        """Newest first. Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH."""
        return await self._database.read(lambda tx: self._stores.versions.list_versions(tx, key, page))

    async def fix_specs(
        self, call: Call, key: ModelKey, number: int, input_spec: str, output_spec: str
    ) -> ModelVersion:
        """Fix the specs of a version once; the same specs again change nothing.

        Raises: NotFound VERSION_NOT_FOUND, FailedPrecondition SPEC_FIXED, InvalidArgument FIELD_INVALID.
        """
        input_spec = checks.json_object("input_spec_json", input_spec, optional=False)
        output_spec = checks.json_object("output_spec_json", output_spec)

        def change(tx: Transaction, now: int) -> ModelVersion:
            old = _loaded(self._stores, tx, key, number)
            fixed = replace(old, input_spec=input_spec, output_spec=output_spec or old.output_spec)
            if fixed == old:
                return old
            if (old.input_spec and old.input_spec != fixed.input_spec) or (
                old.output_spec and old.output_spec != fixed.output_spec
            ):
                raise FailedPrecondition(
                    "SPEC_FIXED",
                    f"another spec is fixed for {names.version(key, number)}; "
                    "push a new version with this one",
                    name=names.version(key, number),
                )
            self._stores.versions.fix_specs(tx, fixed)
            name = names.version(key, number)
            self._recorder.record(tx, call, now, key.project, name, "version.specs-fixed", fixed)
            return fixed

        return await self._recorder.change(names.model(key), change)

    async def set_alias(self, call: Call, key: ModelKey, alias: str, number: int, etag: str) -> Alias:
        """Point an alias at a version.

        Raises: NotFound VERSION_NOT_FOUND, Aborted ETAG_MISMATCH, InvalidArgument FIELD_INVALID.
        """
        check_id(alias, "alias")
        if alias == LATEST:
            raise field_invalid("alias", "latest always means the newest version; choose another name")

        def change(tx: Transaction, now: int) -> Alias:
            if not self._stores.versions.version_exists(tx, key, number):
                raise version_not_found(key, number)
            old = self._stores.versions.find_alias(tx, key, alias)
            current = str(old.revision) if old else ""
            if etag and etag != current:
                raise etag_mismatch(f"{names.model(key)}/aliases/{alias}", current)
            new = Alias(key, alias, number, _next_revision(old, now), now)
            self._stores.versions.store_alias(tx, new)
            self._recorder.record(tx, call, now, key.project, names.name_of(new), "alias.changed", new)
            return new

        return await self._recorder.change(names.model(key), change)

    async def get_alias(self, key: ModelKey, alias: str) -> Alias:
        """Read an alias. Raises: NotFound ALIAS_NOT_FOUND."""
        return await self._database.read(lambda tx: _loaded_alias(self._stores, tx, key, alias))

    async def list_aliases(self, key: ModelKey, page: Page) -> tuple[list[Alias], str]:
        """By id. Raises: InvalidArgument PAGE_TOKEN_MISMATCH."""
        return await self._database.read(lambda tx: self._stores.versions.list_aliases(tx, key, page))

    async def delete_alias(self, call: Call, key: ModelKey, alias: str, etag: str) -> Alias:
        """Remove an alias; returns what it was. Raises: NotFound ALIAS_NOT_FOUND, Aborted ETAG_MISMATCH."""

        def change(tx: Transaction, now: int) -> Alias:
            old = _loaded_alias(self._stores, tx, key, alias)
            if etag and etag != str(old.revision):
                raise etag_mismatch(names.name_of(old), str(old.revision))
            self._stores.versions.delete_alias(tx, old)
            self._recorder.record(tx, call, now, key.project, names.name_of(old), "alias.deleted", old)
            return old

        return await self._recorder.change(names.model(key), change)


def _next_revision(old: Alias | None, now: int) -> int:
    """A number that was never an etag of this alias, even if it was deleted and made again meanwhile."""
    return max(now, old.revision + 1 if old else 0)


def _loaded(stores: Stores, tx: Transaction, key: ModelKey, number: int) -> ModelVersion:
    version = stores.versions.find_version(tx, key, number)
    if version is None:
        raise version_not_found(key, number)
    return version


def _loaded_alias(stores: Stores, tx: Transaction, key: ModelKey, alias: str) -> Alias:
    found = stores.versions.find_alias(tx, key, alias)
    if found is None:
        raise alias_not_found(key, alias)
    return found


def _checked(new: ModelVersion) -> ModelVersion:
    """The version with its JSON made canonical. Raises: InvalidArgument FIELD_INVALID."""
    checks.one_of("version.format", new.format, FORMATS)
    checks.files("version.files", new.files)
    checks.labels("version.labels", new.labels)
    checks.figures("version.metrics", new.metrics, needed=False)
    for field, value in (("commit", new.commit), ("run", new.run), ("description", new.description)):
        checks.text(f"version.{field}", value)
    if not new.input_spec and not new.output_spec:
        return new
    return replace(
        new,
        input_spec=checks.json_object("version.input_spec_json", new.input_spec),
        output_spec=checks.json_object("version.output_spec_json", new.output_spec),
    )
