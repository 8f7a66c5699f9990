"""What interrupted steps keep on this machine's disk, so that their next attempt goes on from there.

Each state is a folder, named by project and cache key: whoever gets it back does the same work on the same
inputs. It is gone once the step has ended for good. What is never asked for again goes by its age, and the
oldest go first where all of them outgrow their bound. A state is its step's alone: nothing here reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from boardwright.jobs.left_files import remove_left
from boardwright.jobs.step_api import StepError

MAX_BYTES = 8 << 30
MAX_AGE_SECONDS = 7 * 24 * 3600.0


class StepStates:
    """A folder of states: at most ``max_bytes`` while no step runs, none older than ``max_age_seconds``."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int = MAX_BYTES,
        max_age_seconds: float = MAX_AGE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._max_bytes, self._max_age = folder, max_bytes, max_age_seconds
        self._clock = clock
        self._in_use: set[Path] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self._shrink()

    @contextlib.contextmanager
    def use(self, project: str, cache_key: str) -> Iterator[Path | None]:
        """Give the step's folder for the length of the block, with what its last attempt left there.

        It stays for the next attempt where the block raises anything but a deterministic StepError, and is
        removed otherwise. None where another step of the same key uses it.
        """
        name = hashlib.sha256(f"{project}\n{cache_key}".encode()).hexdigest()
        path = self._folder / name
        if path in self._in_use:
            yield None
            return
        self._in_use.add(path)
        try:
            path.mkdir(exist_ok=True)
            yield path
        except StepError as error:
            if error.deterministic:
                remove_left(path)
            raise
        else:
            remove_left(path)
        finally:
            self._in_use.discard(path)
            self._shrink()

    def _shrink(self) -> None:
        """Remove what is empty, too old, or too much; and what holds anything else than plain files."""
        oldest = self._clock() - self._max_age
        left = self._max_bytes
        found = [(*_size_and_time(path), path) for path in self._folder.iterdir()]
        for size, changed, path in sorted(found, key=lambda each: -each[1]):
            if path in self._in_use:
                continue
            if not size or changed < oldest or size > left:
                remove_left(path)
            else:
                left -= size


def _size_and_time(folder: Path) -> tuple[int, float]:
    """Return bytes and time of the last change; (0, 0.0) where there is anything else than plain files."""
    size, changed = 0, 0.0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    return 0, 0.0
                size, changed = size + status.st_size, max(changed, status.st_mtime)
    except OSError:
        return 0, 0.0
    return size, changed
