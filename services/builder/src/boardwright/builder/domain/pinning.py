"""From what was built to the HardwarePin that says where it may run, and whose figures count as measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from boardwright.builder.domain.boards import Board, Runtime
from boardwright.model.host import Host
from boardwright.model.pins import HardwarePin, mismatches

HOST_BOARD = "host"
"""Stands for the board that this machine is."""

_OVERRIDES = ("bsp", "driver", "runtime_version", "accelerator")


class PinRefused(Exception):
    """An override cannot be taken; the message says which and why."""


def make_pin(
    board: Board,
    runtime: Runtime,
    runtime_version: str,
    cpu_features: Iterable[str],
    overrides: Mapping[str, str],
    host: Host | None = None,
) -> HardwarePin:
    """Return the pin of an artifact.

    ``host`` is given where the board is the machine that builds: BSP and driver are then the detected ones,
    where the runtime drives an accelerator. ``overrides`` may set bsp, driver, accelerator and
    runtime_version for a board that is elsewhere.

    Raises:
        PinRefused: an override names another field.
    """
    unknown = sorted(name for name, value in overrides.items() if value and name not in _OVERRIDES)
    if unknown:
        raise PinRefused(
            f"The pin's {unknown[0]} follows from the board; only {', '.join(_OVERRIDES)} can be given."
        )
    drives = board.accelerator_architecture(runtime)
    pin = HardwarePin(
        board=board.name,
        architecture=board.architecture,
        cpu_features=tuple(cpu_features),
        accelerator=drives,
        runtime=runtime.name,
        runtime_version=runtime_version,
        bsp=host.bsp if host and drives else "",
        driver=host.driver if host and drives else "",
    )
    return replace(
        pin,
        bsp=overrides.get("bsp") or pin.bsp,
        driver=overrides.get("driver") or pin.driver,
        runtime_version=overrides.get("runtime_version") or pin.runtime_version,
        accelerator=overrides.get("accelerator") or pin.accelerator,
    )


def host_pin(host: Host, runtime: str) -> HardwarePin:
    """Return where a figure was made: this machine, as it is."""
    return HardwarePin(
        board=host.board,
        architecture=host.architecture,
        cpu_features=tuple(sorted(host.cpu_features & _TOLD_FEATURES)),
        accelerator=host.accelerators[0] if host.accelerators else "",
        runtime=runtime if runtime in host.runtimes else "",
        runtime_version=host.runtimes.get(runtime, ""),
        bsp=host.bsp,
        driver=host.driver,
    )


def why_emulated(pin: HardwarePin, host: Host) -> list[str]:
    """Return why a figure made on ``host`` is no measurement for ``pin``; empty where it is one."""
    return mismatches(pin, host)


# The features that decide which kernels run; a pin with all of a CPU's flags says nothing to a reader.
_TOLD_FEATURES = frozenset(
    {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "vnni", "amx_int8", "amx_bf16", "fma"}
    | {"asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "fphp"}
)
