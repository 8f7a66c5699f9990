"""Where the compiler's parts are wired together."""

from __future__ import annotations

from boardwright.api.compiler.v1 import compiler_pb2_grpc
from boardwright.api.jobs.v1 import jobs_pb2_grpc
from boardwright.compiler.publishing import Publisher
from boardwright.compiler.rpc.clients import BuilderClient, CalibrationClient, RegistryClient
from boardwright.compiler.rpc.permissions import PERMISSIONS
from boardwright.compiler.rpc.servicer import CompilerServicer
from boardwright.compiler.service import JOB, CompilerService
from boardwright.compiler.settings import SERVICE, CompilerSettings
from boardwright.compiler.storage.journal import SqlJournal
from boardwright.database import Database
from boardwright.database.housekeeping import keep_house
from boardwright.database.outbox import Outbox
from boardwright.jobs.rpc import leases_servicer
from boardwright.jobs.rpc.collection import JobCollection
from boardwright.jobs.rpc.keeper import BlobsKeeper
from boardwright.jobs.service import JobService
from boardwright.jobs.storage.retention import forgetting
from boardwright.rpc.client import connect
from boardwright.rpc.server import Service
from boardwright.rpc.server import serve as serve_grpc

MIGRATIONS = "boardwright.compiler:storage/migrations"


def open_database(url: str) -> Database:
    """Return the compiler's database; nothing is opened yet."""
    return Database.open(url, schema=SERVICE, migrations=MIGRATIONS)


async def serve() -> None:
    """Serve until SIGTERM.

    Raises:
        ValueError: a setting is missing.
        DatabaseError, OSError: the database or the address is not available.
    """
    settings = CompilerSettings.from_environment()
    database = open_database(settings.database_url)
    try:
        database.migrate()
        channels = {
            name: connect(endpoint or "127.0.0.1:1", token=settings.service_token)
            for name, endpoint in (
                ("registry", settings.registry),
                ("calibration", settings.calibration),
                ("builder", settings.builder),
            )
        }
        registry = RegistryClient(channels["registry"], settings.registry, settings.service_token)
        publisher = Publisher(registry, SqlJournal(Outbox(database)))
        jobs = JobService(database, publisher, BlobsKeeper(channels["registry"], SERVICE))
        service = CompilerService(
            database,
            jobs,
            registry,
            CalibrationClient(channels["calibration"]),
            BuilderClient(channels["builder"]),
        )
        servicer = CompilerServicer(service, JobCollection(jobs, database, JOB))
        leases = leases_servicer.LeasesServicer(jobs, settings.grant_key)
        await serve_grpc(
            [
                Service(compiler_pb2_grpc.add_CompilerServicer_to_server, servicer, PERMISSIONS),
                Service(jobs_pb2_grpc.add_LeasesServicer_to_server, leases, leases_servicer.PERMISSIONS),
            ],
            settings.server,
            background=[jobs.run, lambda: keep_house(database, *forgetting(settings.jobs_kept_days))],
        )
        for channel in channels.values():
            await channel.close(None)
    finally:
        database.close()
