"""The registry beside MLflow and a bare echo: `python bench/registry.py [--mlflow PYTHON] [--json FILE]`.

Three comparisons, each against a peer in the same run and the same minutes:

- writes: create a version, point an alias at it, get it by the alias, in a closed loop of 1, 8 and 32 clients
  (`closed_loop.py`), on the registry and on MLflow in turns. The registry's commits are durable (fsync) and
  its calls authenticated; MLflow's are as it comes.
- reads: get by alias, beside an echo of equal size by a server that does nothing else.
- growth: what a call costs with 100 versions in a model and with 100,000.

Clients run on the machine of the servers. `--mlflow` is the python of an environment with mlflow==3.17.2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
from closed_loop import run_level
from registry_growth import Grown, compare
from registry_systems import PROJECT, Registry, running_echo, running_mlflow, token

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.testing.services import running_service

LIMIT_TIMES_MLFLOW = {1: 8.0, 8: 10.0, 32: 10.0}
LIMIT_CPU_MS = 1.2
LIMIT_ECHO_SHARE = 0.4
LIMIT_GROWTH = 1.5
_READ_ROUNDS = 11
_READ_WARM_UP_SECONDS = 0.3


def measure_writes(registry: Registry, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The write workload level by level, on the registry and on MLflow in turns."""
    rows = []
    with ExitStack() as stack:
        mlflow = (
            stack.enter_context(running_mlflow(options.mlflow, folder / "mlflow")) if options.mlflow else None
        )
        for clients in options.levels:
            ours = run_level(registry.writer(f"w{clients}"), clients, options.seconds, registry.pid)
            row: dict[str, Any] = {"clients": clients, "boardwright": asdict(ours)}
            if mlflow is not None:
                theirs = run_level(mlflow.writer(f"w{clients}"), clients, options.seconds, mlflow.pid)
                row["mlflow"] = asdict(theirs)
                row["times_mlflow"] = ours.requests_per_second / theirs.requests_per_second
            rows.append(row)
    return rows


def measure_reads(registry: Registry, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Get by alias beside the echo, level by level."""
    rows, seconds = [], options.seconds / 10
    with running_echo(_answer_of_a_get(registry)) as echo:
        for clients in options.levels:
            rounds = []
            for number in range(_READ_ROUNDS):
                bare = run_level(echo.client, clients, seconds, echo.pid, _READ_WARM_UP_SECONDS)
                reader = registry.reader(f"r{clients}-{number}")
                ours = run_level(reader, clients, seconds, registry.pid, _READ_WARM_UP_SECONDS)
                rounds.append((ours.requests_per_second / bare.requests_per_second, ours, bare))
            # Rounds in turns, and the middle one: another program's burst hits one side of one round.
            share, ours, bare = sorted(rounds, key=lambda one: one[0])[_READ_ROUNDS // 2]
            rows.append(
                {"clients": clients, "boardwright": asdict(ours), "echo": asdict(bare), "share": share}
            )
    return rows


def _answer_of_a_get(registry: Registry) -> bytes:
    client = registry.reader("size")(0)
    client.close()
    with grpc.insecure_channel(registry.service.endpoint) as channel:
        request = pb.GetModelVersionRequest(name=f"{PROJECT}/models/bench-size-0/versions/prod")
        found = registry_pb2_grpc.RegistryStub(channel).GetModelVersion(
            request, metadata=token(registry.service)
        )
    return bytes(found.SerializeToString())


def measure_growth(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Two registries, one grown, timed in turns."""
    with ExitStack() as stack:
        grown = []
        for count in (100, options.versions):
            service = stack.enter_context(running_service("registry", {}, folder=folder / f"grown-{count}"))
            grown.append(Grown(Registry.prepare(service), count))
            stack.callback(grown[-1].close)
        return {"versions": options.versions, "calls": compare(grown[0], grown[1], options.repeats)}


def failures(result: dict[str, Any]) -> list[str]:
    """Which limits were passed."""
    found = []
    for row in result["writes"]:
        clients, limit = row["clients"], LIMIT_TIMES_MLFLOW.get(row["clients"], 0.0)
        if row.get("times_mlflow", limit) < limit:
            found.append(f"{clients} clients: {row['times_mlflow']:.1f} x MLflow, limit {limit:g} x")
        if row["boardwright"]["server_cpu_ms"] > LIMIT_CPU_MS:
            found.append(
                f"{clients} clients: {row['boardwright']['server_cpu_ms']:.2f} ms of server CPU per request"
            )
    for row in result["reads"]:
        if row["share"] < LIMIT_ECHO_SHARE:
            found.append(f"reads, {row['clients']} clients: {row['share']:.0%} of an echo")
    for name, cost in result["growth"]["calls"].items():
        if cost["ratio"] > LIMIT_GROWTH:
            found.append(f"{name}: {cost['ratio']} x at {result['growth']['versions']} versions")
    return found


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = ["create version + set alias + get by alias (closed loop)"]
    header = f"{'clients':>8}{'system':>14}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}"
    header += f"{'server CPU ms/req':>19}{'x MLflow':>10}"
    lines.append(header)
    for row in result["writes"]:
        times = f"{row['times_mlflow']:.1f}" if "times_mlflow" in row else "-"
        lines.append(_line(row["clients"], "boardwright", row["boardwright"]) + f"{times:>10}")
        if "mlflow" in row:
            lines.append(_line(row["clients"], "mlflow", row["mlflow"]))
    lines += ["", "get by alias beside a bare grpc.aio echo", header.replace("x MLflow", "of echo")]
    for row in result["reads"]:
        lines.append(_line(row["clients"], "boardwright", row["boardwright"]) + f"{row['share']:>10.0%}")
        lines.append(_line(row["clients"], "echo", row["echo"]))
    many = f"{result['growth']['versions']:,}"
    lines += ["", f"{'median ms per call':<28}{'100':>9}{many:>10}{'ratio':>8}"]
    for name, cost in result["growth"]["calls"].items():
        lines.append(f"{name:<28}{cost['few_ms']:>9.2f}{cost['many_ms']:>10.2f}{cost['ratio']:>8.2f}")
    if not any("mlflow" in row for row in result["writes"]):
        lines += [
            "",
            "MLflow was not measured: give --mlflow the python of an environment with mlflow==3.17.2",
        ]
    return "\n".join(lines)


def _line(clients: int, system: str, level: dict[str, float]) -> str:
    return (
        f"{clients:>8}{system:>14}{level['requests_per_second']:>9.0f}{level['p50_ms']:>9.2f}"
        f"{level['p99_ms']:>9.2f}{level['server_cpu_ms']:>19.2f}"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=Path("runs/registry.json"))
    parser.add_argument("--mlflow", type=Path, help="python of an environment with mlflow")
    parser.add_argument("--seconds", type=float, default=6.0, help="measured per level")
    parser.add_argument("--levels", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--versions", type=int, default=100_000, help="of the grown model")
    parser.add_argument("--repeats", type=int, default=200, help="of each call when growth is measured")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the bench; exit status 1 where a limit is passed."""
    options = parse()
    folder = Path(tempfile.mkdtemp(prefix="boardwright-bench-"))
    try:
        with running_service("registry", {}, folder=folder / "registry") as service:
            registry = Registry.prepare(service)
            writes = measure_writes(registry, options, folder)
            reads = measure_reads(registry, options)
        growth = measure_growth(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "seconds_per_level": options.seconds,
        "writes": writes,
        "reads": reads,
        "growth": growth,
    }
    passed = failures(result)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result | {"failures": passed}, indent=2) + "\n", encoding="utf-8")
    print(table(result))  # noqa: T201
    for line in passed:
        print(f"limit passed: {line}")  # noqa: T201
    return int(bool(passed))


if __name__ == "__main__":
    sys.exit(main())
