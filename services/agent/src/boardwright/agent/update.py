"""One pass of the device: look what the fleet should run, and install it safely.

The order is what makes it safe: verify the metadata, match the pin, download and verify, run the golden
samples beside the slots, fill the slot that is not in use, write down that a trial begins, switch, check
again in place, and only then forget the way back.
"""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from boardwright.agent.check import CheckResult, check_in_process
from boardwright.agent.download import BlobSource, Downloads, Progress
from boardwright.agent.errors import Refused, RolledBack
from boardwright.agent.home import Home, Identity, Refusal, Trial
from boardwright.agent.slots import Slot, Slots
from boardwright.agent.trust import FleetTrust, SignedBundle
from boardwright.content.canonical import read_json
from boardwright.device.index import GroupOffer, OfferedBundle
from boardwright.model.errors import ModelError
from boardwright.model.host import Host
from boardwright.model.pins import HardwarePin, mismatches

_TRIAL_ATTEMPTS = 3

INSTALLED = "installed"
UP_TO_DATE = "up-to-date"
WAITING = "waiting"
NOTHING_ASSIGNED = "nothing-assigned"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pass ended well.

    Attributes:
        result: INSTALLED, UP_TO_DATE, WAITING (the rollout is paused) or NOTHING_ASSIGNED.
        message: one sentence.
        release, rollout: what the fleet should run, "" when nothing.
        samples: golden samples that were run.
        worst_error: the largest deviation of their outputs.
    """

    result: str
    message: str
    release: str = ""
    rollout: str = ""
    samples: int = 0
    worst_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Installer:
    """Everything one pass needs.

    Attributes:
        home: the device's folder.
        identity: who the device is.
        host: what this machine is.
        source: where blobs come from.
        open_trust: makes the reader of signed metadata.
        health_command: a command that must succeed after a switch, for example one that restarts the program
            that uses the model and asks it; "" for none. It sees BOARDWRIGHT_SLOT (the slot's folder).
        progress: told what is going on.
        check: checks a folder in the real runtime.
        offered: told what the fleet offers, before anything is done about it.
        verify_slot: read the installed files to see whether the disk still has them right; if not, the
            release is installed again.
    """

    home: Home
    identity: Identity
    host: Host
    source: BlobSource
    open_trust: Callable[[], FleetTrust]
    health_command: str = ""
    progress: Progress = lambda done, total, what: None
    check: Callable[[Path], CheckResult] = check_in_process
    offered: Callable[[GroupOffer | None], None] = lambda offer: None
    verify_slot: bool = True

    def recover(self) -> None:
        """Finish what an earlier run began: a switch that was never confirmed is checked, or undone.

        Raises:
            RolledBack: the slot under trial does not work; the device is back on the one before.
        """
        slots = Slots(self.home)
        slots.sweep()
        trial = self.home.state().trial
        if trial is None:
            return
        current = slots.current()
        if current is not None and current.name == trial.slot:
            self._try(slots, current, trial)
            return
        if slots.linked() == trial.slot:  # the disk lost what was switched to
            slots.switch(trial.previous)
        self.home.save_state(trial=None)

    def run(self) -> Outcome:
        """Bring the device to what the fleet should run.

        Raises:
            Refused: with the reason; the device keeps or gets back what worked.
            TurnedAway: the server does not serve this device now.
            Unavailable: the next pass goes on from here.
            OSError: the disk is full or fails; the next pass goes on from here.
        """
        self.recover()
        trust = self.open_trust()
        self.progress(0, 0, "checking the fleet's metadata")
        trust.refresh()
        offer = trust.index().offer_for(self.identity.device_id)
        self.offered(offer)
        if offer is None:
            return Outcome(NOTHING_ASSIGNED, _nothing_assigned(Slots(self.home).current()))
        try:
            return self._follow(trust, offer)
        except Refused as refused:
            refused.release = refused.release or offer.release
            refused.rollout = refused.rollout or offer.rollout
            raise

    def _follow(self, trust: FleetTrust, offer: GroupOffer) -> Outcome:
        """Bring the device to the release that its group is offered."""
        signed = trust.bundle(offer, self._fitting(offer))
        slots = Slots(self.home)
        current = slots.current()
        if current is not None and current.record.manifest == signed.digest:
            if not self.verify_slot or current.is_intact():
                return Outcome(UP_TO_DATE, f"{offer.release} is installed", offer.release, offer.rollout)
        elif offer.paused:
            return Outcome(WAITING, f"the rollout of {offer.release} is paused", offer.release, offer.rollout)
        self._not_refused_before(signed, offer)
        try:
            return self._install(slots, signed, offer)
        except RolledBack:
            raise
        except Refused as refused:
            self._remember(signed, offer, refused)
            raise

    def _fitting(self, offer: GroupOffer) -> OfferedBundle:
        """The first bundle of a release that may run on this host."""
        reasons: list[list[str]] = []
        for offered in offer.bundles:
            found = _why_not(offered, self.host)
            if not found:
                return offered
            reasons.append(found)
        if not reasons:
            raise Refused(
                "BUNDLE_OTHER_BOARD", f"{offer.release} has no bundle at all: build one for this board"
            )
        nearest = min(reasons, key=len)
        others = f" (and {len(reasons) - 1} more for other machines)" if len(reasons) > 1 else ""
        raise Refused(
            "BUNDLE_OTHER_BOARD",
            f"{offer.release} has no bundle that was built for this device: {'; '.join(nearest)}{others}. "
            f"Build the variant for this board and make a release with it",
        )

    def _not_refused_before(self, signed: SignedBundle, offer: GroupOffer) -> None:
        refusal = self.home.state().refusal
        if refusal is not None and refusal.manifest == signed.digest and refusal.rollout == offer.rollout:
            raise Refused(refusal.reason, refusal.message)

    def _remember(self, signed: SignedBundle, offer: GroupOffer, refused: Refused) -> None:
        self.home.save_state(
            refusal=Refusal(signed.digest, offer.rollout, offer.release, refused.reason, refused.message)
        )

    def _install(self, slots: Slots, signed: SignedBundle, offer: GroupOffer) -> Outcome:
        downloads = Downloads(self.home.downloads, self.source, self.progress)
        downloads.keep_only(signed.bundle)
        downloads.fetch_all(signed.bundle, slots.files())
        staged = slots.stage(signed, offer.rollout, downloads.path)
        self._same_pin(staged, signed)
        self.progress(0, 0, "running the golden samples")
        verdict = self.check(staged)
        if not verdict.passed:
            downloads.clear()
            slots.sweep()
            raise Refused(verdict.reason, f"{offer.release} was not installed: {verdict.message}")
        trial = Trial(slots.other(), slots.linked())
        name = slots.fill(staged)
        downloads.clear()
        self.home.save_state(trial=trial)
        slots.switch(name)
        filled = slots.slot(name)
        if filled is None:
            raise OSError(errno.EIO, "the slot cannot be read back", str(self.home.slots / name))
        self._try(slots, filled, trial)
        self.home.save_state(refusal=None)
        slots.sweep()
        message = f"{offer.release} runs in slot {name}; {verdict.samples} golden samples passed"
        return Outcome(INSTALLED, message, offer.release, offer.rollout, verdict.samples, verdict.worst_error)

    def _same_pin(self, staged: Path, signed: SignedBundle) -> None:
        file = signed.bundle.file("pin")
        try:
            document = {} if file is None else read_json((staged / file.name).read_bytes())
        except ValueError:
            document = None
        if document != signed.pin:
            raise Refused(
                "BUNDLE_INVALID", "the pin inside the bundle is not the one that was signed with it"
            )

    def _try(self, slots: Slots, slot: Slot, trial: Trial) -> None:
        """Check the slot now in use; go back to the previous one if it fails."""
        trial = replace(trial, attempts=trial.attempts + 1)
        self.home.save_state(trial=trial)
        self.progress(0, 0, "checking the new slot")
        if trial.attempts > _TRIAL_ATTEMPTS:
            verdict = CheckResult(
                False,
                "HEALTH_FAILED",
                f"the device went down {_TRIAL_ATTEMPTS} times while it tried the new slot",
            )
        else:
            verdict = self._health(slot)
        if verdict.passed:
            self.home.save_state(trial=None)
            return
        slots.switch(trial.previous)
        back = f"went back to slot {trial.previous}" if trial.previous else "has no other slot to go back to"
        message = f"{slot.record.release} failed after the switch, the device {back}: {verdict.message}"
        release, rollout = slot.record.release, slot.record.rollout
        refusal = Refusal(slot.record.manifest, rollout, release, verdict.reason, message)
        self.home.save_state(trial=None, refusal=refusal)
        slots.clear(slot.name)
        raise RolledBack(verdict.reason, message, release=release, rollout=rollout)

    def _health(self, slot: Slot) -> CheckResult:
        verdict = self.check(slot.folder)
        if not verdict.passed or not self.health_command:
            return verdict
        environment = {**os.environ, "BOARDWRIGHT_SLOT": str(slot.folder)}
        try:
            done = subprocess.run(
                shlex.split(self.health_command),
                env=environment,
                capture_output=True,
                timeout=300,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return CheckResult(False, "HEALTH_FAILED", f"the health command could not run: {error}")
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
            ended = f"the health command ended with {done.returncode}"
            return CheckResult(False, "HEALTH_FAILED", f"{ended}: {said}" if said else ended)
        return verdict


def _nothing_assigned(current: Slot | None) -> str:
    if current is None:
        return "no release was rolled out to this device yet"
    return f"the fleet offers nothing now; the device keeps {current.record.release}"


def _why_not(offered: OfferedBundle, host: Host) -> list[str]:
    try:
        return mismatches(HardwarePin.from_json(offered.pin), host)
    except ModelError as error:
        return [f"its pin cannot be read ({error.message}), so this agent is too old for it"]
