"""Where the service's parts are wired together, and nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from boardwright.api.calibration.v1 import calibration_pb2_grpc
from boardwright.calibration.blobs import RegistryBlobs
from boardwright.calibration.inspection.process import Inspector
from boardwright.calibration.ports import Blobs
from boardwright.calibration.rpc.permissions import PERMISSIONS
from boardwright.calibration.rpc.servicer import CalibrationServicer
from boardwright.calibration.sealing import Sealer
from boardwright.calibration.service import CalibrationService
from boardwright.calibration.settings import MIGRATIONS, SCHEMA, Settings
from boardwright.calibration.storage.repository import SqlRepository
from boardwright.database import Database
from boardwright.database.housekeeping import keep_house
from boardwright.database.outbox import Outbox
from boardwright.rpc.server import Service, serve


def services(database: Database, blobs: Blobs, scratch: Path) -> list[Service]:
    """The gRPC service over an open database and the project's blobs."""
    repository = SqlRepository(database, Outbox(database))
    sealer = Sealer(repository, blobs, Inspector, scratch)
    servicer = CalibrationServicer(CalibrationService(repository, blobs), sealer)
    return [Service(calibration_pb2_grpc.add_CalibrationServicer_to_server, servicer, PERMISSIONS)]


async def run() -> None:
    """Serve until told to stop. Raises: ValueError (settings), DatabaseError, OSError."""
    settings = Settings.from_environment()
    database = open_database(settings.database_url)
    try:
        await asyncio.to_thread(database.migrate)
        blobs = RegistryBlobs(settings.registry_endpoint, settings.service_token)
        await serve(
            services(database, blobs, settings.scratch),
            settings.server,
            background=[lambda: keep_house(database)],
        )
    finally:
        database.close()


def open_database(url: str) -> Database:
    """The service's database."""
    return Database.open(url, schema=SCHEMA, migrations=MIGRATIONS)
