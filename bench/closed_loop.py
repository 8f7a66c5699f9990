"""Closed-loop load: clients that send the next request when the last was answered, and what the server spent.

One iteration is three requests of one client on one connection: create a version, point an alias at it, get
the version by the alias. The answer is checked. Each level warms up for a time that is not counted.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

WARM_UP_SECONDS = 1.0


class Client(Protocol):
    """One client of one system: `steps` are called in turn, each one request."""

    def steps(self) -> Sequence[Callable[[], None]]:
        """The requests of one iteration, in order. Each raises when the answer is wrong."""

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True)
class Level:
    """What one level gave. Latencies in milliseconds over all kinds of request."""

    clients: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    generator_cpu_ms: float


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its threads so far, children included."""
    total, waiting = 0.0, [pid]
    while waiting:
        current = waiting.pop()
        try:
            with open(f"/proc/{current}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{current}/task/{current}/children") as file:
                waiting += map(int, file.read().split())
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


class _Window:
    """When latencies count, and the meeting point of the clients."""

    def __init__(self, clients: int) -> None:
        self.barrier = threading.Barrier(clients + 1)
        self.begin = self.end = 0.0


def run_level(
    make: Callable[[int], Client],
    clients: int,
    seconds: float,
    server_pid: int,
    warm_up_seconds: float = WARM_UP_SECONDS,
) -> Level:
    """Run `clients` clients for `seconds`. Raises: what a client raised first."""
    window = _Window(clients)
    latencies: list[list[float]] = [[] for _ in range(clients)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        client = make(number)
        mine, steps, clock = latencies[number], client.steps(), time.perf_counter
        window.barrier.wait()
        try:
            while clock() < window.end:
                for step in steps:
                    started = clock()
                    step()
                    ended = clock()
                    if started >= window.begin and ended <= window.end:
                        mine.append(ended - started)
        except Exception as error:
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    # Written before the barrier lets anybody pass; generous, because connecting takes its time.
    window.begin = time.perf_counter() + 3600
    window.end = window.begin + 3600
    window.barrier.wait(60)
    window.begin = time.perf_counter() + warm_up_seconds
    window.end = window.begin + seconds
    time.sleep(warm_up_seconds)
    server, generator = cpu_seconds(server_pid), time.process_time()
    time.sleep(seconds)
    server, generator = cpu_seconds(server_pid) - server, time.process_time() - generator
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    every = sorted(value for values in latencies for value in values)
    return Level(
        clients=clients,
        requests_per_second=len(every) / seconds,
        p50_ms=1e3 * statistics.median(every),
        p99_ms=1e3 * every[int(0.99 * (len(every) - 1))],
        server_cpu_ms=1e3 * server / len(every),
        generator_cpu_ms=1e3 * generator / len(every),
    )
