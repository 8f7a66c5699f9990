"""From what the operating system says of a folder to what a store says."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boardwright.content.errors import StoreFull, StoreUnavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def store_errors(root: Path) -> Iterator[None]:
    """Turn an OSError of a store's folder into StoreFull or StoreUnavailable.

    Raises:
        StoreFull: the disk, the quota or the process's file size limit is used up.
        StoreUnavailable: anything else that the operating system reports.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(
                f"no room left in the blob folder {root} ({error.strerror}): free some, then retry"
            ) from error
        raise StoreUnavailable(
            f"the blob folder {root} cannot be used ({error.strerror or error}): repair it, then retry"
        ) from error
