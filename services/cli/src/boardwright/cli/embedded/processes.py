"""Which processes the embedded stack has, and the environment that each of them gets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from boardwright.cli.embedded.credentials import SERVICES, Credentials
from boardwright.cli.embedded.folder import DataFolder
from boardwright.cli.embedded.ports import LOOPBACK

PORT_NAMES = (*SERVICES, "gateway-http", "gateway-grpc")
SECRETS = (
    "BOARDWRIGHT_SERVICE_TOKEN",
    "BOARDWRIGHT_GRANT_KEY",
    "BOARDWRIGHT_SIGNING_KEY",
)
# glibc gives each thread's first allocations an arena of its own; services are small and many-threaded.
_FROM_THE_USER = ("BOARDWRIGHT_LOG", "BOARDWRIGHT_JOBS_KEPT_DAYS")
_LEAN = {"MALLOC_ARENA_MAX": "2", "GRPC_ENABLE_FORK_SUPPORT": "0"}


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process: ``python -m module arguments…``. ``endpoint`` is told by ``status``.

    ``stop_first`` processes are stopped before the services that they need on their way out.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    endpoint: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_first: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """The addresses of one running stack."""

    ports: Mapping[str, int]

    def endpoint(self, name: str) -> str:
        """Return ``host:port`` of a port's name."""
        return f"{LOOPBACK}:{self.ports[name]}"

    @property
    def gateway_url(self) -> str:
        """The URL of REST, files and devices."""
        return f"http://{self.endpoint('gateway-http')}"


def describe(folder: DataFolder, credentials: Credentials, ports: Mapping[str, int]) -> list[ProcessSpec]:
    """Return all processes of the stack: five services, the gateway, one worker."""
    stack = Stack(ports)
    shared = {
        "BOARDWRIGHT_TOKENS_FILE": str(folder.tokens),
        "BOARDWRIGHT_GRANT_KEY": credentials.grant_key,
        "BOARDWRIGHT_GATEWAY_URL": stack.gateway_url,
        **{f"BOARDWRIGHT_{name.upper()}_ENDPOINT": stack.endpoint(name) for name in SERVICES},
    }
    storage = {
        "BOARDWRIGHT_BLOBS_URL": folder.blobs.as_uri(),
        "BOARDWRIGHT_SIGNING_KEY": credentials.signing_key,
    }
    specs = []
    for name in SERVICES:
        own = {
            f"BOARDWRIGHT_{name.upper()}_LISTEN": stack.endpoint(name),
            "BOARDWRIGHT_DATABASE_URL": folder.database(name),
            "BOARDWRIGHT_STATE_DIR": str(folder.state(name)),
            "BOARDWRIGHT_SERVICE_TOKEN": credentials.services[name],
        }
        environment = shared | own | (storage if name == "registry" else {})
        specs.append(ProcessSpec(name, f"boardwright.{name}", ("serve",), stack.endpoint(name), environment))
    gateway = {
        "BOARDWRIGHT_GATEWAY_LISTEN": stack.endpoint("gateway-http"),
        "BOARDWRIGHT_GATEWAY_GRPC_LISTEN": stack.endpoint("gateway-grpc"),
        "BOARDWRIGHT_STATE_DIR": str(folder.state("gateway")),
        "BOARDWRIGHT_SERVICE_TOKEN": credentials.services["gateway"],
    }
    specs.append(
        ProcessSpec(
            "gateway",
            "boardwright.gateway",
            ("serve",),
            stack.gateway_url,
            shared | storage | gateway,
            stop_first=True,
        )
    )
    worker = {
        "BOARDWRIGHT_WORKER_ENDPOINTS": ",".join(stack.endpoint(name) for name in ("compiler", "builder")),
        "BOARDWRIGHT_WORKER_FOLDER": str(folder.state("worker")),
        "BOARDWRIGHT_REGISTRY_ENDPOINT": stack.endpoint("registry"),
        "BOARDWRIGHT_SERVICE_TOKEN": credentials.worker,
    }
    specs.append(ProcessSpec("worker", "boardwright.jobs.worker", (), "", worker, stop_first=True))
    return specs


def full_environment(folder: DataFolder, spec: ProcessSpec) -> dict[str, str]:
    """Return a process's whole environment: the user's, without what was meant for another stack."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BOARDWRIGHT_") or name in _FROM_THE_USER
    }
    ready = {"BOARDWRIGHT_READY_FILE": str(folder.ready_file(spec.name))}
    return inherited | _LEAN | dict(spec.environment) | ready
