from __future__ import annotations

import json
from typing import Any

import pytest

from boardwright.content import Digest, InvalidContent
from boardwright.content.oci import (
    BUNDLE_ARTIFACT_TYPE,
    EMPTY_CONFIG,
    GRAPH_MEDIA_TYPE,
    INDEX_MEDIA_TYPE,
    LARGEST_MANIFEST_BYTES,
    MANIFEST_MEDIA_TYPE,
    RELEASE_ARTIFACT_TYPE,
    Descriptor,
    ImageIndex,
    ImageManifest,
)

LAYER = Descriptor(GRAPH_MEDIA_TYPE, Digest.of(b"graph"), 5, {"org.opencontainers.image.title": "model.onnx"})
MANIFEST = ImageManifest(EMPTY_CONFIG, (LAYER,), BUNDLE_ARTIFACT_TYPE, {"made": "by hand"}, subject=LAYER)
INDEX = ImageIndex((MANIFEST.descriptor(annotations={"pin": "x"}),), RELEASE_ARTIFACT_TYPE, {"a": "b"})


def test_manifest_reads_back() -> None:
    assert ImageManifest.parse(MANIFEST.to_bytes()) == MANIFEST
    assert MANIFEST.digest == Digest.of(MANIFEST.to_bytes())
    document = json.loads(MANIFEST.to_bytes())
    assert (document["schemaVersion"], document["mediaType"]) == (2, MANIFEST_MEDIA_TYPE)
    assert document["config"] == {
        "mediaType": EMPTY_CONFIG.media_type,
        "digest": str(Digest.of(b"{}")),
        "size": 2,
    }


def test_index_reads_back() -> None:
    assert ImageIndex.parse(INDEX.to_bytes()) == INDEX
    assert json.loads(INDEX.to_bytes())["mediaType"] == INDEX_MEDIA_TYPE
    assert ImageIndex.parse(ImageIndex(()).to_bytes()) == ImageIndex(())


def test_descriptor_of_a_manifest() -> None:
    described = MANIFEST.descriptor()
    assert described.digest == MANIFEST.digest
    assert described.size_bytes == len(MANIFEST.to_bytes())
    assert (described.media_type, described.artifact_type) == (MANIFEST_MEDIA_TYPE, BUNDLE_ARTIFACT_TYPE)


def test_what_others_write_is_read() -> None:
    document = json.loads(INDEX.to_bytes())
    document["manifests"][0]["platform"] = {"architecture": "arm64", "os": "linux", "os.features": ["x"]}
    document["manifests"][0]["urls"] = ["https://example.org"]
    index = ImageIndex.parse(json.dumps(document, indent=4).encode())
    assert index.manifests[0].platform == {"architecture": "arm64", "os": "linux"}
    del document["mediaType"]
    assert ImageIndex.parse(json.dumps(document).encode()) == index


def change(data: bytes, *path: str | int, value: Any) -> bytes:
    document = json.loads(data)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schemaVersion",), 1, "schemaVersion must be 2"),
        (("mediaType",), INDEX_MEDIA_TYPE, "mediaType must be"),
        (("config",), None, "config must be an object"),
        (("layers",), {}, "layers must be a list"),
        (("layers",), [], "at least one layer"),
        (("layers", 0, "size"), "5", r"layers\[0\].size must be an integer"),
        (("layers", 0, "size"), True, r"layers\[0\].size must be an integer"),
        (("layers", 0, "size"), -1, "impossible"),
        (("layers", 0, "size"), 1 << 63, "impossible"),
        (("layers", 0, "digest"), "sha256:5", "not a digest"),
        (("layers", 0, "mediaType"), "no type", "not a media type"),
        (("annotations",), {"a": 1}, "annotations must hold strings"),
        (("artifactType",), "", "needs an artifactType"),
        (("artifactType",), 5, "artifactType must be a string"),
        (("subject",), [], "subject must be an object"),
    ],
)
def test_malformed_manifests(path: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(InvalidContent, match=message):
        ImageManifest.parse(change(MANIFEST.to_bytes(), *path, value=value))


@pytest.mark.parametrize("data", [b"", b"[]", b"nothing", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_manifest(data: bytes) -> None:
    for kind in (ImageManifest, ImageIndex):
        with pytest.raises(InvalidContent):
            kind.parse(data)


def test_manifests_are_bounded() -> None:
    with pytest.raises(InvalidContent, match="over the limit"):
        ImageManifest.parse(b" " * (LARGEST_MANIFEST_BYTES + 1))
    with pytest.raises(InvalidContent, match="over the limit"):
        ImageIndex((), annotations={"a": "x" * LARGEST_MANIFEST_BYTES}).to_bytes()
