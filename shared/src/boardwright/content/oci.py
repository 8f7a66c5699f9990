"""OCI descriptors, image manifests and image indexes: how Boardwright ships blobs together.

Source: OCI Image Format Specification 1.1, `descriptor.md`, `manifest.md`, `image-index.md`. What is written
here is canonical JSON, so that a manifest has one digest; what is read may be written in any way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from boardwright.content.canonical import canonical_json, read_json
from boardwright.content.digest import Digest
from boardwright.content.errors import InvalidContent

MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json"

CHECKPOINT_MEDIA_TYPE = "application/vnd.boardwright.checkpoint.v1"
MODULE_MEDIA_TYPE = "application/vnd.boardwright.module.v1+python"
GRAPH_MEDIA_TYPE = "application/vnd.boardwright.graph.v1+onnx"
ENGINE_MEDIA_TYPE = "application/vnd.boardwright.engine.v1"
WEIGHTS_MEDIA_TYPE = "application/vnd.boardwright.weights.v1"
INPUT_SPEC_MEDIA_TYPE = "application/vnd.boardwright.input-spec.v1+json"
OUTPUT_SPEC_MEDIA_TYPE = "application/vnd.boardwright.output-spec.v1+json"
PIN_MEDIA_TYPE = "application/vnd.boardwright.hardware-pin.v1+json"
GOLDEN_MEDIA_TYPE = "application/vnd.boardwright.golden-samples.v1+npz"
RUNTIME_MEDIA_TYPE = "application/vnd.boardwright.runtime-settings.v1+json"
PACK_MEDIA_TYPE = "application/vnd.boardwright.sample-pack.v1+tar"
DATASET_MEDIA_TYPE = "application/vnd.boardwright.dataset.v1+json"
STATEMENT_MEDIA_TYPE = "application/vnd.in-toto+json"
BUNDLE_ARTIFACT_TYPE = "application/vnd.boardwright.bundle.v1"
RELEASE_ARTIFACT_TYPE = "application/vnd.boardwright.release.v1"

LARGEST_MANIFEST_BYTES = 4 << 20
"""OCI distribution specification: registries accept manifests of at least 4 MiB."""

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def _check_media_type(text: str, where: str) -> None:
    if not _MEDIA_TYPE.fullmatch(text):
        raise InvalidContent(f"{where} {text[:80]!r} is not a media type: write type/subtype")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One blob of a manifest, or one manifest of an index.

    Attributes:
        media_type: what the blob is.
        digest: its name.
        size_bytes: its length; a reader refuses more.
        annotations: free text by key, for example `org.opencontainers.image.title`.
        artifact_type: what the described manifest is, in an index.
        platform: `architecture`, `os` and so on, in an index.
    """

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    platform: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_media_type(self.media_type, "mediaType")
        if self.artifact_type:
            _check_media_type(self.artifact_type, "artifactType")
        if not 0 <= self.size_bytes < 1 << 63:
            raise InvalidContent(f"the size {self.size_bytes} of {self.digest} is impossible")

    def to_json(self) -> dict[str, Any]:
        """The descriptor as a JSON object."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size_bytes,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.platform:
            document["platform"] = dict(self.platform)
        return document

    @classmethod
    def from_json(cls, value: Any, where: str = "descriptor") -> Self:
        """Read a JSON object; members that the specification reserves for others are ignored.

        Raises:
            InvalidContent: a member is missing or malformed.
        """
        document = _object(value, where)
        size = document.get("size")
        if not isinstance(size, int) or isinstance(size, bool):
            raise InvalidContent(f"{where}.size must be an integer")
        return cls(
            media_type=_text(document, "mediaType", where),
            digest=Digest.parse(_text(document, "digest", where)),
            size_bytes=size,
            annotations=_texts(document.get("annotations"), f"{where}.annotations"),
            artifact_type=_text(document, "artifactType", where, optional=True),
            platform=_texts(document.get("platform"), f"{where}.platform", only_texts=False),
        )


EMPTY_CONFIG = Descriptor(EMPTY_MEDIA_TYPE, Digest.of(b"{}"), 2)
"""The config of a manifest that has none (specification, "Guidance for an Empty Descriptor")."""


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """Blobs that belong together, for example a Bundle.

    Attributes:
        config: the blob that describes the others, or `EMPTY_CONFIG`.
        layers: the blobs, in order; at least one.
        artifact_type: what the whole is; needed when the config is empty.
        annotations: free text by key.
        subject: the manifest that this one speaks of, for example the one that it signs.
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None

    def __post_init__(self) -> None:
        if not self.layers:
            raise InvalidContent("a manifest needs at least one layer")
        if self.artifact_type:
            _check_media_type(self.artifact_type, "artifactType")
        elif self.config.media_type == EMPTY_MEDIA_TYPE:
            raise InvalidContent("a manifest with an empty config needs an artifactType")

    def to_bytes(self) -> bytes:
        """The manifest as canonical JSON."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        return _finish(document, self.artifact_type, self.annotations, self.subject)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a manifest of at most 4 MiB.

        Raises:
            InvalidContent: it is no OCI image manifest; the message names the member.
        """
        document = _document(data, MANIFEST_MEDIA_TYPE)
        layers = document.get("layers")
        if not isinstance(layers, list):
            raise InvalidContent("layers must be a list")
        return cls(
            config=Descriptor.from_json(document.get("config"), "config"),
            layers=tuple(Descriptor.from_json(item, f"layers[{i}]") for i, item in enumerate(layers)),
            artifact_type=_text(document, "artifactType", "manifest", optional=True),
            annotations=_texts(document.get("annotations"), "annotations"),
            subject=_subject(document),
        )

    @property
    def digest(self) -> Digest:
        """The digest of `to_bytes()`."""
        return Digest.of(self.to_bytes())

    def descriptor(self, *, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """How an index names this manifest."""
        data = self.to_bytes()
        return Descriptor(
            MANIFEST_MEDIA_TYPE, Digest.of(data), len(data), annotations or {}, self.artifact_type
        )


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """Manifests that belong together, for example the Artifacts of a Release.

    Attributes:
        manifests: the manifests, in order; may be none.
        artifact_type: what the whole is.
        annotations: free text by key.
        subject: the manifest that this index speaks of.
    """

    manifests: tuple[Descriptor, ...]
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    subject: Descriptor | None = None

    def __post_init__(self) -> None:
        if self.artifact_type:
            _check_media_type(self.artifact_type, "artifactType")

    def to_bytes(self) -> bytes:
        """The index as canonical JSON."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": INDEX_MEDIA_TYPE,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        return _finish(document, self.artifact_type, self.annotations, self.subject)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an index of at most 4 MiB.

        Raises:
            InvalidContent: it is no OCI image index; the message names the member.
        """
        document = _document(data, INDEX_MEDIA_TYPE)
        manifests = document.get("manifests")
        if not isinstance(manifests, list):
            raise InvalidContent("manifests must be a list")
        return cls(
            manifests=tuple(
                Descriptor.from_json(item, f"manifests[{i}]") for i, item in enumerate(manifests)
            ),
            artifact_type=_text(document, "artifactType", "index", optional=True),
            annotations=_texts(document.get("annotations"), "annotations"),
            subject=_subject(document),
        )

    @property
    def digest(self) -> Digest:
        """The digest of `to_bytes()`."""
        return Digest.of(self.to_bytes())


def _finish(
    document: dict[str, Any], artifact_type: str, annotations: Mapping[str, str], subject: Descriptor | None
) -> bytes:
    if artifact_type:
        document["artifactType"] = artifact_type
    if annotations:
        document["annotations"] = dict(annotations)
    if subject is not None:
        document["subject"] = subject.to_json()
    data = canonical_json(document)
    if len(data) > LARGEST_MANIFEST_BYTES:
        raise InvalidContent(f"a manifest of {len(data)} bytes is over the limit of {LARGEST_MANIFEST_BYTES}")
    return data


def _document(data: bytes, media_type: str) -> dict[str, Any]:
    if len(data) > LARGEST_MANIFEST_BYTES:
        raise InvalidContent(f"a manifest of {len(data)} bytes is over the limit of {LARGEST_MANIFEST_BYTES}")
    try:
        value = read_json(data)
    except ValueError as error:
        raise InvalidContent(f"a manifest must be JSON: {error}") from error
    document = _object(value, "manifest")
    if document.get("schemaVersion") != 2:
        raise InvalidContent("schemaVersion must be 2")
    if document.get("mediaType", media_type) != media_type:
        raise InvalidContent(f"mediaType must be {media_type}")
    return document


def _subject(document: dict[str, Any]) -> Descriptor | None:
    value = document.get("subject")
    return None if value is None else Descriptor.from_json(value, "subject")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidContent(f"{where} must be an object")
    return value


def _text(document: dict[str, Any], name: str, where: str, *, optional: bool = False) -> str:
    value = document.get(name, "" if optional else None)
    if not isinstance(value, str):
        raise InvalidContent(f"{where}.{name} must be a string")
    return value


def _texts(value: Any, where: str, *, only_texts: bool = True) -> Mapping[str, str]:
    if value is None:
        return {}
    document = _object(value, where)
    # platform has "os.features", a list, which nothing here reads.
    texts = {key: item for key, item in document.items() if isinstance(item, str)}
    if only_texts and len(texts) != len(document):
        raise InvalidContent(f"{where} must hold strings only")
    return texts
