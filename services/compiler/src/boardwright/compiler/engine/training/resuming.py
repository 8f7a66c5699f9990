"""The state of training in a file, so that what was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import torch

_log = logging.getLogger(__name__)

_PAUSE_FACTOR = 20
"""How many times as long as it took to write the state training goes on before it is written again."""


_DIGEST_BYTES = hashlib.sha256().digest_size


class StateFile:
    """A training's state at ``path``; None keeps nothing.

    The file is the SHA-256 of what follows, and what ``torch.save`` wrote: torch itself reads a file of
    which bits have changed to other weights and says nothing.

    Keeping it is a help and never a reason to fail: what cannot be written is given up, what cannot be read
    is begun anew, and the log says so.
    """

    def __init__(self, path: Path | None, options: dict[str, Any]) -> None:
        self._path, self._options = path, options
        self._next = 0.0

    def read(self) -> dict[str, Any] | None:
        """Return what ``write`` wrote last, or None where there is nothing, or it is of other options."""
        if self._path is None or not self._path.exists():
            return None
        try:
            with self._path.open("rb") as stream:
                written = stream.read(_DIGEST_BYTES)
                if written != _digest_behind(stream):
                    raise ValueError("its bytes are not those that were written")
                stream.seek(_DIGEST_BYTES)
                found: dict[str, Any] = torch.load(stream, weights_only=True)
            return found["state"] if found["options"] == self._options else None
        except Exception as error:  # of a damaged file torch raises whatever its bytes led it to
            _log.warning("The interrupted training's state cannot be read; it starts over: %s", error)
            return None

    def write(self, state: dict[str, Any]) -> None:
        """Write ``state`` (plain values and tensors) unless the last was written a short while ago.

        The file is whole or not there, also when the process is killed while writing.
        """
        started = time.monotonic()
        if self._path is None or started < self._next:
            return
        partial = self._path.with_suffix(".partial")
        try:
            with partial.open("w+b") as stream:
                stream.write(bytes(_DIGEST_BYTES))
                torch.save({"options": self._options, "state": state}, stream)
                digest = _digest_behind(stream)
                stream.seek(0)
                stream.write(digest)
            os.replace(partial, self._path)
        except (OSError, RuntimeError) as error:
            _log.warning("The training's state cannot be kept; interrupted, it would start over: %s", error)
            partial.unlink(missing_ok=True)
            self._path = None
        finished = time.monotonic()
        self._next = finished + _PAUSE_FACTOR * (finished - started)


def _digest_behind(stream: BinaryIO) -> bytes:
    """Return the digest of what follows the place of the digest."""
    stream.seek(_DIGEST_BYTES)
    return hashlib.file_digest(stream, "sha256").digest()  # type: ignore[arg-type]
