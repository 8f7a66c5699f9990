"""Threads of torch, as many as the work is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_WORTH_SHARING = 1e8  # multiplications per run


@contextmanager
def threads_for(multiplications: int, wanted: int = 0) -> Iterator[None]:
    """Let torch use ``wanted`` threads for a while; 0: one for small networks.

    (A network of a million multiplications took six times the CPU on two threads of a busy machine.)
    """
    import torch

    before = torch.get_num_threads()
    if wanted or multiplications < _WORTH_SHARING:
        torch.set_num_threads(wanted or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
