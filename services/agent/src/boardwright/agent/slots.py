"""Two slots and the link to the one in use.

The link `current` is the only truth: it is replaced by renaming another link over it, which a file system
does at once or not at all. A slot is filled beside its place and renamed into it, and only the slot that is
not in use is ever touched; so a process killed anywhere leaves a working slot.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from boardwright.agent.home import Home
from boardwright.agent.trust import SignedBundle
from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest, digest_file
from boardwright.content.durable import copy_file, sync_folder, write_file
from boardwright.device.bundle import Bundle
from boardwright.device.errors import InvalidDocument

NAMES = ("a", "b")
_STAGING = ".staging-"
_OLD = ".old-"


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """What a slot holds (`slot.json`).

    Attributes:
        manifest: SHA-256 of the bundle's manifest, hexadecimal.
        release, artifact: resource names.
        rollout: the rollout that brought it.
        installed_us: when, in microseconds since 1970 by this device's clock.
    """

    manifest: str
    release: str
    artifact: str
    rollout: str
    installed_us: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A filled slot: its name, its folder and what it holds."""

    name: str
    folder: Path
    record: SlotRecord

    def is_intact(self) -> bool:
        """Whether every file is still the one that was installed. Reads all of them."""
        try:
            manifest = (self.folder / "manifest.json").read_bytes()
            return Digest.of(manifest).hex == self.record.manifest and all(
                digest_file(self.folder / file.name) == file.digest for file in Bundle.parse(manifest).files
            )
        except (OSError, InvalidDocument):
            return False


class Slots:
    """The two slots of a device's folder."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def linked(self) -> str:
        """The name of the slot in use, whatever state it is in; "" before the first installation."""
        try:
            return Path(os.readlink(self._home.current)).name
        except FileNotFoundError:
            return ""

    def current(self) -> Slot | None:
        """The slot in use, None before the first installation or when its record is damaged."""
        name = self.linked()
        return self.slot(name) if name else None

    def slot(self, name: str) -> Slot | None:
        """A slot by its name, None when it is empty or damaged."""
        folder = self._home.slots / name
        try:
            return Slot(name, folder, SlotRecord(**json.loads((folder / "slot.json").read_bytes())))
        except (OSError, ValueError, TypeError):
            return None

    def other(self) -> str:
        """The name of the slot that is not in use."""
        return NAMES[1] if self.linked() == NAMES[0] else NAMES[0]

    def stage(self, signed: SignedBundle, rollout: str, blob: Callable[[Digest], Path]) -> Path:
        """Lay a bundle's files out in a new folder beside the slots; returns the folder.

        Raises:
            OSError: the disk is full or a download is missing.
        """
        folder = self._home.slots / f"{_STAGING}{secrets.token_hex(4)}"
        folder.mkdir()
        for file in signed.bundle.files:
            source = blob(file.digest)
            try:
                os.link(source, folder / file.name)
            except OSError:  # a file system without links
                copy_file(source, folder / file.name)
        record = SlotRecord(
            manifest=signed.digest,
            release=signed.bundle.release,
            artifact=signed.bundle.artifact,
            rollout=rollout,
            installed_us=time.time_ns() // 1000,
        )
        write_file(folder / "manifest.json", signed.manifest)
        write_file(folder / "slot.json", canonical_json(asdict(record)))
        sync_folder(folder)
        return folder

    def fill(self, staged: Path) -> str:
        """Make a staged folder the slot that is not in use; returns the slot's name.

        Raises:
            OSError: the folder cannot be written.
        """
        name = self.other()
        folder = self._home.slots / name
        if folder.exists():
            os.rename(folder, self._home.slots / f"{_OLD}{secrets.token_hex(4)}")
        os.rename(staged, folder)
        sync_folder(self._home.slots)
        return name

    def switch(self, name: str) -> None:
        """Use a slot from now on, atomically. With "" none is in use.

        Raises:
            OSError: the folder cannot be written.
        """
        if not name:
            self._home.current.unlink(missing_ok=True)
        else:
            beside = self._home.folder / ".current-new"
            beside.unlink(missing_ok=True)
            os.symlink(os.path.join("slots", name), beside)
            os.replace(beside, self._home.current)
        sync_folder(self._home.folder)

    def clear(self, name: str) -> None:
        """Empty a slot that is not in use."""
        if self.linked() != name:
            shutil.rmtree(self._home.slots / name, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what interrupted installations left beside the slots."""
        for folder in self._home.slots.iterdir():
            if folder.name.startswith((_STAGING, _OLD)):
                shutil.rmtree(folder, ignore_errors=True)

    def files(self) -> list[Path]:
        """Every file of both slots, for content that need not be fetched again."""
        return [path for name in NAMES for path in (self._home.slots / name).glob("*") if path.is_file()]
