"""What `boardwright doctor` looks at."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boardwright.cli.session import Session

if TYPE_CHECKING:
    from boardwright.client import Client

OK, MISSING, OPTIONAL = "ok", "missing", "optional"
_LOW_DISK_BYTES = 2e9
_OPTIONAL_MODULES = (
    ("onnxruntime", "compiling, building and measuring here", "pip install 'boardwright-builder[engine]'"),
    ("openvino", "building and measuring for OpenVINO", "pip install 'boardwright-builder[openvino]'"),
    ("torch", "state dicts and TorchScript", "pip install 'boardwright-compiler[torch]'"),
    ("ultralytics", "Ultralytics checkpoints (AGPL-3.0)", "pip install 'boardwright-compiler[ultralytics]'"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `state` is "ok", "missing" or "optional" (absent, and only some work needs it)."""

    check: str
    state: str
    found: str
    advice: str = ""


def run_checks(session: Session) -> list[Finding]:
    """All checks; those of the server stop at the first that shows it is away."""
    return [*_installation(), *_disk(session), *_server(session)]


def _installation() -> Iterator[Finding]:
    version = importlib.metadata.version("boardwright-cli")
    yield Finding("boardwright", OK, f"{version}, Python {platform.python_version()} at {sys.prefix}")
    for module, used_for, advice in _OPTIONAL_MODULES:
        if importlib.util.find_spec(module) is None:
            yield Finding(module, OPTIONAL, "not installed", f"{advice} for {used_for}")
        else:
            yield Finding(module, OK, importlib.metadata.version(module))


def _disk(session: Session) -> Iterator[Finding]:
    from boardwright.cli.output import size

    folder = session.data_folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    advice = "" if free > _LOW_DISK_BYTES else "free some space, or use another folder with --data"
    yield Finding("disk", OK if free > _LOW_DISK_BYTES else MISSING, f"{size(free)} free at {folder}", advice)


def _server(session: Session) -> Iterator[Finding]:
    from boardwright.client import BoardwrightError, Client, find_credentials

    try:
        credentials = find_credentials(session.endpoint, session.token, data=session.data)
    except BoardwrightError as error:
        yield Finding("server", MISSING, "none configured, none runs here", error.message)
        return
    client = Client(credentials.endpoint, credentials.token, session.project)
    try:
        for _ in client.models.list(limit=1):
            pass
    except BoardwrightError as error:
        yield Finding("server", MISSING, f"{credentials.endpoint} ({credentials.source})", error.message)
        return
    yield Finding("server", OK, f"{credentials.endpoint} ({credentials.source})")
    with client:
        yield from _services(client)


def _services(client: Client) -> Iterator[Finding]:
    from boardwright.client import BoardwrightError

    asks: dict[str, Callable[[], object]] = {
        "calibration": lambda: next(client.datasets.list(limit=1), None),
        "compiler": lambda: client.recipes.list(),
        "builder": lambda: next(client.boards.list(), None),
        "delivery": lambda: next(client.fleets.list(limit=1), None),
    }
    for service, ask in asks.items():
        try:
            ask()
            yield Finding(service, OK, "answers")
        except BoardwrightError as error:
            yield Finding(service, MISSING, error.reason, error.message)
            return
    here = client.boards.here()
    yield Finding(
        "board",
        OK if here is not None else OPTIONAL,
        here.title if here is not None else "this machine is not in the catalogue",
        "" if here is not None else "build for a board that is: boardwright ls boards",
    )
    for toolchain in client.boards.toolchains():
        name = toolchain.name.removeprefix("toolchains/")
        found = toolchain.version if toolchain.available else "not here"
        yield Finding(
            f"toolchain {name}", OK if toolchain.available else OPTIONAL, found, toolchain.waits_for
        )
