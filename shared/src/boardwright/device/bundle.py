"""Bundle: what a device installs.

A bundle is an OCI image manifest (artifact type `application/vnd.boardwright.bundle.v1`, empty config) whose
layers are files, so that standard tools can pull it. Each layer says in its annotations which part of the
bundle it is and what the file is called; the manifest's annotations name the Release, ModelVersion, Variant
and Artifact. Equal bundles have equal bytes: layers are in the order of `ROLES`, then by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest
from boardwright.content.errors import InvalidContent
from boardwright.content.oci import (
    BUNDLE_ARTIFACT_TYPE,
    EMPTY_CONFIG,
    Descriptor,
    ImageManifest,
)
from boardwright.device.errors import InvalidDocument

ROLES = (
    "model",
    "model-data",
    "input-spec",
    "output-spec",
    "labels",
    "golden",
    "runtime",
    "pin",
    "provenance",
)
"""What a file of a bundle can be. `model` is the file that the runtime opens, `model-data` lies beside it
(external weights); `golden` are the golden samples, `runtime` the runtime's settings."""

REQUIRED_ROLES = frozenset({"model", "input-spec", "pin"})
SINGLE_ROLES = frozenset(ROLES) - {"model-data", "provenance"}

LABELS_MEDIA_TYPE = "application/vnd.boardwright.labels.v1+json"

TITLE = "org.opencontainers.image.title"
ROLE = "dev.boardwright.bundle.role"
RELEASE = "dev.boardwright.release"
MODEL_VERSION = "dev.boardwright.model-version"
VARIANT = "dev.boardwright.variant"
ARTIFACT = "dev.boardwright.artifact"

LARGEST_FILE_COUNT = 64
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        role: one of `ROLES`.
        name: its name in the slot; no folders.
        media_type, digest, size_bytes: of the blob.
    """

    role: str
    name: str
    media_type: str
    digest: Digest
    size_bytes: int

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidDocument(f"a bundle has no part called {self.role!r}: use one of {', '.join(ROLES)}")
        if not _FILE_NAME.fullmatch(self.name):
            raise InvalidDocument(f"{self.name[:80]!r} is not a plain file name")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a device installs for one Artifact of one Release.

    Attributes:
        release, model_version, variant, artifact: resource names.
        files: the files, in the order of `ROLES`.

    Raises:
        InvalidDocument: a required part is missing, one that must be single is there twice, or two files
            have one name.
    """

    release: str
    model_version: str
    variant: str
    artifact: str
    files: tuple[BundleFile, ...]

    def __post_init__(self) -> None:
        if len(self.files) > LARGEST_FILE_COUNT:
            raise InvalidDocument(
                f"a bundle has at most {LARGEST_FILE_COUNT} files, this has {len(self.files)}"
            )
        roles = [file.role for file in self.files]
        for role in sorted(REQUIRED_ROLES - set(roles)):
            raise InvalidDocument(f"the bundle has no {role} file")
        for role in sorted(SINGLE_ROLES):
            if roles.count(role) > 1:
                raise InvalidDocument(f"the bundle has {roles.count(role)} {role} files, one is allowed")
        names = [file.name for file in self.files]
        if len(set(names)) < len(names):
            raise InvalidDocument("two files of the bundle have one name")

    @classmethod
    def of(
        cls, *, release: str, model_version: str, variant: str, artifact: str, files: Iterable[BundleFile]
    ) -> Self:
        """The bundle with its files in their one order.

        Raises:
            InvalidDocument: as the class says.
        """
        ordered = tuple(sorted(files, key=lambda file: (ROLES.index(file.role), file.name)))
        return cls(release, model_version, variant, artifact, ordered)

    @property
    def size_bytes(self) -> int:
        """The bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    def file(self, role: str) -> BundleFile | None:
        """The first file of that role."""
        return next((file for file in self.files if file.role == role), None)

    def to_manifest(self) -> ImageManifest:
        """The OCI image manifest that ships this bundle."""
        layers = tuple(
            Descriptor(file.media_type, file.digest, file.size_bytes, {TITLE: file.name, ROLE: file.role})
            for file in self.files
        )
        annotations = {
            RELEASE: self.release,
            MODEL_VERSION: self.model_version,
            VARIANT: self.variant,
            ARTIFACT: self.artifact,
        }
        return ImageManifest(EMPTY_CONFIG, layers, BUNDLE_ARTIFACT_TYPE, annotations)

    @classmethod
    def from_manifest(cls, manifest: ImageManifest) -> Self:
        """Read a bundle's manifest.

        Raises:
            InvalidDocument: it is another kind of manifest, or as the class says.
        """
        if manifest.artifact_type != BUNDLE_ARTIFACT_TYPE:
            raise InvalidDocument(
                f"this manifest is a {manifest.artifact_type or 'plain image'}, not a bundle"
            )
        files = tuple(
            BundleFile(
                layer.annotations.get(ROLE, ""),
                layer.annotations.get(TITLE, ""),
                layer.media_type,
                layer.digest,
                layer.size_bytes,
            )
            for layer in manifest.layers
        )
        said = manifest.annotations
        return cls(
            said.get(RELEASE, ""),
            said.get(MODEL_VERSION, ""),
            said.get(VARIANT, ""),
            said.get(ARTIFACT, ""),
            files,
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a bundle's manifest from its bytes.

        Raises:
            InvalidDocument: it is no manifest of a bundle.
        """
        try:
            return cls.from_manifest(ImageManifest.parse(data))
        except InvalidContent as error:
            raise InvalidDocument(f"the bundle's manifest is malformed: {error}") from error


def labels_document(labels: Iterable[str]) -> bytes:
    """Class names, in the order of the model's outputs, as the labels file of a bundle."""
    return canonical_json({"schema": "boardwright.labels.v1", "labels": list(labels)})
