"""Boards, pins and artifacts as messages, and back."""

from __future__ import annotations

import json
from typing import Any

from boardwright.api.builder.v1 import builder_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2
from boardwright.api.types.v1 import types_pb2
from boardwright.builder.domain.boards import Board, QuantizationProfile
from boardwright.builder.ports import ArtifactFile, BuiltArtifact, NewArtifact, NewMeasurement
from boardwright.content import canonical_json
from boardwright.jobs.domain.blobs import Blob
from boardwright.model.pins import HardwarePin
from boardwright.toolchains.port import Toolchain

_PIN_TEXTS = ("board", "architecture", "accelerator", "runtime", "runtime_version", "bsp", "driver")
_ORIGINS = {"measured": types_pb2.ORIGIN_MEASURED, "emulated": types_pb2.ORIGIN_EMULATED}


def to_board(board: Board, here: bool, host_features: frozenset[str] | None = None) -> pb.Board:
    """Return the message of a catalogue entry; with ``host_features`` the profile is this very machine's."""
    first = board.runtimes[0]
    profile = first.quantization_profile if host_features is None else first.profile_on(host_features)
    return pb.Board(
        name=f"boards/{board.name}",
        title=board.title,
        soc=board.soc.name,
        architecture=board.architecture,
        accelerators=[accelerator.title for accelerator in board.accelerators],
        memory_bytes=board.memory_bytes,
        runtimes=[runtime.name for runtime in board.runtimes],
        toolchains=board.toolchains,
        quantization_profile=to_profile(profile),
        power_modes=[mode.name for mode in board.power_modes],
        entry_json=json.dumps(
            {**board.entry, "quantization_scheme": profile.to_scheme()}, ensure_ascii=False
        ),
        here=here,
    )


def to_profile(profile: QuantizationProfile) -> pb.QuantizationProfile:
    """Return the message of a profile."""
    return pb.QuantizationProfile(
        name=profile.name,
        activation_type=profile.activation_type,
        weight_type=profile.weight_type,
        symmetric_activations=profile.activation_symmetric,
        per_channel_weights=profile.per_channel,
    )


def to_toolchain(toolchain: Toolchain, boards: list[str], offered: bool) -> pb.Toolchain:
    """Return the message of a toolchain; one that a worker offers runs here whatever this machine has."""
    availability = toolchain.availability()
    return pb.Toolchain(
        name=f"toolchains/{toolchain.name}",
        version=availability.version,
        boards=boards,
        available=availability.available or offered,
        waits_for="" if offered else availability.waits_for,
    )


def to_pin(pin: HardwarePin) -> types_pb2.HardwarePin:
    """Return the message of a pin."""
    texts = {name: getattr(pin, name) for name in _PIN_TEXTS}
    return types_pb2.HardwarePin(cpu_features=pin.cpu_features, **texts)


def from_pin(message: types_pb2.HardwarePin) -> HardwarePin:
    """Read a pin."""
    texts: dict[str, Any] = {name: getattr(message, name) for name in _PIN_TEXTS}
    return HardwarePin(cpu_features=tuple(message.cpu_features), **texts)


def pin_overrides(message: types_pb2.HardwarePin) -> dict[str, str]:
    """Return the fields of a pin that are set; cpu_features as one word, which is refused later."""
    found = {name: getattr(message, name) for name in _PIN_TEXTS if getattr(message, name)}
    if message.cpu_features:
        found["cpu_features"] = ",".join(message.cpu_features)
    return found


def to_artifact(new: NewArtifact) -> registry_pb2.Artifact:
    """Return the message of an artifact to register."""
    return registry_pb2.Artifact(
        pin=to_pin(new.pin),
        toolchain=new.toolchain,
        toolchain_version=new.toolchain_version,
        files=[
            types_pb2.File(
                path=file.path,
                digest=file.blob.digest,
                size_bytes=file.blob.size_bytes,
                media_type=file.blob.media_type,
            )
            for file in new.files
        ],
        manifest_digest=new.manifest_digest,
        record_digest=new.record_digest,
        details_json=canonical_json(dict(new.details)).decode(),
    )


def from_artifact(message: registry_pb2.Artifact) -> BuiltArtifact:
    """Read a registered artifact."""
    return BuiltArtifact(
        name=message.name,
        pin=from_pin(message.pin),
        toolchain=message.toolchain,
        files=tuple(
            ArtifactFile(file.path, Blob(file.digest, file.size_bytes, file.media_type))
            for file in message.files
        ),
        details=json.loads(message.details_json) if message.details_json else {},
    )


def to_measurement(new: NewMeasurement) -> registry_pb2.Measurement:
    """Return the message of a figure to register."""
    return registry_pb2.Measurement(
        kind=new.kind,
        values=dict(new.values),
        origin=_ORIGINS[new.origin],
        board=new.board,
        host=to_pin(new.host),
        threads=new.threads,
        record_digest=new.record_digest,
        details_json=canonical_json(dict(new.details)).decode(),
    )
