"""Where the delivery service's parts are wired together, and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from boardwright.api.delivery.v1 import delivery_pb2_grpc
from boardwright.database import Database
from boardwright.database.housekeeping import keep_house
from boardwright.database.outbox import Outbox
from boardwright.delivery.device_service import DeviceService
from boardwright.delivery.fleets_service import FleetsService
from boardwright.delivery.ports import Blobs, FleetRepositories, Releases
from boardwright.delivery.publishing import Publisher
from boardwright.delivery.rollouts_service import RolloutsService
from boardwright.delivery.rpc.permissions import PERMISSIONS
from boardwright.delivery.rpc.registry import RegistryClient
from boardwright.delivery.rpc.servicer import DeliveryServicer
from boardwright.delivery.settings import MIGRATIONS, SCHEMA, Settings
from boardwright.delivery.storage.repository import SqlStore
from boardwright.delivery.trust.folder import FolderRepositories
from boardwright.delivery.trust.keys import FileKeyStore
from boardwright.rpc.server import Service, serve


@dataclass(frozen=True, slots=True)
class Delivery:
    """The wired service: its gRPC face and the publisher that keeps the repositories signed."""

    service: Service
    publisher: Publisher


def wire(
    database: Database,
    repositories: FleetRepositories,
    releases: Releases,
    blobs: Blobs,
    gateway_url: str,
) -> Delivery:
    """The service over an open database, the signed repositories and the registry."""
    store = SqlStore(database, Outbox(database))
    publisher = Publisher(store, repositories)
    servicer = DeliveryServicer(
        FleetsService(store, repositories, publisher),
        RolloutsService(store, releases, blobs, publisher),
        DeviceService(store, repositories, blobs),
        gateway_url,
    )
    add = delivery_pb2_grpc.add_DeliveryServicer_to_server
    return Delivery(Service(add, servicer, PERMISSIONS), publisher)


async def run() -> None:
    """Serve until told to stop. Raises: ValueError (settings), DatabaseError, OSError."""
    settings = Settings.from_environment()
    database = open_database(settings.database_url)
    registry = RegistryClient(settings.registry_endpoint, settings.service_token)
    try:
        await asyncio.to_thread(database.migrate)
        repositories = FolderRepositories(settings.repositories, FileKeyStore(settings.keys))
        delivery = wire(database, repositories, registry, registry, settings.gateway_url)
        await serve(
            [delivery.service],
            settings.server,
            background=[delivery.publisher.keep_signed, lambda: keep_house(database)],
        )
    finally:
        await registry.close()
        database.close()


def open_database(url: str) -> Database:
    """The service's database."""
    return Database.open(url, schema=SCHEMA, migrations=MIGRATIONS)
