import hashlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boardwright.samples import (
    Box,
    DatasetManifest,
    DatasetReader,
    FoundSample,
    ManifestSample,
    Pack,
    PackEntry,
    SampleError,
    packs,
    write_packs,
)
from boardwright.samples.reader import spread

Picture = Callable[..., bytes]


def found(count: int, picture: Picture) -> list[FoundSample]:
    return [FoundSample(f"{n:04d}.png", picture(n), "image/png", n % 3) for n in range(count)]


def manifest_of(written: list[Pack]) -> DatasetManifest:
    order = sorted(pack.digest for pack in written if pack.path)
    sizes = {pack.digest: pack.size_bytes for pack in written}
    samples = [
        ManifestSample(
            s.name, s.digest, s.size_bytes, s.media_type, order.index(s.pack_digest), s.pack_offset, s.label
        )
        for pack in written
        for s in pack.samples
    ]
    entries = tuple(PackEntry(digest, sizes[digest]) for digest in order)
    return DatasetManifest(
        "classification", ("a", "b", "c"), entries, tuple(sorted(samples, key=lambda s: s.name))
    )


def test_a_pack_is_a_tar_that_any_program_reads(tmp_path: Path, picture: Picture) -> None:
    samples = found(5, picture)
    (pack,) = write_packs(samples, tmp_path)
    assert pack.path is not None
    assert pack.digest == "sha256:" + hashlib.sha256(pack.path.read_bytes()).hexdigest()
    with tarfile.open(pack.path) as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == ["sha256/" + s.digest[7:] for s in pack.samples]
        assert [m.offset_data for m in members] == [s.pack_offset for s in pack.samples]
        assert archive.extractfile(members[3]).read() == samples[3].source  # type: ignore[union-attr]


def test_the_same_samples_give_the_same_packs(tmp_path: Path, picture: Picture) -> None:
    first = [pack.digest for pack in write_packs(found(20, picture), tmp_path / "a")]
    second = [pack.digest for pack in write_packs(found(20, picture), tmp_path / "b")]
    assert first == second


def test_content_is_stored_once(tmp_path: Path, picture: Picture) -> None:
    image = picture(1)
    samples = [FoundSample(name, image, "image/png", None) for name in "abc"]
    (pack,) = write_packs(samples, tmp_path)
    assert pack.size_bytes < 2 * len(image) + 3 * 512
    assert len({(s.pack_offset, s.pack_digest) for s in pack.samples}) == 1 and len(pack.samples) == 3


def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "_MIN_PACK_BYTES", 8_000)
    monkeypatch.setattr(packs, "MAX_PACK_BYTES", 40_000)


def test_an_insertion_changes_few_packs(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_packs(monkeypatch)
    samples = found(400, picture)
    before = {pack.digest for pack in write_packs(samples, tmp_path / "a")}
    extra = FoundSample("0000a.png", picture(9999), "image/png", 0)
    after = {pack.digest for pack in write_packs([samples[0], extra, *samples[1:]], tmp_path / "b")}
    assert len(before) > 15
    assert len(after - before) <= 3


def test_content_of_earlier_packs_is_only_mentioned(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_packs(monkeypatch)
    samples = found(200, picture)
    again = [FoundSample("z" + s.name, s.source, s.media_type, s.label) for s in samples]
    once = list(write_packs(samples, tmp_path / "a"))
    twice = list(write_packs(samples + again, tmp_path / "b"))
    assert {p.digest for p in once[:-1]} <= {p.digest for p in twice if p.path}
    assert sum(p.size_bytes for p in twice) == sum(p.size_bytes for p in once)
    assert sum(len(p.samples) for p in twice) == 400
    known: set[str] = set()
    for pack in twice:  # a sample never names a pack that comes later
        known.add(pack.digest)
        assert {s.pack_digest for s in pack.samples} <= known


def test_an_interrupted_writer_leaves_no_file(tmp_path: Path, picture: Picture) -> None:
    def broken() -> Iterator[FoundSample]:
        yield from found(3, picture)
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(write_packs(broken(), tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_sealed_dataset_reads_back(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_packs(monkeypatch)
    written = list(write_packs(found(60, picture), tmp_path))
    manifest = manifest_of(written)
    assert DatasetManifest.from_bytes(manifest.to_bytes()) == manifest
    files = {pack.digest: pack.path for pack in written if pack.path}
    read = list(DatasetReader(manifest, files))
    assert [(s.name, s.label) for s in read] == [(f"{n:04d}.png", n % 3) for n in range(60)]
    assert read[7].image.size == (12, 10)
    assert [s.name for s in DatasetReader(manifest, files.__getitem__).samples(limit=3)] == [
        "0000.png",
        "0020.png",
        "0040.png",
    ]
    with pytest.raises(SampleError, match="was not fetched"):
        list(DatasetReader(manifest, {}))


def test_a_changed_byte_is_noticed(tmp_path: Path, picture: Picture) -> None:
    (pack,) = write_packs(found(2, picture), tmp_path)
    assert pack.path is not None
    data = bytearray(pack.path.read_bytes())
    data[pack.samples[1].pack_offset + 30] ^= 1
    pack.path.write_bytes(data)
    reader = DatasetReader(manifest_of([pack]), {pack.digest: pack.path})
    with pytest.raises(SampleError, match="does not hold"):
        list(reader)


def test_the_manifest_keeps_every_kind_of_label() -> None:
    boxes = (Box(0, 0.5, 0.25, 1.0, 0.5), Box(2, 0.5, 0.5, 0.1, 0.1, crowd=True))
    samples = tuple(
        ManifestSample(name, "sha256:" + "0" * 64, 1, "image/png", 0, 512, label)
        for name, label in [("boxes", boxes), ("empty", ()), ("none", None), ("one", 1)]
    )
    manifest = DatasetManifest("detection", ("ü", "b", "c"), (PackEntry("sha256:" + "1" * 64, 99),), samples)
    assert DatasetManifest.from_bytes(manifest.to_bytes()) == manifest


def test_the_manifest_is_canonical_json() -> None:
    import json

    from boardwright.content import canonical_json

    data = DatasetManifest("", ("a",), (PackEntry("sha256:" + "1" * 64, 9),), ()).to_bytes()
    assert canonical_json(json.loads(data)) == data


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"schema":"dataset/2"}',
        b'{"schema":"dataset/1"}',
        b'{"schema":"dataset/1","task":"","classes":[],"packs":[],"samples":[{"name":"a","pack":0,"offset":0,"size":0}]}',
    ],
)
def test_broken_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(SampleError, match="manifest") as caught:
        DatasetManifest.from_bytes(data)
    assert caught.value.reason == "MANIFEST_INVALID"


def test_spread_is_even_and_stable() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 9) == [0, 1, 2] and spread(3, None) == [0, 1, 2] and spread(3, 0) == []
