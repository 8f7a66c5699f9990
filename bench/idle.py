"""Start time, memory and stop time of the embedded stack, idle: `python bench/idle.py [--json FILE]`.

Starts every service as its own process on fresh data, lets it settle, and sums the processes' PSS (private
memory plus each one's share of what is shared: the only figure that can be added up). The second start on
the same data is timed as well; the first also makes keys and databases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from boardwright.cli.embedded import stack
from boardwright.cli.embedded.folder import DataFolder, find_holder

LIMIT_MIB = 600
LIMIT_READY_SECONDS = 5.0
LIMIT_STOP_SECONDS = 5.0


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed_start(data: Path) -> float:
    """Start the stack in the background; returns the seconds until everything is ready."""
    started = time.monotonic()
    stack.up(data, detach=True)
    return time.monotonic() - started


def timed_stop(data: Path) -> float:
    """Stop the stack; returns the seconds that took."""
    started = time.monotonic()
    stack.down(data)
    return time.monotonic() - started


def measure(data: Path, settle_seconds: float) -> dict[str, Any]:
    """Measure one first and one second start."""
    first = timed_start(data)
    first_stop = timed_stop(data)
    second = timed_start(data)
    time.sleep(settle_seconds)
    told = stack.status(data)
    processes: list[dict[str, Any]] = [
        {"name": p.name, "pid": p.pid, "pss_bytes": p.memory_bytes} for p in told.processes
    ]
    processes.append(
        {"name": "supervisor", "pid": told.pid, "pss_bytes": stack.proportional_memory(told.pid)}
    )
    before = {p["pid"]: cpu_seconds(p["pid"]) for p in processes}
    time.sleep(settle_seconds)
    for process in processes:
        used = cpu_seconds(process["pid"]) - before[process["pid"]]
        process["idle_cpu_percent"] = round(100 * used / settle_seconds, 2)
    total = sum(process["pss_bytes"] for process in processes)
    return {
        "bench": "idle",
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "first_start_seconds": round(first, 2),
        "second_start_seconds": round(second, 2),
        "stop_seconds": [round(first_stop, 2), round(timed_stop(data), 2)],
        "processes": processes,
        "total_pss_bytes": total,
        "limits": {"pss_mib": LIMIT_MIB, "ready_seconds": LIMIT_READY_SECONDS},
    }


def table(result: dict[str, Any]) -> str:
    """Return the result for people."""
    lines = [f"{'process':<14}{'PSS MiB':>9}{'idle CPU %':>12}"]
    for process in sorted(result["processes"], key=lambda p: -p["pss_bytes"]):
        mib = process["pss_bytes"] / (1 << 20)
        lines.append(f"{process['name']:<14}{mib:>9.1f}{process['idle_cpu_percent']:>12}")
    total = result["total_pss_bytes"] / (1 << 20)
    cpu = sum(process["idle_cpu_percent"] for process in result["processes"])
    lines.append(f"{'together':<14}{total:>9.1f}{cpu:>12.2f}   (limit {LIMIT_MIB} MiB)")
    lines.append(
        f"first start  {result['first_start_seconds']:.2f} s until ready (limit {LIMIT_READY_SECONDS} s)"
    )
    lines.append(f"second start {result['second_start_seconds']:.2f} s until ready")
    lines.append(f"stop         {max(result['stop_seconds']):.2f} s (limit {LIMIT_STOP_SECONDS} s)")
    return "\n".join(lines)


def main() -> int:
    """Run the bench; exit status 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("runs/idle.json"))
    parser.add_argument("--settle", type=float, default=10.0, help="seconds to wait before measuring")
    options = parser.parse_args()
    data = Path(tempfile.mkdtemp(prefix="boardwright-idle-"))
    try:
        result = measure(data, options.settle)
    finally:
        if find_holder(DataFolder(data)) is not None:
            stack.down(data)
        shutil.rmtree(data, ignore_errors=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))  # noqa: T201
    too_much = result["total_pss_bytes"] > LIMIT_MIB << 20 or max(result["stop_seconds"]) > LIMIT_STOP_SECONDS
    late = max(result["first_start_seconds"], result["second_start_seconds"]) > LIMIT_READY_SECONDS
    return int(too_much or late)


if __name__ == "__main__":
    sys.exit(main())
