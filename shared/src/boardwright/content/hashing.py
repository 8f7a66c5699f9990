"""SHA-256 beside the thread that moves the bytes: hashlib lets go of the interpreter while it works."""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue
from typing import Self

from boardwright.content.digest import Digest

# Handing over costs a switch of processors, so a few mebibytes go at once; three batches bound the memory.
_BATCH_BYTES = 4 << 20
_BATCHES = 3


class BackgroundHasher:
    """Hashes chunks in order, in a thread of its own. Memory stays bounded: `update` waits for a slow hash.

    Use it in a `with`, and ask for the digest within it.
    """

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._queue: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._room = threading.Semaphore(_BATCHES)
        self._thread = threading.Thread(target=self._run, name="boardwright-hash", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()

    def update(self, chunk: bytes) -> None:
        """Hash a chunk, which nobody changes afterwards, soon."""
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        if self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def digest(self) -> Digest:
        """The digest of every chunk so far."""
        self._hand_over()
        for _ in range(_BATCHES):
            self._room.acquire()
        self._room.release(_BATCHES)
        return Digest(self._hasher.hexdigest())

    def _hand_over(self) -> None:
        self._room.acquire()
        self._queue.put(self._batch)
        self._batch, self._batch_bytes = [], 0

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            for chunk in batch:
                self._hasher.update(chunk)
            batch.clear()
            self._room.release()
