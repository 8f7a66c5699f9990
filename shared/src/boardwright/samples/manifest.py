"""The manifest of a sealed dataset: canonical JSON, whose digest is the dataset's identity."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boardwright.content import canonical_json, read_json
from boardwright.samples.errors import SampleError
from boardwright.samples.labels import Label, label_from_json, label_to_json

MANIFEST_MEDIA_TYPE = "application/vnd.boardwright.dataset.manifest.v1+json"
SCHEMA = "dataset/1"
REASON = "MANIFEST_INVALID"


@dataclass(frozen=True, slots=True)
class PackEntry:
    """A pack of the dataset."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ManifestSample:
    """A sample; ``pack`` is an index into the manifest's packs."""

    name: str
    digest: str
    size_bytes: int
    media_type: str
    pack: int
    offset: int
    label: Label


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """What a sealed dataset holds: the same content gives the same bytes, whatever it is called.

    Attributes:
        task: "classification", "detection", or empty when unlabelled.
        classes: names by index.
        packs: sorted by digest.
        samples: sorted by name.
    """

    task: str
    classes: tuple[str, ...]
    packs: tuple[PackEntry, ...]
    samples: tuple[ManifestSample, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return b"".join(manifest_chunks(self.task, self.classes, self.packs, self.samples))

    @classmethod
    def from_bytes(cls, data: bytes) -> "DatasetManifest":
        """Read a manifest.

        Raises:
            SampleError: ``MANIFEST_INVALID``.
        """
        try:
            document = read_json(data)
        except ValueError as error:
            raise SampleError(REASON, f"the dataset's manifest is not JSON: {error}") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise SampleError(
                REASON, f"the dataset's manifest is not of schema {SCHEMA}; update this program"
            )
        try:
            packs = tuple(PackEntry(str(p["digest"]), int(p["size"])) for p in document["packs"])
            samples = tuple(_sample(entry, len(packs)) for entry in document["samples"])
            return cls(str(document["task"]), tuple(document["classes"]), packs, samples)
        except (KeyError, TypeError, ValueError) as error:
            raise SampleError(REASON, f"the dataset's manifest is incomplete: {error!r}") from error


def _sample(entry: Mapping[str, Any], pack_count: int) -> ManifestSample:
    if not 0 <= entry["pack"] < pack_count or entry["offset"] < 0 or entry["size"] < 0:
        raise ValueError(f"sample {entry['name']!r} points outside of the packs")
    return ManifestSample(
        entry["name"],
        entry["digest"],
        entry["size"],
        entry["type"],
        entry["pack"],
        entry["offset"],
        label_from_json(entry["label"]),
    )


def manifest_chunks(
    task: str, classes: Iterable[str], packs: Iterable[PackEntry], samples: Iterable[ManifestSample]
) -> Iterator[bytes]:
    """The manifest's bytes piece by piece, so that a large one needs no memory of its size.

    ``packs`` must come sorted by digest and ``samples`` by name. The pieces joined are canonical JSON: the
    head, the entries with commas between them, the tail.
    """
    yield manifest_head(classes, packs)
    for number, sample in enumerate(samples):
        yield b"," + manifest_entry(sample) if number else manifest_entry(sample)
    yield manifest_tail(task)


def manifest_head(classes: Iterable[str], packs: Iterable[PackEntry]) -> bytes:
    """What stands before the samples."""
    entries = [{"digest": pack.digest, "size": pack.size_bytes} for pack in packs]
    return (
        b'{"classes":'
        + canonical_json(list(classes))
        + b',"packs":'
        + canonical_json(entries)
        + b',"samples":['
    )


def manifest_entry(sample: ManifestSample) -> bytes:
    """One sample."""
    return canonical_json(
        {
            "name": sample.name,
            "digest": sample.digest,
            "size": sample.size_bytes,
            "type": sample.media_type,
            "pack": sample.pack,
            "offset": sample.offset,
            "label": label_to_json(sample.label),
        }
    )


def manifest_tail(task: str) -> bytes:
    """What stands behind the samples."""
    return b'],"schema":' + canonical_json(SCHEMA) + b',"task":' + canonical_json(task) + b"}"
