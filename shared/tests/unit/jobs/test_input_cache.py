"""Inputs are fetched once, shared while in use, and bounded on disk."""

import asyncio
from pathlib import Path

import pytest

from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.worker.input_cache import InputCache


def blob(letter: str, size: int = 10) -> Blob:
    return Blob("sha256:" + letter * 64, size)


class Source:
    """Writes ten bytes a blob; counts."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.failing = False

    async def __call__(self, wanted: Blob, path: Path) -> None:
        self.fetched.append(wanted.digest[7])
        await asyncio.sleep(0)
        path.write_bytes(wanted.digest[7:17].encode())
        if self.failing:
            raise ConnectionError("broken off")


@pytest.fixture
def source() -> Source:
    return Source()


def names(folder: Path) -> list[str]:
    return sorted(file.name[0] for file in folder.iterdir())


async def test_what_is_here_is_not_fetched_again(tmp_path: Path, source: Source) -> None:
    cache = InputCache(tmp_path / "inputs", 100)
    for _ in range(2):
        async with cache.use({"model": blob("a"), "same": blob("a")}, source) as paths:
            assert paths["model"] == paths["same"]
            assert paths["model"].read_bytes() == b"a" * 10
            assert paths["model"].stat().st_mode & 0o222 == 0
    again = InputCache(tmp_path / "inputs", 100)
    async with again.use({"model": blob("a")}, source):
        pass
    assert source.fetched == ["a"]


async def test_two_steps_that_want_the_same_fetch_it_once(tmp_path: Path, source: Source) -> None:
    cache = InputCache(tmp_path / "inputs", 100)

    async def use() -> None:
        async with cache.use({"model": blob("a")}, source):
            await asyncio.sleep(0)

    await asyncio.gather(use(), use(), use())
    assert source.fetched == ["a"]


async def test_the_folder_is_bounded_and_the_oldest_go_first(tmp_path: Path, source: Source) -> None:
    cache = InputCache(tmp_path / "inputs", 25)
    for letter in "abc":
        async with cache.use({"input": blob(letter)}, source):
            pass
    assert names(tmp_path / "inputs") == ["b", "c"]
    async with cache.use({"input": blob("b")}, source):
        pass
    async with cache.use({"input": blob("d")}, source):
        pass
    assert names(tmp_path / "inputs") == ["b", "d"]


async def test_what_is_in_use_stays_whatever_the_bound(tmp_path: Path, source: Source) -> None:
    cache = InputCache(tmp_path / "inputs", 5)
    async with cache.use({"a": blob("a"), "b": blob("b")}, source) as paths:
        assert all(path.exists() for path in paths.values())
    assert names(tmp_path / "inputs") == []


async def test_a_broken_fetch_leaves_nothing(tmp_path: Path, source: Source) -> None:
    cache = InputCache(tmp_path / "inputs", 100)
    source.failing = True
    with pytest.raises(ConnectionError):
        async with cache.use({"input": blob("a")}, source):
            pytest.fail("the block must not run")
    assert names(tmp_path / "inputs") == []
    source.failing = False
    async with cache.use({"input": blob("a")}, source) as paths:
        assert paths["input"].exists()


async def test_one_blob_is_fetched_by_one_step_at_a_time_also_after_a_failure(tmp_path: Path) -> None:
    cache = InputCache(tmp_path / "inputs", 100)
    fetching, most, calls = 0, 0, 0
    broken, late = asyncio.Event(), asyncio.Event()

    async def fetch(wanted: Blob, path: Path) -> None:
        nonlocal fetching, most, calls
        calls, fetching = calls + 1, fetching + 1
        most, first = max(most, fetching), calls == 1
        try:
            await (broken if first else late).wait()
            if first:
                raise ConnectionError("broken off")
            path.write_bytes(b"a" * 10)
        finally:
            fetching -= 1

    async def use() -> None:
        async with cache.use({"model": blob("a")}, fetch):
            pass

    first, second = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0)
    broken.set()
    with pytest.raises(ConnectionError):
        await first
    third = asyncio.create_task(use())
    await asyncio.sleep(0)
    late.set()
    await asyncio.gather(second, third)
    assert (most, calls) == (1, 2)
