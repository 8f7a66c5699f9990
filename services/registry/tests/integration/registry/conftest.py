"""The registry as its clients meet it: over gRPC, on both databases."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2_grpc
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.content import Digest
from boardwright.content.directory import DirectoryStore
from boardwright.database import Database
from boardwright.registry.app import services
from boardwright.registry.settings import MIGRATIONS
from boardwright.rpc.auth import TokenFile
from boardwright.rpc.client import connect
from boardwright.rpc.errors import BoardwrightError, from_rpc_error
from boardwright.rpc.handling import Gate
from boardwright.testing.database import database_fixture
from boardwright.testing.services import write_tokens

database = database_fixture("registry", MIGRATIONS)

PROJECT = "projects/default"
BOARD = "raspberry-pi-5"
PIN = types.HardwarePin(board=BOARD, architecture="aarch64", runtime="onnxruntime", runtime_version="1.31.1")


async def failure(call: Any) -> BoardwrightError:
    """The error that a call gives; fails the test if it gives none."""
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value)


@dataclass
class Client:
    """Stubs with one role's token, and short ways to make what most tests begin with."""

    endpoint: str
    tokens: dict[str, str]
    channel: grpc.aio.Channel
    contents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = registry_pb2_grpc.RegistryStub(self.channel)
        self.blobs = blobs_pb2_grpc.BlobsStub(self.channel)

    async def file(self, content: str, path: str = "model.onnx") -> types.File:
        """A file whose content is uploaded."""
        data = content.encode()
        if content not in self.contents:
            blob = await self.blobs.CreateBlob(blobs_pb2.CreateBlobRequest(parent=PROJECT, data=data))
            self.contents[content] = blob.digest
        return types.File(path=path, digest=self.contents[content], size_bytes=len(data))

    async def model(self, model_id: str = "digits", **fields: Any) -> pb.Model:
        """A model."""
        model = pb.Model(task="classification", **fields)
        return await self.registry.CreateModel(
            pb.CreateModelRequest(parent=PROJECT, model_id=model_id, model=model)
        )

    async def version(self, model: str = "digits", content: str = "v", **fields: Any) -> pb.ModelVersion:
        """A version with an InputSpec."""
        fields.setdefault("input_spec_json", '{"layout":"NCHW"}')
        version = pb.ModelVersion(format="onnx", files=[await self.file(content)], **fields)
        return await self.registry.CreateModelVersion(
            pb.CreateModelVersionRequest(parent=f"{PROJECT}/models/{model}", version=version)
        )

    async def variant(self, version: str, variant_id: str = "int8") -> pb.Variant:
        """A variant with a graph of its own."""
        graph = await self.file(f"graph of {version} {variant_id}")
        return await self.registry.CreateVariant(
            pb.CreateVariantRequest(parent=version, variant_id=variant_id, variant=pb.Variant(graph=graph))
        )

    async def artifact(
        self, variant: str, pin: types.HardwarePin = PIN, toolchain: str = "ort"
    ) -> pb.Artifact:
        """An artifact with a file and a manifest."""
        engine = await self.file(f"engine {variant} {pin.board} {toolchain}", "engine.ort")
        manifest = await self.file(f"manifest {variant} {pin.board} {toolchain}")
        artifact = pb.Artifact(
            pin=pin,
            toolchain=toolchain,
            toolchain_version="1",
            files=[engine],
            manifest_digest=manifest.digest,
        )
        return await self.registry.CreateArtifact(pb.CreateArtifactRequest(parent=variant, artifact=artifact))

    async def measure(
        self, parent: str, kind: str, values: dict[str, float], **fields: Any
    ) -> pb.Measurement:
        """Figures of a variant or an artifact, measured on its board unless told otherwise."""
        fields.setdefault("origin", types.ORIGIN_MEASURED)
        figure = pb.Measurement(kind=kind, values=values, **fields)
        return await self.registry.CreateMeasurement(
            pb.CreateMeasurementRequest(parent=parent, measurement=figure)
        )

    async def release(self, version: str, *artifacts: str) -> pb.Release:
        """A release of these artifacts, or of a new one for the Raspberry Pi."""
        if not artifacts:
            variant = await self.variant(version)
            artifacts = ((await self.artifact(variant.name)).name,)
        return await self.registry.CreateRelease(
            pb.CreateReleaseRequest(parent=version.partition("/versions")[0], artifacts=artifacts)
        )

    async def promote(self, release: str, stage: str, etag: str | None = None, **fields: Any) -> Any:
        """Promote with the stage's current etag."""
        name = f"{release.partition('/releases')[0]}/stages/{stage}"
        if etag is None:
            etag = (await self.registry.GetStage(pb.GetStageRequest(name=name))).etag
        return await self.registry.PromoteRelease(
            pb.PromoteReleaseRequest(name=release, stage=name, etag=etag, **fields)
        )


@pytest.fixture
async def client(database: Database, tmp_path: Path) -> AsyncIterator[Client]:
    """The registry served in this process, seen with an admin's token."""
    async with registry_on(database, tmp_path) as client:
        yield client


@contextlib.asynccontextmanager
async def registry_on(database: Database, folder: Path) -> AsyncIterator[Client]:
    """Serve the registry on `database`."""
    tokens = write_tokens(folder / "tokens.json")
    gate = Gate(TokenFile(folder / "tokens.json"), "grant-key")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    store = DirectoryStore(folder / "blobs", signing_key=b"key", public_url="http://127.0.0.1:9")
    for service in services(database, store):
        gate.register(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = connect(f"127.0.0.1:{port}", token=tokens["admin"])
    try:
        yield Client(f"127.0.0.1:{port}", tokens, channel)
    finally:
        gate.end_streams()
        await channel.close()
        await server.stop(1)


def digest_of(text: str) -> str:
    """The digest of a text that may never have been uploaded."""
    return str(Digest.of(text.encode()))
