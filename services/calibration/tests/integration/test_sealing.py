"""Sealing on both databases, with the real confined process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from boardwright.calibration.domain.dataset import DatasetKey, State
from boardwright.calibration.ports import Caller
from boardwright.database.listing import Page
from boardwright.rpc.errors import BoardwrightError, FailedPrecondition
from boardwright.samples import Box, DatasetManifest, DatasetReader

Picture = Callable[..., bytes]
Bench = Any  # conftest.Bench
CALLER = Caller("ada", "", "Test")


def items(picture: Picture, count: int) -> list[tuple[str, bytes, int]]:
    return [(f"{n:03d}.png", picture((n, n % 7, 0)), n % 2) for n in range(count)]


async def test_a_sealed_version_reads_back(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    await bench.service.add_samples(version.key, bench.pack(items(picture, 20)), CALLER)
    steps = await bench.seal(version)
    assert [(step.done, step.total) for step in steps] == [(0, 20), (8, 20), (16, 20), (20, 20), (20, 20)]
    sealed = steps[-1].version
    assert sealed is not None and sealed.state is State.SEALED and sealed.seal_us > 0
    assert (sealed.sample_count, sealed.labelled_count) == (20, 20)
    manifest = DatasetManifest.from_bytes(bench.blobs.read(sealed.manifest_digest))
    assert manifest.classes == ("cat", "dog") and manifest.task == "classification"
    reader = DatasetReader(manifest, lambda digest: bench.blobs.folder / digest.removeprefix("sha256:"))
    assert [(s.name, s.label, s.image.size) for s in reader] == [
        (f"{n:03d}.png", n % 2, (6, 4)) for n in range(20)
    ]
    assert await bench.service.version(version.key.dataset, "latest") == sealed
    assert {sealed.manifest_digest} in bench.blobs.held.values()
    assert list((bench.folder / "scratch").iterdir()) == []


async def test_statistics(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    images = [
        ("a.png", picture((255, 255, 255), (10, 10)), 0),
        ("b.png", picture((0, 0, 0), (20, 10)), 1),
        ("c.png", picture(128, (30, 10), "L"), 1),
        ("d.png", picture((255, 0, 0), (40, 10)), None),
    ]
    await bench.service.add_samples(version.key, bench.pack(images), CALLER)
    statistics = (await bench.sealed(version)).statistics
    assert statistics is not None
    assert (statistics.count, statistics.class_counts) == (4, {0: 1, 1: 2})
    assert (statistics.width.mean, statistics.width.minimum, statistics.width.maximum) == (25, 10, 40)
    assert statistics.height.deviation == 0 and statistics.contrast.maximum == 0
    assert statistics.brightness.mean == pytest.approx((1 + 0 + 128 / 255 + 76 / 255) / 4)
    red, green, _ = statistics.channels()
    assert (red[63], red[0], red[32]) == (100 + 400, 200, 300)
    assert (green[63], green[0], green[32]) == (100, 200 + 400, 300)


async def test_a_sealed_version_does_not_change(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack(items(picture, 3))
    await bench.service.add_samples(version.key, samples[:2], CALLER)
    sealed = await bench.sealed(version)
    with pytest.raises(BoardwrightError) as caught:
        await bench.service.add_samples(version.key, samples, CALLER)
    assert caught.value.reason == "VERSION_SEALED"
    fetched = len(bench.blobs.fetched)
    assert await bench.sealed(version) == sealed and len(bench.blobs.fetched) == fetched


async def test_the_same_content_has_the_same_manifest(bench: Bench, picture: Picture) -> None:
    samples = bench.pack(
        [("ö.png", picture(), 0), ("Z.png", picture((1, 1, 1)), 0), ("a.png", picture((2, 2, 2)), 1)]
    )
    digests = []
    for order in (samples, samples[::-1]):
        version = await bench.open()
        await bench.service.add_samples(version.key, order, CALLER)
        digests.append((await bench.sealed(version)).manifest_digest)
    other = await bench.open(key=DatasetKey("default", "elsewhere"))
    await bench.service.add_samples(other.key, samples, CALLER)
    digests.append((await bench.sealed(other)).manifest_digest)
    assert len(set(digests)) == 1
    manifest = DatasetManifest.from_bytes(bench.blobs.read(digests[0]))
    assert [sample.name for sample in manifest.samples] == ["Z.png", "a.png", "ö.png"]
    assert manifest.to_bytes() == bench.blobs.read(digests[0])


async def test_an_empty_version_is_not_sealed(bench: Bench) -> None:
    version = await bench.open()
    with pytest.raises(BoardwrightError) as caught:
        await bench.seal(version)
    assert caught.value.reason == "DATASET_EMPTY"


async def test_corrupt_images_are_named_and_left_out_only_when_asked(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    content = items(picture, 12)
    content[3] = ("003.png", picture(size=(90, 90))[:-40], 1)
    content[9] = ("009.png", b"text", 1)
    await bench.service.add_samples(version.key, bench.pack(content), CALLER)
    with pytest.raises(BoardwrightError) as caught:
        await bench.seal(version)
    assert caught.value.reason == "SAMPLES_CORRUPT" and caught.value.metadata["count"] == "2"
    assert "003.png: the image cannot be decoded" in caught.value.message
    assert "009.png: not an image of a known format" in caught.value.message
    assert (await bench.service.version(version.key.dataset, "1")).state is State.OPEN
    sealed = await bench.sealed(version, skip_invalid=True)
    assert (sealed.sample_count, sealed.labelled_count) == (10, 10)
    assert [entry.sample for entry in sealed.left_out] == ["003.png", "009.png"]
    listed, _ = await bench.service.samples(version.key, Page(size=100))
    assert len(listed) == 10
    manifest = DatasetManifest.from_bytes(bench.blobs.read(sealed.manifest_digest))
    assert len(manifest.samples) == 10 and len(manifest.packs) == 1


async def test_many_corrupt_images_are_counted(bench: Bench) -> None:
    version = await bench.open()
    content = [(f"{n:02d}.png", f"text {n}".encode(), 0) for n in range(30)]
    await bench.service.add_samples(version.key, bench.pack(content), CALLER)
    with pytest.raises(BoardwrightError) as caught:
        await bench.seal(version)
    assert caught.value.message.count(".png: ") == 20 and "… and 10 more" in caught.value.message
    with pytest.raises(BoardwrightError) as caught:
        await bench.seal(version, skip_invalid=True)
    assert caught.value.reason == "DATASET_EMPTY" and "all of its 30 samples" in caught.value.message


async def test_a_false_digest_is_noticed(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack(items(picture, 2))
    samples[1] = replace(samples[1], digest="sha256:" + "0" * 64)
    await bench.service.add_samples(version.key, samples, CALLER)
    with pytest.raises(BoardwrightError, match=r"001\.png: the pack does not hold"):
        await bench.seal(version)


async def test_an_interrupted_seal_goes_on(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    await bench.service.add_samples(version.key, bench.pack(items(picture, 40)), CALLER)
    async with aclosing(bench.sealer.seal(version.key, False, CALLER)) as steps:
        async for step in steps:
            if step.done >= 16:
                break
    assert list((bench.folder / "scratch").iterdir()) == []
    resumed = await bench.seal(version)
    assert resumed[0].done == 16
    assert resumed[-1].version is not None
    assert resumed[-1].version.statistics is not None and resumed[-1].version.statistics.count == 40


async def test_a_store_that_is_away_loses_nothing(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack(items(picture, 10))
    bench.blobs.down = True
    with pytest.raises(BoardwrightError) as caught:
        await bench.service.add_samples(version.key, samples, CALLER)
    assert caught.value.reason == "STORE_UNAVAILABLE"
    bench.blobs.down = False
    await bench.service.add_samples(version.key, samples, CALLER)
    bench.blobs.down = True
    with pytest.raises(BoardwrightError) as caught:
        await bench.seal(version)
    assert caught.value.reason == "STORE_UNAVAILABLE"
    bench.blobs.down = False
    assert (await bench.sealed(version)).sample_count == 10


async def test_two_seals_and_late_samples_agree(bench: Bench, picture: Picture) -> None:
    version = await bench.open()
    samples = bench.pack(items(picture, 45))
    await bench.service.add_samples(version.key, samples[:20], CALLER)

    async def add_late() -> None:
        for start in range(20, 45, 5):
            await asyncio.sleep(0)
            with contextlib.suppress(FailedPrecondition):  # sealed meanwhile
                await bench.service.add_samples(version.key, samples[start : start + 5], CALLER)

    one, two, _ = await asyncio.gather(bench.sealed(version), bench.sealed(version), add_late())
    assert one == two
    manifest = DatasetManifest.from_bytes(bench.blobs.read(one.manifest_digest))
    listed, _ = await bench.service.samples(version.key, Page(size=100))
    assert one.statistics is not None
    assert len(listed) == len(manifest.samples) == one.sample_count == one.statistics.count
    assert one.sample_count % 5 == 0 and one.sample_count >= 20


async def test_content_under_several_names_is_fetched_once(bench: Bench, picture: Picture) -> None:
    version = await bench.open((), "")
    samples = bench.pack([(f"{n:03d}.png", picture((n % 3, 0, 0)), None) for n in range(30)])
    await bench.service.add_samples(version.key, samples, CALLER)
    sealed = await bench.sealed(version)
    assert sealed.sample_count == 30 and len(bench.blobs.fetched) == 1


async def test_boxes_are_counted_by_class(bench: Bench, picture: Picture) -> None:
    version = await bench.open(("a", "b"), "detection")
    boxes = (Box(1, 0.5, 0.5, 0.2, 0.2), Box(1, 0.1, 0.1, 0.1, 0.1, crowd=True), Box(0, 0.5, 0.5, 1, 1))
    samples = bench.pack([("a.png", picture(), boxes), ("b.png", picture((3, 3, 3)), ())])
    await bench.service.add_samples(version.key, samples, CALLER)
    sealed = await bench.sealed(version)
    assert sealed.statistics is not None and sealed.statistics.class_counts == {0: 1, 1: 2}
    assert sealed.labelled_count == 2
    manifest = DatasetManifest.from_bytes(bench.blobs.read(sealed.manifest_digest))
    assert manifest.samples[0].label == boxes and manifest.samples[1].label == ()
