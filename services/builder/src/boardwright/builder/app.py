"""Where the builder's parts are wired together."""

from __future__ import annotations

from contextlib import AsyncExitStack

from boardwright.api.builder.v1 import builder_pb2_grpc
from boardwright.api.jobs.v1 import jobs_pb2_grpc
from boardwright.builder.catalogue import shipped_catalogue
from boardwright.builder.rpc.calibration_client import CalibrationClient
from boardwright.builder.rpc.leases import NotingLeasesServicer
from boardwright.builder.rpc.permissions import PERMISSIONS
from boardwright.builder.rpc.registry_client import RegistryClient, downloader
from boardwright.builder.rpc.servicer import BUILD_JOB, BuilderServicer
from boardwright.builder.service import BuilderService
from boardwright.builder.settings import MIGRATIONS, SCHEMA, Settings
from boardwright.builder.storage.journal import add_audit_event
from boardwright.builder.workers import WorkersSeen
from boardwright.database import Database
from boardwright.database.housekeeping import keep_house
from boardwright.database.outbox import Outbox
from boardwright.jobs.rpc.collection import JobCollection
from boardwright.jobs.rpc.keeper import BlobsKeeper
from boardwright.jobs.rpc.leases_servicer import PERMISSIONS as LEASE_PERMISSIONS
from boardwright.jobs.service import JobService
from boardwright.jobs.storage.retention import forgetting
from boardwright.model.host import detect_host
from boardwright.rpc.client import connect
from boardwright.rpc.server import Service, serve


async def run() -> None:
    """Serve until told to stop. Raises: ValueError (settings), DatabaseError, OSError."""
    settings = Settings.from_environment()
    database = open_database(settings.database_url)
    async with AsyncExitStack() as stack:
        stack.callback(database.close)
        database.migrate()
        registry_channel = connect(settings.registry_endpoint, token=settings.token)
        stack.push_async_callback(registry_channel.close, None)
        calibration_channel = connect(settings.calibration_endpoint, token=settings.token)
        stack.push_async_callback(calibration_channel.close, None)
        host = detect_host(settings.board)
        workers = WorkersSeen(host.board, host.cpu_features)
        builder = BuilderService(
            database,
            Outbox(database),
            add_audit_event,
            RegistryClient(registry_channel, downloader(settings.registry_endpoint, settings.token)),
            CalibrationClient(calibration_channel),
            shipped_catalogue,
            workers,
        )
        jobs = JobService(database, builder, BlobsKeeper(registry_channel, "builder"))
        builder.attach(jobs)
        servicer = BuilderServicer(builder, JobCollection(jobs, database, BUILD_JOB))
        leases = NotingLeasesServicer(jobs, settings.server.grant_key, workers)
        await serve(
            [
                Service(builder_pb2_grpc.add_BuilderServicer_to_server, servicer, PERMISSIONS),
                Service(jobs_pb2_grpc.add_LeasesServicer_to_server, leases, LEASE_PERMISSIONS),
            ],
            settings.server,
            background=[jobs.run, lambda: keep_house(database, *forgetting(settings.jobs_kept_days))],
        )


def open_database(url: str) -> Database:
    """The builder's database."""
    return Database.open(url, schema=SCHEMA, migrations=MIGRATIONS)
