"""The confined process against hostile images."""

from __future__ import annotations

import asyncio
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from boardwright.calibration.domain.dataset import Sample
from boardwright.calibration.domain.statistics import ImageFigures
from boardwright.calibration.inspection.process import Inspector
from boardwright.rpc.errors import Unavailable
from boardwright.samples import FoundSample, write_packs

Picture = Callable[..., bytes]


@pytest.fixture
async def inspector() -> AsyncIterator[Inspector]:
    async with Inspector() as opened:
        yield opened


def packed(folder: Path, *images: bytes) -> tuple[Path, list[Sample]]:
    found = [FoundSample(f"{n}.png", data, "image/png", None) for n, data in enumerate(images)]
    (pack,) = write_packs(found, folder)
    assert pack.path is not None
    samples = [
        Sample(s.name, s.digest, s.size_bytes, s.media_type, s.pack_digest, s.pack_offset, None)
        for s in pack.samples
    ]
    return pack.path, samples


def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG that claims a size; its pixels are zeros, which compress a thousandfold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    squeezer = zlib.compressobj(9)
    body = b"".join(squeezer.compress(b"\0" * (3 * width + 1)) for _ in range(rows)) + squeezer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


async def test_good_and_bad_ones_are_told_apart(
    tmp_path: Path, picture: Picture, inspector: Inspector
) -> None:
    pack, samples = packed(
        tmp_path,
        picture(),
        picture(size=(90, 90))[:-40],
        b"no image",
        png(60_000, 60_000, 10),
        picture((1, 2, 3)),
    )
    outcomes = [await inspector.inspect(sample, pack) for sample in samples]
    assert isinstance(outcomes[0], ImageFigures) and (outcomes[0].width, outcomes[0].height) == (6, 4)
    assert "cannot be decoded" in str(outcomes[1])
    assert "not an image of a known format" in str(outcomes[2])
    assert "claims far more pixels" in str(outcomes[3])
    assert isinstance(outcomes[4], ImageFigures)


async def test_a_digest_that_does_not_match_is_noticed(
    tmp_path: Path, picture: Picture, inspector: Inspector
) -> None:
    pack, (sample,) = packed(tmp_path, picture())
    pack.write_bytes(pack.read_bytes().replace(b"IHDR", b"IHDr"))
    assert "does not hold" in str(await inspector.inspect(sample, pack))


async def test_memory_is_bounded_and_the_next_image_is_fine(tmp_path: Path, picture: Picture) -> None:
    pack, samples = packed(tmp_path, png(7_900, 7_900, 7_900), picture())
    async with Inspector(memory_bytes=128 << 20) as inspector:
        first = await inspector.inspect(samples[0], pack)
        assert isinstance(first, str) and "memory" in first
        assert isinstance(await inspector.inspect(samples[1], pack), ImageFigures)


async def test_time_is_bounded_and_the_next_image_is_fine(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, samples = packed(tmp_path, picture(), png(7_900, 7_900, 7_900), picture((1, 2, 3)))
    async with Inspector(image_seconds=0.1) as inspector:
        assert isinstance(await inspector.inspect(samples[0], pack), ImageFigures)
        assert await inspector.inspect(samples[1], pack) == "decoding it takes more than 0.1 s"
        assert isinstance(await inspector.inspect(samples[2], pack), ImageFigures)


async def test_a_killed_process_costs_nothing(tmp_path: Path, picture: Picture, inspector: Inspector) -> None:
    pack, (sample,) = packed(tmp_path, picture())
    await inspector.inspect(sample, pack)
    process = inspector._process
    assert process is not None
    process.kill()
    await process.wait()
    assert isinstance(await inspector.inspect(sample, pack), ImageFigures)


async def test_an_image_that_kills_every_process_is_invalid(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, (sample,) = packed(tmp_path, picture())
    deaths = 0

    async def die(asked: asyncio.subprocess.Process, request: object) -> None:
        nonlocal deaths
        deaths += 1
        asked.kill()
        await asked.wait()

    monkeypatch.setattr("boardwright.calibration.inspection.process._exchange", die)
    async with Inspector() as inspector:
        assert "ended the decoder" in str(await inspector.inspect(sample, pack))
    assert deaths == 2


@pytest.mark.parametrize(
    ("program", "why"), [("/bin/false", "it ended with status 1"), ("/no/such/program", "No such file")]
)
async def test_no_process_at_all_blames_no_sample(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    pack, (sample,) = packed(tmp_path, picture())
    monkeypatch.setattr(sys, "executable", program)
    async with Inspector() as inspector:
        with pytest.raises(Unavailable, match=why) as caught:
            await inspector.inspect(sample, pack)
    assert caught.value.reason == "INSPECTION_UNAVAILABLE"


async def test_the_process_has_no_network_no_settings_and_writes_no_file(tmp_path: Path) -> None:
    code = (
        "import os, socket, sys\n"
        "from boardwright.jobs.confinement import ProcessLimits, confine\n"
        "confine(ProcessLimits(data_bytes=1 << 30, file_bytes=1))\n"
        "try: socket.socket(); print('network')\n"
        "except PermissionError: print('closed')\n"
        "try:\n"
        f"    with open({str(tmp_path / 'x')!r}, 'wb') as f: f.write(b'12345'); f.flush()\n"
        "    print('wrote')\n"
        "except OSError: print('refused')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    assert output.decode().split() == ["closed", "refused"]
