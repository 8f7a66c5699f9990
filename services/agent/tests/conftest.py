"""A device, a fleet's server, and bundles with a real model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boardwright.agent.cli import main
from boardwright.content import canonical_json
from boardwright.content.oci import (
    GOLDEN_MEDIA_TYPE,
    GRAPH_MEDIA_TYPE,
    INPUT_SPEC_MEDIA_TYPE,
    PIN_MEDIA_TYPE,
    RUNTIME_MEDIA_TYPE,
)
from boardwright.device.bundle import Bundle, BundleFile
from boardwright.model import GoldenSamples, HardwarePin, InputSpec, detect_host
from boardwright.testing.fleet_server import FleetServer

HOST = detect_host()


def make_model(scale: float, padding_bytes: int = 0) -> bytes:
    """An ONNX model: y = x * scale for x of (n, 4)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(np.array([scale], np.float32), "scale")]
    nodes = [helper.make_node("Mul", ["x", "scale"], ["y"])]
    shape = ["n", 4]
    graph = helper.make_graph(
        nodes,
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.doc_string = "x" * padding_bytes
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_golden(scale: float) -> bytes:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    return GoldenSamples({"x": x}, {"y": x * np.float32(scale)}).to_bytes()


def host_pin(**changes: Any) -> dict[str, Any]:
    facts = {
        "architecture": HOST.architecture,
        "board": HOST.board,
        "runtime": "onnxruntime",
        "runtime_version": HOST.runtimes["onnxruntime"],
        **changes,
    }
    return HardwarePin(**facts).to_json()


class Fleet:
    """The server with what tests do to it."""

    def __init__(self, server: FleetServer) -> None:
        self.server = server
        self.rollouts = 0

    def bundle(
        self, release: int, *, scale: float = 2.0, golden_scale: float | None = None, **options: Any
    ) -> tuple[Bundle, dict[str, Any]]:
        """A bundle and its pin, its blobs held by the server. Options: pin, model, padding_bytes, runtime."""
        pin = options.get("pin") or host_pin()
        model = options.get("model") or make_model(scale, options.get("padding_bytes", 0))
        golden = make_golden(scale if golden_scale is None else golden_scale)
        spec = canonical_json(InputSpec(height=1, width=4).to_json())
        parts = [
            ("model", "model.onnx", GRAPH_MEDIA_TYPE, model),
            ("input-spec", "input-spec.json", INPUT_SPEC_MEDIA_TYPE, spec),
            ("golden", "golden.npz", GOLDEN_MEDIA_TYPE, golden),
            (
                "runtime",
                "runtime.json",
                RUNTIME_MEDIA_TYPE,
                canonical_json(
                    options.get(
                        "runtime", {"graph_optimization": "all", "intra_op_threads": 1, "session_config": {}}
                    )
                ),
            ),
            ("pin", "pin.json", PIN_MEDIA_TYPE, canonical_json(options.get("inner_pin", pin))),
        ]
        files = [
            BundleFile(role, name, media_type, self.server.add_blob(data), len(data))
            for role, name, media_type, data in parts
        ]
        name = f"projects/default/models/digits/releases/{release}"
        bundle = Bundle.of(
            release=name, model_version="v", variant="int8", artifact=f"artifact-{release}", files=files
        )
        return bundle, pin

    def release(
        self, release: int, *, paused: bool = False, validity_days: float = 7, **options: Any
    ) -> Bundle:
        """Roll a release out to the whole fleet."""
        self.rollouts += 1
        bundle, pin = self.bundle(release, **options)
        rollout = f"rollouts/{self.rollouts}"
        self.server.publish((bundle, pin), rollout=rollout, paused=paused, validity_days=validity_days)
        return bundle


class AgentCommand:
    """The agent's command on one home, in this process."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        self._capsys.readouterr()
        code = main([arguments[0], "--home", str(self.home), "-o", "json", "-q", *arguments[1:]])
        out = self._capsys.readouterr().out
        return code, json.loads(out) if out else {}

    def run_model(self) -> float:
        """What the installed model makes of 1.0."""
        import onnxruntime

        session = onnxruntime.InferenceSession(str(self.home / "current" / "model.onnx"))
        (y,) = session.run(None, {"x": np.ones((1, 4), np.float32)})
        return float(y[0, 0])


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with FleetServer() as server:
        yield Fleet(server)


@pytest.fixture
def agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AgentCommand:
    return AgentCommand(tmp_path / "home", capsys)


@pytest.fixture
def enrolled(agent: AgentCommand, fleet: Fleet) -> AgentCommand:
    code, _ = agent("enroll", "--server", fleet.server.url, "--token", fleet.server.token(), "--id", "cam-1")
    assert code == 0
    return agent


@pytest.fixture
def pin_of_host() -> Callable[..., dict[str, Any]]:
    return host_pin
