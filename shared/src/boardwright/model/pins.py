"""HardwarePin: exactly where an artifact may run, and why a machine does not match."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boardwright.model.documents import from_document, to_document
from boardwright.model.errors import ModelError
from boardwright.model.host import Host

SCHEMA = "hardware-pin/1"
REASON = "HARDWARE_PIN_INVALID"


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwarePin:
    """What an artifact was built for. An empty field demands nothing.

    Attributes:
        board: the catalogue's name of the board ("jetson-orin-nx").
        architecture: the machine's instruction set as the kernel names it ("x86_64", "aarch64").
        cpu_features: what the kernels need, as the kernel names it ("avx2", "asimddp"), or "vnni".
        accelerator: the accelerator's architecture ("sm_87", "hailo8").
        runtime: the inference runtime ("onnxruntime").
        runtime_version: an exact version ("1.31.1"), any of one line ("1.31.*"), or bounds (">=1.20,<2").
        bsp: the board support package ("L4T 36.4.3").
        driver: the accelerator's driver version, in the same notations.
    """

    architecture: str
    board: str = ""
    cpu_features: tuple[str, ...] = ()
    accelerator: str = ""
    runtime: str = ""
    runtime_version: str = ""
    bsp: str = ""
    driver: str = ""

    def __post_init__(self) -> None:
        if not self.architecture:
            raise ModelError(REASON, "hardware pin: architecture is missing (x86_64, aarch64, armv7l…)")
        object.__setattr__(self, "cpu_features", tuple(sorted(set(self.cpu_features))))
        if self.runtime_version and not self.runtime:
            raise ModelError(REASON, "hardware pin: runtime_version without a runtime")
        for field in ("runtime_version", "driver"):
            for condition in _conditions(getattr(self, field)):
                if not _CONDITION.fullmatch(condition):
                    raise ModelError(
                        REASON,
                        f"hardware pin: {field} {getattr(self, field)!r} is neither a version (1.31.1), "
                        "a line (1.31.*) nor bounds (>=1.20,<2)",
                    )

    def to_json(self) -> dict[str, Any]:
        """The versioned JSON object."""
        return to_document(self, SCHEMA)

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str | bytes) -> "HardwarePin":
        """Read a pin from its JSON object or text.

        Raises:
            ModelError: ``HARDWARE_PIN_INVALID``, naming the field; an unknown field is an error, since a
                demand that this program does not know must not count as met.
        """
        return from_document(cls, document, schema=SCHEMA, reason=REASON, what="hardware pin")


def mismatches(pin: HardwarePin, host: Host) -> list[str]:
    """Why an artifact for ``pin`` must not run on ``host``: plain sentences, empty when it may."""
    found: list[str] = []
    if pin.board and pin.board != host.board:
        found.append(f"built for board {pin.board}, this is {host.board or 'an unknown board'}")
    if pin.architecture != host.architecture:
        found.append(f"built for architecture {pin.architecture}, this machine is {host.architecture}")
    missing = sorted(set(pin.cpu_features) - host.cpu_features)
    if missing:
        found.append(f"needs CPU features that this machine lacks: {', '.join(missing)}")
    if pin.accelerator and pin.accelerator not in host.accelerators:
        here = ", ".join(host.accelerators) or "none"
        found.append(f"needs accelerator {pin.accelerator}, this machine has {here}")
    found.extend(_runtime_mismatch(pin, host))
    if pin.bsp and pin.bsp != host.bsp:
        found.append(f"built for BSP {pin.bsp}, this machine has {host.bsp or 'none'}")
    if pin.driver and not version_fits(pin.driver, host.driver):
        found.append(f"needs driver {pin.driver}, this machine has {host.driver or 'none'}")
    return found


def _runtime_mismatch(pin: HardwarePin, host: Host) -> list[str]:
    if not pin.runtime:
        return []
    if pin.runtime not in host.runtimes:
        here = ", ".join(sorted(host.runtimes)) or "none"
        return [f"needs runtime {pin.runtime}, this machine has {here}"]
    version = host.runtimes[pin.runtime]
    if pin.runtime_version and not version_fits(pin.runtime_version, version):
        return [f"needs {pin.runtime} {pin.runtime_version}, this machine has {version}"]
    return []


_CONDITION = re.compile(r"(?:>=|<=|>|<|==)?\s*\d+(?:\.\d+)*(?:[.+-]?[0-9A-Za-z]+)*|\d+(?:\.\d+)*\.\*")


def version_fits(wanted: str, actual: str) -> bool:
    """Whether a version meets "1.31.1", "1.31.*" or ">=1.20,<2" (every condition)."""
    return bool(actual) and all(_holds(condition, actual) for condition in _conditions(wanted))


def _conditions(wanted: str) -> list[str]:
    return [part.strip() for part in wanted.split(",") if part.strip()]


def _holds(condition: str, actual: str) -> bool:
    if condition.endswith(".*"):
        return (actual + ".").startswith(condition[:-1])
    for sign in (">=", "<=", "==", ">", "<"):
        if condition.startswith(sign):
            left, right = _numbers(actual), _numbers(condition[len(sign) :])
            return {
                ">=": left >= right,
                "<=": left <= right,
                "==": left == right,
                ">": left > right,
                "<": left < right,
            }[sign]
    return condition == actual


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", version.split("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
