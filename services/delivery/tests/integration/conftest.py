"""The delivery service over a real database and real repositories, with a registry in memory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from boardwright.content import Digest
from boardwright.content.oci import GOLDEN_MEDIA_TYPE, GRAPH_MEDIA_TYPE
from boardwright.database import Database
from boardwright.database.outbox import Outbox
from boardwright.delivery.device_service import DeviceService, SignedRequest
from boardwright.delivery.domain.bundling import ArtifactFacts, ReleaseFacts
from boardwright.delivery.domain.resources import BundleFileRecord, DeviceKey, FleetKey
from boardwright.delivery.fleets_service import FleetsService
from boardwright.delivery.ports import Intent
from boardwright.delivery.publishing import Publisher
from boardwright.delivery.rollouts_service import RolloutsService
from boardwright.delivery.storage.repository import SqlStore
from boardwright.delivery.trust.folder import FolderRepositories
from boardwright.delivery.trust.keys import FileKeyStore
from boardwright.device import signing
from boardwright.device.index import INDEX_PATH, FleetIndex
from boardwright.model import HardwarePin, InputSpec, OutputSpec
from boardwright.rpc.errors import NotFound
from boardwright.testing.database import database_fixture

MODEL = "projects/default/models/digits"
FLEET = FleetKey("default", "line-1")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

database = database_fixture("delivery", "boardwright.delivery:storage/migrations")


@dataclass
class RegistrySimulator:
    """Releases and blobs in memory, behind the service's ports."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    references: dict[str, list[str]] = field(default_factory=dict)
    releases: dict[str, list[ArtifactFacts]] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)

    def add_release(self, number: int, *boards: str, **pin: Any) -> str:
        """A release with one artifact per board."""
        name = f"{MODEL}/releases/{number}"
        self.releases[name] = [self._artifact(name, number, board, pin) for board in boards or ("x86-64",)]
        return name

    def _artifact(self, release: str, number: int, board: str, pin: dict[str, Any]) -> ArtifactFacts:
        model, golden = f"model {number} {board}".encode(), b"golden"
        version = f"{MODEL}/versions/{number}"
        files = (
            BundleFileRecord("model.onnx", str(Digest.of(model)), len(model), GRAPH_MEDIA_TYPE),
            BundleFileRecord("golden.npz", str(Digest.of(golden)), len(golden), GOLDEN_MEDIA_TYPE),
            BundleFileRecord("report.json", str(Digest.of(b"r")), 1, "application/json"),
        )
        facts = {"architecture": "x86_64", "board": board, "runtime": "onnxruntime", **pin}
        return ArtifactFacts(
            release=release,
            model_version=version,
            variant=f"{version}/variants/int8",
            artifact=f"{version}/variants/int8/artifacts/{board}",
            pin=HardwarePin(**facts).to_json(),
            files=files,
            details={"runtime_settings": {"graph_optimization": "all"}},
            input_spec_json=json.dumps(InputSpec(height=8, width=8).to_json()),
            output_spec_json=json.dumps(
                OutputSpec(task="classification", head="logits", num_classes=2, labels=("a", "b")).to_json()
            ),
        )

    async def facts(self, release: str) -> ReleaseFacts:
        if release not in self.releases:
            raise NotFound("RELEASE_NOT_FOUND", f"{release} does not exist")
        return ReleaseFacts(self.releases[release], TRACE)

    async def stage_holds(self, model: str, stage: str) -> str:
        return self.stages.get(stage, "")

    async def store(self, project: str, data: bytes) -> None:
        self.blobs[str(Digest.of(data))] = data

    async def hold(self, project: str, reference: str, digests: Sequence[str]) -> None:
        self.references[reference] = list(digests)

    async def download_url(self, project: str, digest: str, expire_seconds: int) -> str:
        return f"http://store.test/{digest}?expires={expire_seconds}"


@dataclass
class Operator:
    """The service as an operator and as devices use it."""

    fleets: FleetsService
    rollouts: RolloutsService
    devices: DeviceService
    publisher: Publisher
    registry: RegistrySimulator
    repositories: FolderRepositories
    folder: Path

    async def fleet(self, stage: str = "") -> None:
        await self.fleets.create_fleet(FLEET, MODEL, stage, "", intent("CreateFleet"))

    async def rollout(self, release: str, rollout_id: str = "", **options: Any) -> Any:
        return await self.rollouts.create_rollout(
            "default", rollout_id, FLEET, release, "", intent("CreateRollout", rollout_id), **options
        )

    def index(self) -> FleetIndex:
        """The signed index as a device would read it (without checking signatures)."""
        targets = json.loads(self._newest("targets"))["signed"]["targets"]
        digest = targets[INDEX_PATH]["hashes"]["sha256"]
        data = self.repositories.read(FLEET, f"targets/{digest}.{INDEX_PATH}")
        assert data is not None
        return FleetIndex.parse(data)

    def targets(self) -> dict[str, Any]:
        return dict(json.loads(self._newest("targets"))["signed"]["targets"])

    def _newest(self, role: str) -> str:
        files = (self.folder / "repositories" / FLEET.repository / "metadata").glob(f"*.{role}.json")
        return max(files, key=lambda path: int(path.name.split(".")[0])).read_text()


class SimulatedDevice:
    """A device that signs with a real key."""

    def __init__(self, devices: DeviceService, device_id: str, board: str = "x86-64") -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.service = devices
        self.key = DeviceKey(FLEET, device_id)
        self.private = Ed25519PrivateKey.generate().private_bytes_raw()
        self.host = {
            "board": board,
            "architecture": "x86_64",
            "runtime": "onnxruntime",
            "cpu_features": ["avx2"],
        }
        self.nonce = 0

    async def enrol(self, token: str, **changes: Any) -> Any:
        public = signing.public_key_of(self.private)
        text = signing.enrolment_message(token, self.key.device, public, self.host, "1.0")
        signature = signing.sign(self.private, text)
        arguments = {"public_key": public, "host": self.host, "agent_version": "1.0", "signature": signature}
        return await self.service.enrol(token, self.key.device, **{**arguments, **changes})

    async def say(self, kind: str, release: str = "", rollout: str = "", **refusal: str) -> None:
        installed = None
        if release:
            installed = {"release": release, "bundle_digest": "sha256:1", "rollout": rollout, "slot": "a"}
        await self.report({"kind": kind, "installed": installed, "refusal": refusal or None})

    async def report(self, document: dict[str, Any], **changes: Any) -> None:
        body = json.dumps(document).encode()
        await self.service.report(self.sign(body, **changes), changes.get("sent", body))

    def sign(self, body: bytes, *, nonce: str = "", at: int = 0, **ignored: Any) -> SignedRequest:
        self.nonce += 1
        nonce, at = nonce or f"nonce-{self.nonce}", at or int(time.time())
        text = signing.report_message(self.key.name, at, nonce, body)
        return SignedRequest(self.key, at, nonce, signing.sign(self.private, text))

    async def download(self, digest: str, nonce: str = "") -> tuple[str, int]:
        self.nonce += 1
        at, nonce = int(time.time()), nonce or f"nonce-{self.nonce}"
        text = signing.download_message(self.key.name, at, nonce, digest)
        request = SignedRequest(self.key, at, nonce, signing.sign(self.private, text))
        return await self.service.authorize_download(request, digest)


def intent(method: str, request_id: str = "", content: str = "") -> Intent:
    return Intent(method, request_id, hashlib.sha256(content.encode()).hexdigest())


@pytest.fixture
def operator(database: Database, tmp_path: Path) -> Operator:
    store = SqlStore(database, Outbox(database))
    repositories = FolderRepositories(tmp_path / "repositories", FileKeyStore(tmp_path / "keys"))
    registry = RegistrySimulator()
    publisher = Publisher(store, repositories)
    fleets = FleetsService(store, repositories, publisher)
    rollouts = RolloutsService(store, registry, registry, publisher)
    devices = DeviceService(store, repositories, registry)
    return Operator(fleets, rollouts, devices, publisher, registry, repositories, tmp_path)


@pytest.fixture
def enrol(operator: Operator) -> Callable[..., Any]:
    async def enrol(device_id: str, board: str = "x86-64") -> SimulatedDevice:
        device = SimulatedDevice(operator.devices, device_id, board)
        _, token, _ = await operator.fleets.create_token(FLEET, 0)
        await device.enrol(token)
        return device

    return enrol


@pytest.fixture
def fleet_key() -> FleetKey:
    return FLEET


@pytest.fixture
def make_intent() -> Callable[..., Intent]:
    return intent


@pytest.fixture
def make_device(operator: Operator) -> Callable[..., SimulatedDevice]:
    return lambda device_id, board="x86-64": SimulatedDevice(operator.devices, device_id, board)
