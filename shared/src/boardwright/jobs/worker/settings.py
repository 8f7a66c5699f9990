"""The worker's settings, from the environment.

- BOARDWRIGHT_WORKER_ENDPOINTS: services to lease from, "host:port,host:port" (default: the compiler's and the
  builder's BOARDWRIGHT_…_ENDPOINT)
- BOARDWRIGHT_REGISTRY_ENDPOINT: where blobs are asked for
- BOARDWRIGHT_SERVICE_TOKEN: the worker's token
- BOARDWRIGHT_WORKER_FOLDER: its folder, for inputs and running steps
- BOARDWRIGHT_WORKER_NAME: default "worker-<pid>.<host>"
- BOARDWRIGHT_WORKER_SLOTS: steps at the same time (default 1: measurements want the machine alone)
- BOARDWRIGHT_WORKER_MEMORY_MIB: the most a step may ask for (default: nine tenths of the machine's memory)
- BOARDWRIGHT_WORKER_CACHE_MIB: bound of the input cache (default 10240)
- BOARDWRIGHT_WORKER_BOARDS, _TOOLCHAINS: what it speaks for, comma-separated (default: as detected)
- BOARDWRIGHT_WORKER_ACCELERATORS: likewise (default: none)
- BOARDWRIGHT_READY_FILE: written once it polls
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from boardwright.jobs.domain.leases import Offer
from boardwright.jobs.worker.kinds import installed_kinds
from boardwright.jobs.worker.probe import Machine, probe_machine


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs to know. ``python_path`` holds extra import folders for steps (tests)."""

    endpoints: tuple[str, ...]
    registry: str
    token: str
    folder: Path
    offer: Offer
    slots: int = 1
    cache_bytes: int = 10 << 30
    ready_file: Path | None = None
    python_path: tuple[str, ...] = field(default=())


class SettingMissing(ValueError):
    """A variable without which the worker cannot start; the message names it."""


def read_settings(
    environment: Mapping[str, str], probe: Callable[[], Machine] = probe_machine
) -> WorkerSettings:
    """Read the settings; ``probe`` is asked for what the environment does not say of the machine.

    Raises:
        SettingMissing: a needed variable is not set.
        ValueError: a number is none.
    """

    def words(name: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in environment.get(name, "").split(",") if word.strip())

    def needed(name: str) -> str:
        if not environment.get(name):
            raise SettingMissing(
                f"set {name}; `python -m boardwright.jobs.worker --help` lists the settings."
            )
        return environment[name]

    defaults = (environment.get(f"BOARDWRIGHT_{name}_ENDPOINT", "") for name in ("COMPILER", "BUILDER"))
    endpoints = words("BOARDWRIGHT_WORKER_ENDPOINTS") or tuple(filter(None, defaults))
    if not endpoints:
        raise SettingMissing("set BOARDWRIGHT_WORKER_ENDPOINTS to the services to lease from.")
    boards, toolchains = words("BOARDWRIGHT_WORKER_BOARDS"), words("BOARDWRIGHT_WORKER_TOOLCHAINS")
    machine = Machine() if boards and toolchains else probe()
    memory_mib = int(environment.get("BOARDWRIGHT_WORKER_MEMORY_MIB") or 0)
    offer = Offer(
        worker=environment.get("BOARDWRIGHT_WORKER_NAME") or f"worker-{os.getpid()}.{socket.gethostname()}",
        kinds=installed_kinds(),
        boards=frozenset(boards) or machine.boards,
        toolchains=frozenset(toolchains) or machine.toolchains,
        accelerators=frozenset(words("BOARDWRIGHT_WORKER_ACCELERATORS")),
        memory_bytes=memory_mib << 20 if memory_mib else machine_memory_bytes() * 9 // 10,
    )
    ready_file = environment.get("BOARDWRIGHT_READY_FILE")
    return WorkerSettings(
        endpoints=endpoints,
        registry=needed("BOARDWRIGHT_REGISTRY_ENDPOINT"),
        token=needed("BOARDWRIGHT_SERVICE_TOKEN"),
        folder=Path(needed("BOARDWRIGHT_WORKER_FOLDER")),
        offer=offer,
        slots=int(environment.get("BOARDWRIGHT_WORKER_SLOTS") or 1),
        cache_bytes=int(environment.get("BOARDWRIGHT_WORKER_CACHE_MIB") or 10240) << 20,
        ready_file=Path(ready_file) if ready_file else None,
    )


def machine_memory_bytes() -> int:
    """Return the machine's physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
