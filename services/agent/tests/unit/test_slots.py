"""Slots: only the one that is not in use is ever touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boardwright.agent.home import Home
from boardwright.agent.slots import Slots
from boardwright.agent.trust import SignedBundle
from boardwright.content import Digest
from boardwright.device.bundle import Bundle, BundleFile


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.prepare()
    return home


def signed(home: Home, release: str) -> SignedBundle:
    files = []
    for role in ("model", "input-spec", "pin"):
        data = f"{role} of {release}".encode()
        (home.downloads / Digest.of(data).hex).write_bytes(data)
        files.append(BundleFile(role, f"{role}.bin", "application/x", Digest.of(data), len(data)))
    bundle = Bundle.of(release=release, model_version="", variant="", artifact="", files=files)
    manifest = bundle.to_manifest().to_bytes()
    return SignedBundle(manifest, bundle, Digest.of(manifest).hex, {})


def install(home: Home, slots: Slots, release: str) -> str:
    name = slots.fill(
        slots.stage(signed(home, release), "rollouts/1", lambda digest: home.downloads / digest.hex)
    )
    slots.switch(name)
    return name


def test_slots_alternate(home: Home) -> None:
    slots = Slots(home)
    assert slots.current() is None and slots.linked() == ""
    assert [install(home, slots, f"r{number}") for number in range(4)] == ["a", "b", "a", "b"]
    current = slots.current()
    assert current is not None and current.record.release == "r3" and current.is_intact()
    assert (home.current / "model.bin").read_text() == "model of r3"
    assert slots.slot("a").record.release == "r2"  # type: ignore[union-attr]
    slots.sweep()
    assert sorted(path.name for path in home.slots.iterdir()) == ["a", "b"]


def test_without_links_files_are_copied_onto_the_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = set(), os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def no_links(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "fsync", note)
    slots = Slots(home)
    install(home, slots, "r1")
    current = slots.current()
    assert current is not None and current.is_intact()
    assert {path.stat().st_ino for path in current.folder.iterdir()} <= synced


def test_a_slot_in_use_is_never_cleared(home: Home) -> None:
    slots = Slots(home)
    install(home, slots, "r1")
    slots.clear("a")
    assert slots.current() is not None
    slots.switch("")
    assert not home.current.exists() and slots.current() is None
    slots.clear("a")
    assert not (home.slots / "a").exists()


def test_a_damaged_record_does_not_free_the_slot_in_use(home: Home) -> None:
    slots = Slots(home)
    install(home, slots, "r1")
    (home.slots / "a" / "slot.json").write_text("{")
    assert slots.current() is None and slots.linked() == "a" and slots.other() == "b"


def test_changed_files_are_noticed(home: Home) -> None:
    slots = Slots(home)
    install(home, slots, "r1")
    path = home.slots / "a" / "pin.bin"
    os.unlink(path)
    path.write_text("pin of r2")
    current = slots.current()
    assert current is not None and not current.is_intact()
