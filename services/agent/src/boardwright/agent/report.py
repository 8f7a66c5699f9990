"""What the device tells the delivery service: what runs here, and why something was refused."""

from __future__ import annotations

import contextlib
import time
from importlib.metadata import version
from typing import Any

from boardwright.agent.errors import AgentError, Refused, RolledBack
from boardwright.agent.home import Home, Identity
from boardwright.agent.http import ServerClock
from boardwright.agent.server import DeliveryServer
from boardwright.agent.slots import Slots
from boardwright.agent.update import INSTALLED, Outcome
from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest
from boardwright.model.host import Host

SCHEMA = "boardwright.device-report.v1"
HEARTBEAT_SECONDS = 900


def host_document(host: Host) -> dict[str, Any]:
    """The machine in the words of a HardwarePin; what it lacks is left out."""
    runtime = "onnxruntime" if "onnxruntime" in host.runtimes else next(iter(sorted(host.runtimes)), "")
    facts = {
        "board": host.board,
        "architecture": host.architecture,
        "cpu_features": sorted(host.cpu_features),
        "accelerator": next(iter(host.accelerators), ""),
        "runtime": runtime,
        "runtime_version": host.runtimes.get(runtime, ""),
        "bsp": host.bsp,
        "driver": host.driver,
    }
    return {name: value for name, value in facts.items() if value}


def make_report(
    home: Home, identity: Identity, host: Host, outcome: Outcome | None, error: AgentError | None
) -> dict[str, Any]:
    """The report after one pass, which ended with an outcome or an error.

    `kind` is "installed", "seen" (nothing new), "refused", "rolled-back" or "failed" (a retry helps).
    """
    slot = Slots(home).current()
    installed = None
    if slot is not None:
        installed = {
            "release": slot.record.release,
            "artifact": slot.record.artifact,
            "bundle_digest": f"sha256:{slot.record.manifest}",
            "rollout": slot.record.rollout,
            "slot": slot.name,
        }
    return {
        "schema": SCHEMA,
        "kind": _kind(outcome, error),
        "agent_version": version("boardwright-agent"),
        "installed": installed,
        "refusal": None if error is None else _explained(error),
        "host": host_document(host),
        "details": {
            "device": identity.device_id,
            "machine": host.machine,
            "memory_bytes": host.memory_bytes,
            "result": "" if outcome is None else outcome.result,
            "golden_samples": 0 if outcome is None else outcome.samples,
            "worst_error": 0.0 if outcome is None else outcome.worst_error,
        },
    }


def _kind(outcome: Outcome | None, error: AgentError | None) -> str:
    if isinstance(error, RolledBack):
        return "rolled-back"
    if error is not None:
        return "refused" if isinstance(error, Refused) else "failed"
    return "installed" if outcome is not None and outcome.result == INSTALLED else "seen"


def _explained(error: AgentError) -> dict[str, str]:
    about = error if isinstance(error, Refused) else None
    return {
        "reason": error.reason,
        "message": error.message,
        "release": "" if about is None else about.release,
        "rollout": "" if about is None else about.rollout,
    }


def send_if_due(
    home: Home, server: DeliveryServer, report: dict[str, Any], clock: ServerClock, *, always: bool = False
) -> int | None:
    """Send a report that says something new, or when the last one is old, or ``always``.

    Returns how many seconds the server wishes between polls, None when nothing was sent.

    Raises:
        AgentError: the server did not take it.
    """
    digest = Digest.of(canonical_json(report)).hex
    state = home.state()
    now_us = time.time_ns() // 1000
    recent = 0 <= now_us - state.reported_us < HEARTBEAT_SECONDS * 1_000_000
    if digest == state.report_digest and recent and not always:
        return None
    skew = clock.ahead_seconds
    timed = {"device_time_us": now_us, "clock_behind_seconds": None if skew is None else round(skew)}
    answer = server.report({**report, **timed})
    with contextlib.suppress(OSError):  # then it is told once more next time
        home.save_state(report_digest=digest, reported_us=now_us)
    wished = answer.get("poll_seconds")
    return wished if isinstance(wished, int) and wished > 0 else 0
