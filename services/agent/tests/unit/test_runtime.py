"""A bundle is opened in the runtime that its pin names."""

import json
from pathlib import Path

import numpy as np
import pytest

from boardwright.agent.check import check
from boardwright.agent.errors import Refused
from boardwright.agent.runtime import open_model
from boardwright.content import Digest
from boardwright.content.oci import (
    ENGINE_MEDIA_TYPE,
    GOLDEN_MEDIA_TYPE,
    INPUT_SPEC_MEDIA_TYPE,
    PIN_MEDIA_TYPE,
    RUNTIME_MEDIA_TYPE,
    WEIGHTS_MEDIA_TYPE,
)
from boardwright.device.bundle import Bundle, BundleFile
from boardwright.model import GoldenSamples, HardwarePin
from boardwright.testing import sample_graphs
from boardwright.toolchains.catalogue import toolchain_named
from boardwright.toolchains.port import BuildRequest, BuiltModel


@pytest.fixture
def built(tmp_path: Path) -> BuiltModel:
    toolchain = toolchain_named("openvino")
    if not toolchain.availability().available:
        pytest.skip(toolchain.availability().waits_for)
    graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx", weight_bits=7)
    slot = tmp_path / "slot"
    slot.mkdir()
    return toolchain.build(BuildRequest(graph, "x86-64", "x86_64", slot))


def _install(built: BuiltModel, runtime: str = "openvino") -> tuple[Path, Bundle]:
    """Write what else a bundle has beside the model's files, and its manifest."""
    folder = built.entry_path.parent
    images = sample_graphs.sample_images(2)
    session = toolchain_named("openvino").open(built, threads=1)
    outputs = [session.run({"image": image[None]})["logits"][0] for image in images]
    golden = GoldenSamples({"image": images}, {"logits": np.stack(outputs)}, absolute=1e-3)
    pin = HardwarePin(architecture="x86_64", runtime=runtime)
    parts = {
        "input-spec": ("input-spec.json", INPUT_SPEC_MEDIA_TYPE, b"{}"),
        "golden": ("golden.npz", GOLDEN_MEDIA_TYPE, golden.to_bytes()),
        "runtime": ("runtime.json", RUNTIME_MEDIA_TYPE, json.dumps(dict(built.runtime_settings)).encode()),
        "pin": ("pin.json", PIN_MEDIA_TYPE, json.dumps(pin.to_json()).encode()),
    }
    files = []
    for role, (name, media_type, data) in parts.items():
        (folder / name).write_bytes(data)
        files.append(BundleFile(role, name, media_type, Digest.of(data), len(data)))
    for role, name, media_type in (
        ("model", "model.xml", ENGINE_MEDIA_TYPE),
        ("model-data", "model.bin", WEIGHTS_MEDIA_TYPE),
    ):
        data = (folder / name).read_bytes()
        files.append(BundleFile(role, name, media_type, Digest.of(data), len(data)))
    bundle = Bundle.of(release="r", model_version="v", variant="int8", artifact="a", files=files)
    (folder / "manifest.json").write_bytes(bundle.to_manifest().to_bytes())
    return folder, bundle


def test_an_openvino_bundle_passes_its_golden_samples(built: BuiltModel) -> None:
    folder, _ = _install(built)
    result = check(folder)
    assert result.passed and result.samples == 2, result.message


def test_weights_that_are_not_the_signed_ones_are_refused(built: BuiltModel) -> None:
    folder, _ = _install(built)
    weights = bytearray((folder / "model.bin").read_bytes())
    weights[0] ^= 0xFF
    (folder / "model.bin").write_bytes(weights)
    assert check(folder).reason == "SLOT_DAMAGED"


def test_a_runtime_that_this_agent_does_not_drive_is_named(built: BuiltModel) -> None:
    folder, bundle = _install(built, runtime="tensorrt")
    with pytest.raises(Refused, match="tensorrt") as caught:
        open_model(folder, bundle)
    assert caught.value.reason == "RUNTIME_FAILED"
