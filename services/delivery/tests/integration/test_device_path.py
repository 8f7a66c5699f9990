"""From a release in a real registry to a real device: five processes, the real runtime, kills in between."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from boardwright.api.delivery.v1 import delivery_pb2 as pb
from boardwright.api.delivery.v1 import delivery_pb2_grpc as pb_grpc
from boardwright.api.registry.v1 import blobs_pb2, blobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from boardwright.api.types.v1 import types_pb2
from boardwright.content import Digest
from boardwright.content.oci import (
    EMPTY_CONFIG,
    GOLDEN_MEDIA_TYPE,
    GRAPH_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    Descriptor,
    ImageManifest,
)
from boardwright.model import GoldenSamples, InputSpec, detect_host
from boardwright.rpc.client import connect_sync
from boardwright.testing.sample_graphs import INPUT_NAME, OUTPUT_NAME, SIDE, sample_images, write_classifier
from boardwright.testing.services import RunningService, running_service

PROJECT = "projects/default"
OTHERS = ("calibration", "compiler", "builder")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Registry, delivery and gateway as processes, and an administrator's calls to them."""

    def __init__(self, folder: Path, registry: RunningService, delivery: RunningService, url: str) -> None:
        self.folder, self.registry, self.delivery, self.url = folder, registry, delivery, url
        token = registry.tokens["admin"]
        self._channel = connect_sync(registry.endpoint, token=token)
        self.models = registry_pb2_grpc.RegistryStub(self._channel)
        self.blobs = blobs_pb2_grpc.BlobsStub(self._channel)
        self.token = token
        self.fleets: Any = None
        self.connect()

    def connect(self) -> None:
        if self.fleets is not None:
            self._fleet_channel.close()
        self._fleet_channel = connect_sync(self.delivery.endpoint, token=self.token)
        self.fleets = pb_grpc.DeliveryStub(self._fleet_channel)

    def close(self) -> None:
        self._channel.close()
        self._fleet_channel.close()

    def blob(self, path: str, data: bytes, media_type: str) -> types_pb2.File:
        blob = self.blobs.CreateBlob(blobs_pb2.CreateBlobRequest(parent=PROJECT, data=data))
        return types_pb2.File(
            path=path, digest=blob.digest, size_bytes=blob.size_bytes, media_type=media_type
        )

    def release(self, number: int, *, golden_shift: float = 0.0) -> str:
        """A release of a network built for this machine; `golden_shift` makes its golden samples wrong."""
        import onnxruntime

        path = write_classifier(self.folder / f"model-{number}.onnx", "n")
        images = sample_images(3, seed=number)
        (logits,) = onnxruntime.InferenceSession(str(path)).run([OUTPUT_NAME], {INPUT_NAME: images})
        golden = GoldenSamples({INPUT_NAME: images}, {OUTPUT_NAME: logits + np.float32(golden_shift)})
        files = [
            self.blob("model.onnx", path.read_bytes(), GRAPH_MEDIA_TYPE),
            self.blob("golden.npz", golden.to_bytes(), GOLDEN_MEDIA_TYPE),
        ]
        layers = tuple(
            Descriptor(file.media_type, Digest.parse(file.digest), file.size_bytes) for file in files
        )
        manifest = ImageManifest(EMPTY_CONFIG, layers, "application/vnd.boardwright.artifact.v1").to_bytes()
        self.blob("", b"{}", EMPTY_CONFIG.media_type)
        whole = self.blob("", manifest, MANIFEST_MEDIA_TYPE)
        version = self.models.CreateModelVersion(
            registry_pb2.CreateModelVersionRequest(
                parent=f"{PROJECT}/models/digits",
                version=registry_pb2.ModelVersion(format="onnx", files=files[:1]),
            )
        )
        spec = json.dumps(InputSpec(height=SIDE, width=SIDE, name=INPUT_NAME).to_json())
        self.models.FixSpecs(registry_pb2.FixSpecsRequest(name=version.name, input_spec_json=spec))
        variant = self.models.CreateVariant(
            registry_pb2.CreateVariantRequest(
                parent=version.name, variant_id="baseline", variant=registry_pb2.Variant(graph=files[0])
            )
        )
        artifact = self.models.CreateArtifact(
            registry_pb2.CreateArtifactRequest(
                parent=variant.name,
                artifact=registry_pb2.Artifact(
                    pin=host_pin(), toolchain="onnxruntime", files=files, manifest_digest=whole.digest
                ),
            )
        )
        request = registry_pb2.CreateReleaseRequest(
            parent=f"{PROJECT}/models/digits", artifacts=[artifact.name]
        )
        return str(self.models.CreateRelease(request).name)

    def rollout(self, release: str, rollout_id: str) -> pb.Rollout:
        return self.fleets.CreateRollout(
            pb.CreateRolloutRequest(
                parent=PROJECT, rollout_id=rollout_id, fleet=f"{PROJECT}/fleets/line-1", release=release
            )
        )

    def agent(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        command = [
            sys.executable,
            "-m",
            "boardwright.agent",
            arguments[0],
            "--home",
            str(self.folder / "device"),
        ]
        done = subprocess.run(
            [*command, "-o", "json", "-q", *arguments[1:]], capture_output=True, timeout=120
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])


def host_pin() -> types_pb2.HardwarePin:
    host = detect_host()
    return types_pb2.HardwarePin(
        board=host.board,
        architecture=host.architecture,
        runtime="onnxruntime",
        runtime_version=host.runtimes["onnxruntime"],
    )


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    url = f"http://127.0.0.1:{free_port()}"
    with ExitStack() as running:
        shared = {"BOARDWRIGHT_GATEWAY_URL": url}
        registry = running.enter_context(running_service("registry", shared, folder=tmp_path))
        own = {
            "BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint,
            "BOARDWRIGHT_STATE_DIR": str(tmp_path / "delivery"),
            "BOARDWRIGHT_TOKENS_FILE": str(tmp_path / "tokens.json"),
        }
        delivery = running.enter_context(
            running_service(
                "delivery",
                {**shared, **own, "BOARDWRIGHT_DELIVERY_LISTEN": f"127.0.0.1:{free_port()}"},
                folder=tmp_path,
            )
        )
        gateway = {
            **{f"BOARDWRIGHT_{name.upper()}_ENDPOINT": "127.0.0.1:9" for name in OTHERS},
            **shared,
            "BOARDWRIGHT_REGISTRY_ENDPOINT": registry.endpoint,
            "BOARDWRIGHT_DELIVERY_ENDPOINT": delivery.endpoint,
            "BOARDWRIGHT_GATEWAY_LISTEN": url.removeprefix("http://"),
            "BOARDWRIGHT_TOKENS_FILE": str(tmp_path / "tokens.json"),
        }
        running.enter_context(running_service("gateway", gateway, folder=tmp_path))
        made = Stack(tmp_path, registry, delivery, url)
        running.callback(made.close)
        yield made


@pytest.mark.slow
def test_from_a_release_to_a_healthy_device(stack: Stack) -> None:
    model = registry_pb2.Model(task="classification")
    stack.models.CreateModel(registry_pb2.CreateModelRequest(parent=PROJECT, model_id="digits", model=model))
    fleet = pb.Fleet(model=f"{PROJECT}/models/digits")
    stack.fleets.CreateFleet(pb.CreateFleetRequest(parent=PROJECT, fleet_id="line-1", fleet=fleet))
    request = pb.CreateEnrolmentTokenRequest(parent=f"{PROJECT}/fleets/line-1")
    token = stack.fleets.CreateEnrolmentToken(request)
    assert token.url == stack.url
    code, said = stack.agent("enroll", "--server", token.url, "--token", token.token, "--id", "cam-1")
    assert code == 0, said
    assert stack.agent("once")[1]["result"] == "nothing-assigned"

    first = stack.release(1)
    rollout = stack.rollout(first, "first")
    assert (rollout.state, rollout.pending_count) == (pb.Rollout.STATE_ACTIVE, 1)
    code, said = stack.agent("once")
    assert (code, said["result"], said["reported"], said["golden_samples"]) == (0, "installed", True, 3)
    done = stack.fleets.GetRollout(pb.GetRolloutRequest(name=rollout.name))
    assert (done.state, done.succeeded_count) == (pb.Rollout.STATE_COMPLETED, 1)
    name = f"{PROJECT}/fleets/line-1/devices/cam-1"
    device = stack.fleets.GetDevice(pb.GetDeviceRequest(name=name))
    assert (device.state, device.release, device.slot) == (pb.Device.STATE_HEALTHY, first, "a")
    assert device.host.runtime == "onnxruntime"
    assert device.rollout == rollout.name and device.install_time.seconds >= device.enrol_time.seconds > 0

    stack.delivery.kill()
    code, said = stack.agent("once")
    assert (code, said["result"]) == (4, "unavailable")
    stack.delivery.start()
    stack.connect()
    deadline = time.monotonic() + 30
    while (said := stack.agent("once")[1])["result"] == "unavailable":  # the gateway connects again
        assert time.monotonic() < deadline, said
    assert said["result"] == "up-to-date"

    second = stack.rollout(stack.release(2, golden_shift=1.0), "second")
    code, said = stack.agent("once")
    assert (code, said["reason"]) == (3, "GOLDEN_MISMATCH")
    device = stack.fleets.GetDevice(pb.GetDeviceRequest(name=name))
    assert (device.state, device.release) == (pb.Device.STATE_FAILED, first)
    assert device.refusal_reason == "GOLDEN_MISMATCH" and "3 of 3 golden samples" in device.refusal_message
    assert stack.fleets.GetRollout(pb.GetRolloutRequest(name=second.name)).failed_count == 1
    reports = stack.fleets.ListReports(pb.ListReportsRequest(parent=name)).reports
    assert [report.kind for report in reports] == ["refused", "installed"]
    traces = [(second, reports[0]), (rollout, reports[1])]
    assert all(of.traceparent.split("-")[1] == report.traceparent.split("-")[1] for of, report in traces)

    stack.fleets.CancelRollout(pb.ChangeRolloutRequest(name=second.name, reason="wrong outputs"))
    assert stack.agent("once")[1]["result"] == "up-to-date"
    stack.fleets.RevokeDevice(pb.RevokeDeviceRequest(name=name, reason="stolen"))
    stack.rollout(stack.release(3), "third")
    code, said = stack.agent("once")
    assert (code, said["reason"]) == (3, "DEVICE_REVOKED")
    with pytest.raises(grpc.RpcError) as refused:
        stack.fleets.GetFleet(pb.GetFleetRequest(name=f"{PROJECT}/fleets/none"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
