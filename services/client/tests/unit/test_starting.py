"""A recipe reaches the compiler as what it is: a name, or the text of a file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.client.starting import Starting
from boardwright.rpc.errors import FailedPrecondition


@pytest.fixture
def sent() -> list[compiler_pb2.CreateCompileJobRequest]:
    return []


@pytest.fixture
def client(sent: list[Any]) -> Starting:
    starting: Any = Starting.__new__(Starting)
    starting.project = "default"
    starting.models = SimpleNamespace(version=lambda name: SimpleNamespace(name=name, traceparent=""))
    starting._connection = SimpleNamespace(compiler=SimpleNamespace(CreateCompileJob=sent.append))
    return starting  # type: ignore[no-any-return]


def test_an_empty_file_is_no_default_recipe(client: Starting, sent: list[Any], tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_bytes(b"")
    client.compile("digits@1", tmp_path / "empty.yaml")
    client.compile("digits@1", "quick")
    assert [request.WhichOneof("recipe") for request in sent] == ["recipe_yaml", "recipe_name"]


def test_what_is_no_text_is_told(client: Starting, sent: list[Any], tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(FailedPrecondition, match=r"odd.yaml is no text in UTF-8"):
        client.compile("digits@1", tmp_path / "odd.yaml")
    assert sent == []
