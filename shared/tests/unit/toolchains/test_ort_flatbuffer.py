"""The canonical ORT format: same content, one order, nothing lost."""

from pathlib import Path

import pytest

from boardwright.testing import sample_graphs
from boardwright.toolchains.errors import ToolchainError
from boardwright.toolchains.onnx_runtime import save_optimized
from boardwright.toolchains.ort_flatbuffer import canonical, operators


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    graph = sample_graphs.write_quantized_classifier(tmp_path / "g.onnx")
    save_optimized(graph, tmp_path / "g.ort", "all", "ORT", "aarch64")
    return (tmp_path / "g.ort").read_bytes()


def test_it_is_a_fixed_point(written: bytes) -> None:
    once = canonical(written)
    assert canonical(once) == once


def test_operators_stay(written: bytes) -> None:
    assert list(operators(canonical(written))) == list(operators(written))
    assert list(operators(written)).count("QLinearConv") == 2


def test_every_weight_and_type_stays(written: bytes) -> None:
    from boardwright.toolchains.ort_flatbuffer import _read_root

    def sets(content: bytes) -> list[set[str]]:
        graph = _read_root(content)["model"]["graph"]
        for node in graph["nodes"]:
            node["attributes"] = sorted(node.get("attributes", []), key=lambda attribute: attribute["name"])
        return [{repr(item) for item in graph[part]} for part in ("initializers", "node_args", "nodes")]

    assert sets(canonical(written)) == sets(written)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"not a model at all"])
def test_something_else_is_refused(content: bytes) -> None:
    with pytest.raises(ToolchainError, match="ORT format"):
        canonical(content)
