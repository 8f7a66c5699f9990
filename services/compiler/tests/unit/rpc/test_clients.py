"""What the compiler asks of its neighbours."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.registry.v1 import registry_pb2
from boardwright.api.types.v1 import types_pb2
from boardwright.compiler.engine.scheme import scheme_for
from boardwright.compiler.ports import KnownVariant
from boardwright.compiler.rpc.clients import BuilderClient, RegistryClient


class _Builder:
    def __init__(self, board: builder_pb2.Board) -> None:
        self._board = board

    async def GetBoard(self, request: Any, metadata: Any) -> builder_pb2.Board:
        assert request.name == "boards/own"
        return self._board


@pytest.mark.parametrize("told", [True, False])
async def test_a_profile_of_a_boards_own_keeps_all_that_its_entry_says(told: bool) -> None:
    """The message has the main fields; the entry beside it has the whole scheme."""
    scheme = {
        "activation_type": "int8", "weight_type": "int8", "activation_symmetric": True,
        "weight_symmetric": True, "per_channel": False, "reduce_range": False, "power_of_two": True,
        "operators": ["Conv"], "float16": "inside",
    }  # fmt: skip
    profile = builder_pb2.QuantizationProfile(
        name="own-npu", activation_type="int8", weight_type="int8", symmetric_activations=True
    )
    entry = json.dumps({"quantization_scheme": scheme}) if told else ""
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        client = BuilderClient(channel)
        board = builder_pb2.Board(name="boards/own", quantization_profile=profile, entry_json=entry)
        client._builder = _Builder(board)  # type: ignore[assignment]
        found = await client.get_profile("own", "alice")
    assert found.name == "own-npu"
    made = scheme_for(found.parameter)
    assert made.activation_symmetric and not made.per_channel
    assert (made.power_of_two, made.float16) == ((True, "inside") if told else (False, "none"))


class _Registry:
    async def GetVariant(self, request: Any, metadata: Any) -> registry_pb2.Variant:
        if not request.name.endswith("/int8"):
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, nothing, nothing, "there is none")
        return registry_pb2.Variant(graph=types_pb2.File(digest="sha256:a"), quantization_profile="arm")


async def test_a_variant_is_asked_for_by_its_name() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        client = RegistryClient(channel, "127.0.0.1:9", "token")
        client._registry = _Registry()  # type: ignore[assignment]
        version = "projects/default/models/digits/versions/3"
        assert await client.find_variant(f"{version}/variants/int8", "alice") == KnownVariant(
            "sha256:a", "arm"
        )
        assert await client.find_variant(f"{version}/variants/int8-2", "alice") is None
