"""Where the registry's parts are wired together, and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from boardwright.api.registry.v1 import blobs_pb2_grpc, registry_pb2_grpc
from boardwright.content import BlobStore, open_store
from boardwright.database import Database
from boardwright.database.housekeeping import keep_house
from boardwright.database.outbox import Outbox
from boardwright.registry.blobs_collector import BlobCollector
from boardwright.registry.blobs_service import BlobsService
from boardwright.registry.domain.blobs import BlobPolicy
from boardwright.registry.lineage_service import LineageService
from boardwright.registry.models_service import ModelsService
from boardwright.registry.ports import Stores
from boardwright.registry.recording import Recorder
from boardwright.registry.releases_service import ReleasesService
from boardwright.registry.rpc import blobs_servicer
from boardwright.registry.rpc.permissions import PERMISSIONS
from boardwright.registry.rpc.servicer import RegistryServicer
from boardwright.registry.settings import MIGRATIONS, SCHEMA, Settings
from boardwright.registry.storage import journal, lineage, models, releases, variants, versions
from boardwright.registry.storage.blob_references import SqlBlobReferences
from boardwright.registry.storage.blobs import SqlBlobRepository
from boardwright.registry.variants_service import VariantsService
from boardwright.registry.versions_service import VersionsService
from boardwright.rpc.server import Service, serve

_COLLECTION_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class StoredDocuments:
    """`ports.Documents` over the Blobs API."""

    blobs: BlobsService

    async def store(self, project: str, data: bytes, media_type: str) -> str:
        """See `ports.Documents`; the Blobs API keeps no media types."""
        return str((await self.blobs.create(project, data)).digest)


def make_recorder(database: Database) -> Recorder:
    """The database with its stores and its event log."""
    stores = Stores(models, versions, variants, releases, lineage, journal)
    return Recorder(database, stores, Outbox(database))


def services(database: Database, store: BlobStore, policy: BlobPolicy | None = None) -> list[Service]:
    """The registry's gRPC services over an open database and blob store."""
    recorder = make_recorder(database)
    references = SqlBlobReferences()
    repository = SqlBlobRepository(database)
    blobs = BlobsService(repository, store, policy)
    registry = RegistryServicer(
        ModelsService(recorder),
        VersionsService(recorder, references),
        VariantsService(recorder, references),
        ReleasesService(recorder, references, StoredDocuments(blobs)),
        LineageService(recorder, references),
    )
    blob_servicer = blobs_servicer.BlobsServicer(blobs, BlobCollector(repository, store, policy))
    return [
        Service(registry_pb2_grpc.add_RegistryServicer_to_server, registry, PERMISSIONS),
        Service(blobs_pb2_grpc.add_BlobsServicer_to_server, blob_servicer, blobs_servicer.PERMISSIONS),
    ]


async def run() -> None:
    """Serve until told to stop. Raises: ValueError (settings), DatabaseError, OSError, ContentError."""
    settings = Settings.from_environment()
    database = open_database(settings.database_url)
    try:
        await asyncio.to_thread(database.migrate)
        store = open_store(
            settings.blobs_url,
            signing_key=settings.signing_key.encode(),
            # The gateway mounts the directory store there.
            public_url=f"{settings.gateway_url}/transfer" if settings.gateway_url else "",
        )
        collector = BlobCollector(SqlBlobRepository(database), store, settings.blob_policy)
        await serve(
            services(database, store, settings.blob_policy),
            settings.server,
            background=[lambda: keep_house(database), lambda: collector.collect_forever(_COLLECTION_SECONDS)],
        )
    finally:
        database.close()


def open_database(url: str) -> Database:
    """The registry's database."""
    return Database.open(url, schema=SCHEMA, migrations=MIGRATIONS)
