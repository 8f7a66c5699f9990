"""The device's folder: where everything is kept, and how it is written.

    identity.json      server, device, fleet; written last at enrolment, so its presence means "enrolled"
    device.key         the device's Ed25519 private key, raw 32 bytes, mode 0600
    root.json          the root metadata that the enrolment token named: the device's trust anchor
    trust/             the metadata cache of `tuf.ngclient`
    downloads/         blobs by digest; `<hex>.part` while they arrive
    slots/a, slots/b   the two slots: a bundle's files, `manifest.json`, `slot.json`
    current            a symbolic link to the slot in use: the only truth about which one that is
    state.json         what is worth remembering but can be lost: refusals, a trial under way, the last report
    lock               held by the one agent that may change this folder

All files are replaced atomically, so that a process killed anywhere leaves the old or the new content.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from boardwright.agent.errors import Refused
from boardwright.content.canonical import canonical_json
from boardwright.content.durable import make_folder, remove_leftovers, write_file

_SCHEMA = "boardwright.agent.v1"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is, as the delivery service answered at enrolment.

    Attributes:
        server: base URL of the gateway, without a slash at its end.
        device: resource name; its last part is the device's id.
        fleet: resource name.
        repository: the fleet's TUF repository, relative to the server (`tuf/<name>`).
        board: the board that this device is, or "" when the host is to be asked.
        poll_seconds: how often the server wishes to be asked.
    """

    server: str
    device: str
    fleet: str
    repository: str
    board: str = ""
    poll_seconds: int = 60

    @property
    def device_id(self) -> str:
        """The last part of the resource name."""
        return self.device.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Trial:
    """A switch that was not confirmed yet.

    Attributes:
        slot: the slot switched to.
        previous: the slot to go back to, "" when there was none.
        attempts: how often its health check was begun.
    """

    slot: str
    previous: str
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that this device will not try again.

    Attributes:
        manifest: the digest of the bundle's manifest, "" when the refusal is about something else.
        rollout: the rollout that offered it; a new rollout is a new try.
        release: the release it belongs to.
        reason, message: why.
    """

    manifest: str
    rollout: str
    release: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class State:
    """What is worth remembering between runs.

    Attributes:
        trial: a switch that was not confirmed yet.
        refusal: the last bundle refused.
        clock_floor_us: the latest time this device's clock showed in a successful check, or the server's
            where that was earlier.
        report_digest, reported_us: the last report that the server took, and when.
        last: how the last check ended, "result: message" or "REASON: message".
    """

    trial: Trial | None = None
    refusal: Refusal | None = None
    clock_floor_us: int = 0
    report_digest: str = ""
    reported_us: int = 0
    last: str = ""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one device."""

    folder: Path

    @property
    def trust(self) -> Path:
        """The metadata cache."""
        return self.folder / "trust"

    @property
    def downloads(self) -> Path:
        """Blobs that arrived or are arriving."""
        return self.folder / "downloads"

    @property
    def slots(self) -> Path:
        """The folder of the two slots."""
        return self.folder / "slots"

    @property
    def current(self) -> Path:
        """The link to the slot in use."""
        return self.folder / "current"

    @property
    def key_path(self) -> Path:
        """The device's private key."""
        return self.folder / "device.key"

    @property
    def root_path(self) -> Path:
        """The trust anchor."""
        return self.folder / "root.json"

    @property
    def is_enrolled(self) -> bool:
        """Whether enrolment was finished."""
        return (self.folder / "identity.json").exists()

    def prepare(self) -> None:
        """Create the folders that are missing and clear what interrupted writes left.

        Raises:
            OSError: the folder cannot be written.
        """
        make_folder(self.folder, mode=0o755)
        for folder in (self.trust, self.downloads, self.slots):
            make_folder(folder)
        remove_leftovers(self.folder)

    def identity(self) -> Identity:
        """Who this device is.

        Raises:
            Refused: NOT_ENROLLED, or HOME_DAMAGED when the file is unreadable.
        """
        try:
            document = json.loads((self.folder / "identity.json").read_bytes())
            document.pop("schema")
            return Identity(**document)
        except FileNotFoundError as error:
            raise Refused(
                "NOT_ENROLLED",
                f"{self.folder} belongs to no device yet: run `boardwright-agent enroll` with a token first",
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(
                "HOME_DAMAGED",
                f"{self.folder / 'identity.json'} cannot be read ({error}): "
                f"enrol with a new token and --again",
            ) from error

    def save_identity(self, identity: Identity) -> None:
        """Store who this device is, durably."""
        document = {"schema": _SCHEMA, **asdict(identity)}
        write_file(self.folder / "identity.json", canonical_json(document))

    def device_key(self) -> bytes:
        """The device's private key, made before the enrolment. Raw 32 bytes.

        Raises:
            Refused: KEY_UNSAFE when others may read it, HOME_DAMAGED when it is gone or no key.
        """
        lost = Refused("HOME_DAMAGED", f"{self.key_path} holds no key: enrol with a new token and --again")
        if not self.key_path.exists():
            if self.is_enrolled:
                raise lost
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            write_file(self.key_path, Ed25519PrivateKey.generate().private_bytes_raw(), mode=0o600)
        mode = self.key_path.stat().st_mode & 0o777
        if mode & 0o077:
            raise Refused(
                "KEY_UNSAFE",
                f"{self.key_path} has mode {mode:04o}, so others may read it: "
                f"enrol the device again if they did, else run chmod 600 on it",
            )
        key = self.key_path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise lost
        return key

    def state(self) -> State:
        """What was remembered; nothing when the file is missing or unreadable, for all of it can be lost."""
        try:
            document: dict[str, Any] = json.loads((self.folder / "state.json").read_bytes())
            trial, refusal = document.pop("trial"), document.pop("refusal")
            document.pop("schema")
            return State(
                trial=None if trial is None else Trial(**trial),
                refusal=None if refusal is None else Refusal(**refusal),
                **document,
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return State()

    def save_state(self, **changes: Any) -> State:
        """Change some of what is remembered, durably, and return all of it; writes only what is new."""
        before = self.state()
        state = replace(before, **changes)
        if state == before:
            return state
        write_file(self.folder / "state.json", canonical_json({"schema": _SCHEMA, **asdict(state)}))
        return state

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one agent that changes this folder.

        Raises:
            Refused: AGENT_RUNNING.
        """
        make_folder(self.folder)
        path, flags = self.folder / "lock", os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(path, os.O_RDWR | flags, 0o600)  # on NFS a lock is for those who may write
        except OSError:  # a disk that takes nothing must not keep the device from saying so
            descriptor = os.open(path, os.O_RDONLY | flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    "AGENT_RUNNING",
                    f"another agent works in {self.folder}: stop it, or give this one another --home",
                ) from error
            yield
        finally:
            os.close(descriptor)
