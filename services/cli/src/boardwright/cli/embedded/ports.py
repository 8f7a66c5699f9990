"""Ports on loopback: the ones of the last start where they are still free, else new ones."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"


def pick_ports(names: Iterable[str], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return a port for each name; ``wanted`` ones are kept when free.

    All of them are held at once while picking, so that no two names get the same.
    """
    with contextlib.ExitStack() as held:
        return {name: _hold(held, wanted.get(name, 0)) for name in names}


def _hold(held: contextlib.ExitStack, wanted: int) -> int:
    for port in (wanted, 0):
        listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            continue
        return int(listener.getsockname()[1])
    raise OSError("no free port on loopback")
