"""What else the machine was doing while something was measured: stands beside every figure."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_OWN_LOAD = 1.5
_STOLEN_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment: kernel ticks of all CPUs, those stolen by the hypervisor, own lost turns."""

    ticks: int
    stolen: int
    preempted: int


def read_noise() -> Reading:
    """Read the counters; zeros where the system has none."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        ticks = [int(field) for field in fields]
    except (OSError, ValueError):
        ticks = [0]
    return Reading(
        sum(ticks),
        ticks[7] if len(ticks) > 7 else 0,
        resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
    )


def noise_between(before: Reading, after: Reading) -> dict[str, float]:
    """Return the load average, the share of stolen CPU time, and how often this process lost its turn."""
    ticks = after.ticks - before.ticks
    return {
        "load_average_1m": round(os.getloadavg()[0], 2),
        "stolen_share": round((after.stolen - before.stolen) / ticks, 5) if ticks > 0 else 0.0,
        "preemptions": float(after.preempted - before.preempted),
    }


def busy_warning(noise: dict[str, float], cpus: int) -> str:
    """Return a sentence where others had the machine too; empty where the figures can stand as they are.

    A measurement itself keeps about as many threads busy as there are CPUs.
    """
    load, stolen = noise["load_average_1m"], noise["stolen_share"]
    if load <= cpus + _OWN_LOAD and stolen <= _STOLEN_SHARE:
        return ""
    return (
        f"The host was busy (load average {load:g} on {cpus} CPUs, {stolen:.1%} of its time stolen): single "
        "latencies are too high; the ratios between artifacts of this run still hold. Measure again on a "
        "quiet machine for absolute figures."
    )


def governor() -> str:
    """Return the first CPU's frequency governor; empty where there is none (most virtual machines)."""
    try:
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
