"""The systems that `bench/registry.py` loads: Boardwright's registry, MLflow, and a bare grpc.aio echo."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2_grpc
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.testing.postgresql import free_port
from boardwright.testing.services import RunningService

PROJECT = "projects/default"
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_ECHO = "/boardwright.bench.Echo/Echo"


@dataclass(frozen=True)
class Registry:
    """A running registry and a blob that versions refer to."""

    service: RunningService
    file: types.File

    @classmethod
    def prepare(cls, service: RunningService) -> Registry:
        """Upload the blob."""
        with grpc.insecure_channel(service.endpoint) as channel:
            blob = blobs_pb2_grpc.BlobsStub(channel).CreateBlob(
                blobs_pb2.CreateBlobRequest(parent=PROJECT, data=b"weights"), metadata=token(service)
            )
        return cls(service, types.File(path="model.onnx", digest=blob.digest, size_bytes=7))

    @property
    def pid(self) -> int:
        """The process."""
        assert self.service.process is not None
        return self.service.process.pid

    def writer(self, run: str) -> Callable[[int], RegistryClient]:
        """Clients that create, set the alias and get, each in a model of its own."""
        return lambda number: RegistryClient(self, f"bench-{run}-{number}", reads_only=False)

    def reader(self, run: str) -> Callable[[int], RegistryClient]:
        """Clients that only get by alias."""
        return lambda number: RegistryClient(self, f"bench-{run}-{number}", reads_only=True)


def token(service: RunningService) -> tuple[tuple[str, str], ...]:
    """Metadata with an admin's token."""
    return (("authorization", f"Bearer {service.tokens['admin']}"),)


class RegistryClient:
    """One client on its own connection."""

    def __init__(self, registry: Registry, model: str, *, reads_only: bool) -> None:
        self._channel = grpc.insecure_channel(registry.service.endpoint, options=_OWN_CONNECTION)
        self._stub = registry_pb2_grpc.RegistryStub(self._channel)
        self._metadata = token(registry.service)
        self._file = registry.file
        self._name = f"{PROJECT}/models/{model}"
        self._count = 0
        self._version = pb.ModelVersion()
        self._reads_only = reads_only
        request = pb.CreateModelRequest(parent=PROJECT, model_id=model, model=pb.Model(task="detection"))
        self._stub.CreateModel(request, metadata=self._metadata)
        if reads_only:
            self._create()
            self._alias()

    def steps(self) -> Sequence[Callable[[], None]]:
        """See `closed_loop.Client`."""
        return [self._get] if self._reads_only else [self._create, self._alias, self._get]

    def close(self) -> None:
        """See `closed_loop.Client`."""
        self._channel.close()

    def _create(self) -> None:
        self._count += 1
        version = pb.ModelVersion(
            format="onnx", files=[self._file], labels={"board": "rk3588", "quant": "int8"}
        )
        request = pb.CreateModelVersionRequest(
            parent=self._name, version=version, request_id=f"{self._name[-30:]}-{self._count}"
        )
        self._version = self._stub.CreateModelVersion(request, metadata=self._metadata)

    def _alias(self) -> None:
        alias = pb.Alias(name=f"{self._name}/aliases/prod", version=self._version.name)
        self._stub.SetAlias(pb.SetAliasRequest(alias=alias), metadata=self._metadata)

    def _get(self) -> None:
        request = pb.GetModelVersionRequest(name=f"{self._name}/versions/prod")
        found = self._stub.GetModelVersion(request, metadata=self._metadata)
        if found.number != self._version.number:
            raise AssertionError(f"the alias gives version {found.number}, not {self._version.number}")


# The echo


async def serve_echo(port: int) -> None:
    """Answer every call with its own bytes: what grpc.aio costs without us."""

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    handler = grpc.method_handlers_generic_handler(
        "boardwright.bench.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


@dataclass(frozen=True)
class Echo:
    """A running echo. `payload` is as large as the registry's answer to a get."""

    port: int
    pid: int
    payload: bytes

    def client(self, number: int) -> EchoClient:
        """One client."""
        return EchoClient(self)


class EchoClient:
    """One client on its own connection."""

    def __init__(self, echo: Echo) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{echo.port}", options=_OWN_CONNECTION)
        self._call = self._channel.unary_unary(_ECHO)
        self._payload = echo.payload

    def steps(self) -> Sequence[Callable[[], None]]:
        """See `closed_loop.Client`."""
        return [self._echo]

    def close(self) -> None:
        """See `closed_loop.Client`."""
        self._channel.close()

    def _echo(self) -> None:
        if self._call(self._payload) != self._payload:
            raise AssertionError("the echo changed its payload")


@contextmanager
def running_echo(payload: bytes) -> Iterator[Echo]:
    """Run the echo in a process of its own."""
    port = free_port()
    program = f"import asyncio, registry_systems; asyncio.run(registry_systems.serve_echo({port}))"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parent)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(20)
        yield Echo(port, process.pid, payload)
    finally:
        process.terminate()
        process.wait(10)


# MLflow


@dataclass(frozen=True)
class Mlflow:
    """A running `mlflow server`."""

    port: int
    pid: int

    def writer(self, run: str) -> Callable[[int], MlflowClient]:
        """Clients that do the same as `Registry.writer`'s."""
        return lambda number: MlflowClient(self, f"bench-{run}-{number}")


class MlflowClient:
    """One client on one keep-alive connection, speaking MLflow's REST."""

    def __init__(self, mlflow: Mlflow, model: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", mlflow.port, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._name = model
        self._count = 0
        self._version = ""
        self._call("POST", "registered-models/create", {"name": model})

    def steps(self) -> Sequence[Callable[[], None]]:
        """See `closed_loop.Client`."""
        return [self._create, self._alias, self._get]

    def close(self) -> None:
        """See `closed_loop.Client`."""
        self._connection.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, f"/api/2.0/mlflow/{path}", data, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise AssertionError(f"MLflow answered {response.status}: {text[:200]!r}")
        return dict(json.loads(text))

    def _create(self) -> None:
        self._count += 1
        body = {
            "name": self._name,
            "source": f"s3://bench/{self._name}/{self._count}",
            "tags": [{"key": "board", "value": "rk3588"}, {"key": "quant", "value": "int8"}],
        }
        self._version = self._call("POST", "model-versions/create", body)["model_version"]["version"]

    def _alias(self) -> None:
        body = {"name": self._name, "alias": "prod", "version": self._version}
        self._call("POST", "registered-models/alias", body)

    def _get(self) -> None:
        query = urllib.parse.urlencode({"name": self._name, "alias": "prod"})
        found = self._call("GET", f"registered-models/alias?{query}")["model_version"]["version"]
        if found != self._version:
            raise AssertionError(f"the alias gives version {found}, not {self._version}")


@contextmanager
def running_mlflow(python: Path, folder: Path) -> Iterator[Mlflow]:
    """Run `mlflow server` of another environment: SQLite, one worker, its job runner and telemetry off."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(python.parent / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BOARDWRIGHT_")} | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for_health(process, port, folder / "server.log")
        yield Mlflow(port, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise RuntimeError("MLflow did not start:\n" + log.read_text()[-2000:])
