"""The service's side of the confined process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from boardwright.calibration.domain.dataset import Sample
from boardwright.calibration.domain.statistics import ImageFigures
from boardwright.rpc.errors import Unavailable

MEMORY_BYTES = 1 << 30
IMAGE_SECONDS = 30.0
_ENDING_SECONDS = 5.0
START_SECONDS = 60.0
_LINE_BYTES = 1 << 20


class Inspector:
    """Decodes samples one after the other. Use as `async with`; a death of the process costs nothing but
    time.

    Args:
        memory_bytes: of private memory in the process. Decoding the largest allowed image takes about half.
        image_seconds: for one image; afterwards the process is killed and the image called invalid.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES, image_seconds: float = IMAGE_SECONDS) -> None:
        self._memory_bytes = memory_bytes
        self._image_seconds = image_seconds
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Inspector:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._end()

    async def inspect(self, sample: Sample, pack: Path) -> ImageFigures | str:
        """The figures of a sample, or what is wrong with it in plain words.

        A sample is blamed for the death of its process only when it happens twice: the first time may have
        been the system's doing.

        Raises: Unavailable INSPECTION_UNAVAILABLE when no process can be started.
        """
        for _ in range(2):
            answer = await self._ask(sample, pack)
            if answer is not None:
                return answer
        return "decoding it ended the decoder (out of memory, or a defect that the image provokes)"

    async def _ask(self, sample: Sample, pack: Path) -> ImageFigures | str | None:
        """The process's answer; None when it died instead."""
        process = self._process or await self._start()
        request = {
            "pack": str(pack),
            "digest": sample.digest,
            "offset": sample.pack_offset,
            "size": sample.size_bytes,
        }
        try:
            async with asyncio.timeout(self._image_seconds):
                answer = await _exchange(process, request)
        except TimeoutError:
            await self._end()
            return f"decoding it takes more than {self._image_seconds:g} s"
        except BaseException:
            await self._end()
            raise
        if answer is None:
            await self._end()
            return None
        if "problem" in answer:
            return str(answer["problem"])
        figures = answer["figures"]
        figures["channels"] = tuple(tuple(channel) for channel in figures["channels"])
        return ImageFigures(**figures)

    async def _start(self) -> asyncio.subprocess.Process:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "boardwright.calibration.inspection.confined",
                str(self._memory_bytes),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=kept,
                limit=_LINE_BYTES,
            )
            async with asyncio.timeout(START_SECONDS):
                ready = await _read(self._process)
        except (OSError, TimeoutError) as error:
            await self._end()
            raise _no_process(str(error) or "it does not answer") from error
        except BaseException:
            await self._end()
            raise
        if ready is None:
            process = self._process
            # It closed its output, so it ends by itself; to kill it before it is reaped would lose its status
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ENDING_SECONDS):
                    await process.wait()
            await self._end()
            raise _no_process(f"it ended with status {process.returncode}")
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


async def _exchange(process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any] | None:
    """One request and its answer; None when the process died over it."""
    if process.stdin is None:
        return None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
    except ConnectionError:
        return None
    return await _read(process)


async def _read(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """The next line of the process; None when it ended."""
    if process.stdout is None:
        return None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


def _no_process(why: str) -> Unavailable:
    return Unavailable(
        "INSPECTION_UNAVAILABLE",
        f"the process that decodes images cannot be started ({why}); seal again, nothing was lost",
    )
