"""The registry or its database dies while versions are pushed: nothing acknowledged is lost."""

import random
import threading
import time

import grpc
import pytest

from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2_grpc
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.registry.settings import MIGRATIONS
from boardwright.rpc.client import connect_sync
from boardwright.rpc.errors import Unavailable, from_rpc_error
from boardwright.testing.database import database_url_fixture
from boardwright.testing.postgresql import PostgresqlServer, free_port, missing_reason
from boardwright.testing.services import running_service

database_url = database_url_fixture("registry", MIGRATIONS)

PROJECT = "projects/default"
MODEL = f"{PROJECT}/models/digits"
PUSHERS = 6
KILLS = 5


class Pushers:
    """Threads that push until told to stop, repeating what was not answered under the same request_id."""

    def __init__(self, service):
        self.channel = connect_sync(service.endpoint, token=service.tokens["admin"])
        self.registry = registry_pb2_grpc.RegistryStub(self.channel)
        data = b"weights"
        blobs = blobs_pb2_grpc.BlobsStub(self.channel)
        digest = blobs.CreateBlob(blobs_pb2.CreateBlobRequest(parent=PROJECT, data=data)).digest
        self.file = types.File(path="m.onnx", digest=digest, size_bytes=len(data))
        model = pb.Model(task="classification")
        self.registry.CreateModel(pb.CreateModelRequest(parent=PROJECT, model_id="digits", model=model))
        self.acknowledged = {}
        self.refused = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.push, args=(i,)) for i in range(PUSHERS)]

    def push(self, pusher):
        for n in range(10**6):
            request_id = f"{pusher}-{n}"
            version = pb.ModelVersion(format="onnx", files=[self.file], run=request_id)
            request = pb.CreateModelVersionRequest(parent=MODEL, version=version, request_id=request_id)
            while True:
                if self.stopping.is_set():
                    return
                try:
                    answer = self.registry.CreateModelVersion(request)
                except grpc.RpcError as error:
                    self.refused.append(from_rpc_error(error))
                    continue
                self.acknowledged[request_id] = answer.number
                break

    def wait_for_more(self, count):
        goal = len(self.acknowledged) + count
        deadline = time.monotonic() + 60
        while len(self.acknowledged) < goal:
            assert time.monotonic() < deadline, f"no progress: {self.refused[-3:]}"
            time.sleep(0.002)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def check(self):
        """Each acknowledged push is there once under its number; no gaps; the journal agrees."""
        stored, token = {}, ""
        while True:
            page = self.registry.ListModelVersions(
                pb.ListModelVersionsRequest(parent=MODEL, page_size=1000, page_token=token)
            )
            for version in page.versions:
                assert version.run not in stored, "one request_id made two versions"
                stored[version.run] = version.number
            token = page.next_page_token
            if not token:
                break
        assert self.acknowledged.items() <= stored.items()
        assert len(stored) <= len(self.acknowledged) + PUSHERS
        assert sorted(stored.values()) == list(range(1, len(stored) + 1))
        audited = set()
        while True:
            page = self.registry.ListAuditEvents(pb.ListAuditEventsRequest(
                parent=PROJECT, page_size=1000, page_token=token, filter="method = CreateModelVersion"
            ))  # fmt: skip
            audited |= {e.resource for e in page.events}
            token = page.next_page_token
            if not token:
                break
        assert audited == {f"{MODEL}/versions/{n}" for n in stored.values()}
        created = set()
        for event in self.registry.WatchEvents(pb.WatchEventsRequest(parent=PROJECT)):
            if event.type == "version.created":
                created.add(event.subject)
            if len(created) == len(stored):
                break
        assert created == audited


@pytest.mark.slow
def test_the_registry_is_killed_while_versions_are_pushed(database_url, tmp_path):
    listen = f"127.0.0.1:{free_port()}"
    environment = {"BOARDWRIGHT_DATABASE_URL": database_url, "BOARDWRIGHT_REGISTRY_LISTEN": listen}
    chance = random.Random(7)
    with running_service("registry", environment, folder=tmp_path) as service:
        pushers = Pushers(service)
        for thread in pushers.threads:
            thread.start()
        try:
            for _ in range(KILLS):
                pushers.wait_for_more(chance.randint(1, 40))
                service.kill()
                service.start()
            pushers.wait_for_more(20)
        finally:
            pushers.stop()
        pushers.check()
        pushers.channel.close()


@pytest.mark.slow
@pytest.mark.postgresql
@pytest.mark.skipif(bool(missing_reason()), reason=missing_reason() or "-")
def test_postgresql_is_killed_while_versions_are_pushed(tmp_path):
    server = PostgresqlServer(durable=True).start()
    try:
        environment = {"BOARDWRIGHT_DATABASE_URL": server.url()}
        with running_service("registry", environment, folder=tmp_path) as service:
            pushers = Pushers(service)
            for thread in pushers.threads:
                thread.start()
            try:
                pushers.wait_for_more(15)
                server.kill()
                while not pushers.refused:
                    time.sleep(0.05)
                server.start()
                pushers.wait_for_more(15)
            finally:
                pushers.stop()
            told = [e for e in pushers.refused if e.reason == "DATABASE_UNAVAILABLE"]
            assert told
            assert all(isinstance(e, Unavailable) and "PostgreSQL" in e.message for e in told)
            pushers.check()
            pushers.channel.close()
    finally:
        server.stop()


def test_sigterm_drains_and_a_second_start_continues(tmp_path):
    with running_service("registry", {}, folder=tmp_path) as service:
        pushers = Pushers(service)
        for thread in pushers.threads:
            thread.start()
        pushers.wait_for_more(10)
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 5
        pushers.stop()
        service.start()
        pushers.channel.close()
        pushers.channel = connect_sync(service.endpoint, token=service.tokens["admin"])
        pushers.registry = registry_pb2_grpc.RegistryStub(pushers.channel)
        pushers.check()
        pushers.channel.close()


def test_wrong_settings_are_named(tmp_path):
    for variable in ("BOARDWRIGHT_DATABASE_URL", "BOARDWRIGHT_BLOBS_URL"):
        with (
            pytest.raises(RuntimeError, match=variable),
            running_service("registry", {variable: ""}, folder=tmp_path),
        ):
            pass
