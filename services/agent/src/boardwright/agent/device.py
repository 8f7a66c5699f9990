"""Wires one device together and does passes: check, install, report."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from boardwright.agent.download import Progress
from boardwright.agent.errors import AgentError, disk_failed
from boardwright.agent.home import Home, Identity
from boardwright.agent.http import Http
from boardwright.agent.report import make_report, send_if_due
from boardwright.agent.server import DeliveryServer
from boardwright.agent.slots import Slots
from boardwright.agent.trust import FleetTrust
from boardwright.agent.update import Installer, Outcome
from boardwright.model.host import Host, detect_host

_LONGEST_INTERVAL_SECONDS = 86_400
_JITTER = 0.1
"""A fleet that was switched on together should not ask together for ever."""


@dataclass(frozen=True, slots=True)
class Pass:
    """How one pass ended: with an outcome or an error; and whether the server heard of it.

    Attributes:
        outcome, error: one of the two is None.
        report_error: why the report did not arrive, None when it did or nothing was due.
        poll_seconds: how long the server wishes the device to wait, 0 when it did not say.
    """

    outcome: Outcome | None
    error: AgentError | None
    report_error: AgentError | None
    poll_seconds: int = 0

    @property
    def told(self) -> tuple[str, str]:
        """What a person reads of it: how it ended, and why the server did not hear."""
        unheard = self.report_error
        return _summary(self.outcome, self.error), "" if unheard is None else unheard.message


class Device:
    """An enrolled device at work.

    Args:
        folder: its home.
        health_command: see `Installer`.
        progress: told what is going on.
        host: what this machine is; asked on every pass when None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        health_command: str = "",
        progress: Progress = lambda done, total, what: None,
        host: Host | None = None,
    ) -> None:
        self._home = Home(folder)
        self._health_command = health_command
        self._progress = progress
        self._host = host

    def once(self, *, report_always: bool = False, verify_slot: bool = True) -> Pass:
        """One pass. Its errors are in the result, so that they can be reported.

        Args:
            report_always: report even when there is nothing new to say.
            verify_slot: see `Installer`.

        Raises:
            Refused: NOT_ENROLLED, KEY_UNSAFE, HOME_DAMAGED: there is nobody to report as.
        """
        identity = self._home.identity()
        http = Http(identity.server)
        try:
            return self._pass(identity, http, report_always, verify_slot)
        finally:
            http.close()

    def run(self, stop: threading.Event, interval_seconds: int, finished: Callable[[Pass], None]) -> None:
        """Pass after pass until ``stop`` is set; ``interval_seconds`` 0 means as the server wishes.

        Raises:
            Refused: as `once`.
        """
        wished = self._home.identity().poll_seconds
        unheard = first = True
        while not stop.is_set():
            result = self.once(report_always=unheard, verify_slot=first)
            unheard, first = result.report_error is not None, False
            finished(result)
            wished = result.poll_seconds or wished
            pause = min(interval_seconds or wished, _LONGEST_INTERVAL_SECONDS)
            stop.wait(pause * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311  spreads load, hides nothing

    def _pass(self, identity: Identity, http: Http, report_always: bool, verify_slot: bool) -> Pass:
        server = DeliveryServer(http, self._home.device_key(), identity.device)
        host = self._host or detect_host(identity.board)
        installer = Installer(
            home=self._home,
            identity=identity,
            host=host,
            source=server,
            open_trust=lambda: FleetTrust(self._home, identity, http),
            health_command=self._health_command,
            progress=self._progress,
            verify_slot=verify_slot,
            offered=lambda offer: server.join_trace("" if offer is None else offer.traceparent),
        )
        outcome: Outcome | None = None
        error: AgentError | None = None
        try:
            self._home.prepare()
            outcome = installer.run()
        except AgentError as caught:
            error = caught
        except OSError as caught:
            error = disk_failed(caught, self._home.folder)
        with contextlib.suppress(
            OSError
        ):  # a disk that takes nothing must not keep the device from saying so
            self._home.save_state(last=_summary(outcome, error))
        report = make_report(self._home, identity, host, outcome, error)
        try:
            poll_seconds = send_if_due(self._home, server, report, http.clock, always=report_always)
        except AgentError as caught:
            return Pass(outcome, error, caught)
        return Pass(outcome, error, None, poll_seconds or 0)


def _summary(outcome: Outcome | None, error: AgentError | None) -> str:
    if error is not None:
        return f"{error.reason}: {error.message}"
    return "" if outcome is None else f"{outcome.result}: {outcome.message}"


def _utc(microseconds: int) -> str:
    """By this device's clock."""
    return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def status_document(home: Home) -> dict[str, object]:
    """What this device is and runs, from its folder alone.

    Raises:
        Refused: NOT_ENROLLED, HOME_DAMAGED.
    """
    identity, state, slots = home.identity(), home.state(), Slots(home)
    current = slots.current()
    other = slots.slot(slots.other())
    return {
        "device": identity.device,
        "fleet": identity.fleet,
        "server": identity.server,
        "slot": None if current is None else current.name,
        "folder": None if current is None else str(home.current),
        "release": None if current is None else current.record.release,
        "bundle_digest": None if current is None else f"sha256:{current.record.manifest}",
        "install_time": None if current is None else _utc(current.record.installed_us),
        "previous_release": None if other is None else other.record.release,
        "trial_pending": state.trial is not None,
        "last_check": state.last or None,
        "last_report_time": _utc(state.reported_us) if state.reported_us else None,
        "refusal": None
        if state.refusal is None
        else {
            "release": state.refusal.release,
            "reason": state.refusal.reason,
            "message": state.refusal.message,
        },
    }
