"""The repository as a TUF client sees it, through every crash point."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import BadVersionNumberError, DownloadHTTPError, ExpiredMetadataError
from tuf.ngclient import FetcherInterface, Updater

from boardwright.content.durable import write_file
from boardwright.delivery.trust.errors import KeyFileUnsafe, KeysMissing, RepositoryDamaged
from boardwright.delivery.trust.metadata import WantedTarget
from boardwright.delivery.trust.repository import FleetRepository

BASE = "https://fleet.test/"


class FolderFetcher(FetcherInterface):
    """Serves a repository folder as a static web server would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fetched: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(BASE)
        self.fetched.append(name)
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError as error:
            raise DownloadHTTPError("not found", 404) from error
        return iter([data])


class Device:
    """A client with its own trusted state."""

    def __init__(self, folder: Path, served: Path, root: bytes) -> None:
        self._folder, self._served, self._root = folder, served, root
        folder.mkdir()

    def read(self, path: str) -> tuple[bytes, object]:
        updater = Updater(
            str(self._folder),
            BASE + "metadata",
            str(self._folder),
            BASE + "targets",
            FolderFetcher(self._served),
            bootstrap=self._root,
        )
        updater.refresh()
        info = updater.get_targetinfo(path)
        if info is None:
            return b"", None
        return Path(updater.download_target(info)).read_bytes(), info.unrecognized_fields.get("custom")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return tmp_path / "tuf" / "default.line-1"


def index(text: str) -> WantedTarget:
    return WantedTarget("index.json", text.encode())


def test_a_client_gets_what_was_published(repository: FleetRepository, served: Path, tmp_path: Path) -> None:
    device = Device(tmp_path / "device", served, repository.root()[1])
    bundle = WantedTarget("bundles/one.json", b"{}", {"pin": {"board": "x86-64"}, "release": "r1"})
    repository.publish([index("one"), bundle])
    assert device.read("index.json") == (b"one", None)
    assert device.read("bundles/one.json") == (b"{}", {"pin": {"board": "x86-64"}, "release": "r1"})
    repository.publish([index("two")])
    assert device.read("index.json") == (b"two", None)
    assert device.read("bundles/one.json") == (b"", None)


def test_nothing_is_written_when_nothing_changed(repository: FleetRepository, clock) -> None:
    first = repository.publish([index("one")])
    assert [Path(name).name for name in first.written][-1] == "timestamp.json"
    assert repository.publish([index("one")]).written == ()
    clock.advance(days=1, hours=1)
    again = repository.renew()
    assert again.written == ("metadata/timestamp.json",)
    assert again.timestamp_version == first.timestamp_version + 1


def test_signed_again_after_any_downtime(
    make_repository: Callable[..., FleetRepository], clock, served: Path, tmp_path: Path
) -> None:
    repository = make_repository()
    device = Device(tmp_path / "device", served, repository.root()[1])
    clock.advance(days=-100)
    repository.publish([index("one")])
    with pytest.raises(ExpiredMetadataError):
        device.read("index.json")
    clock.advance(days=100)
    make_repository().renew()
    assert device.read("index.json") == (b"one", None)


def test_root_is_renewed_before_it_ends(
    repository: FleetRepository, clock, served: Path, tmp_path: Path
) -> None:
    device = Device(tmp_path / "device", served, repository.root()[1])
    clock.advance(days=250)
    assert "metadata/2.root.json" in repository.renew().written
    assert device.read("index.json") == (b"", None)


def test_root_keys_that_are_kept_offline(
    make_repository: Callable[..., FleetRepository], clock, tmp_path: Path
) -> None:
    make_repository().publish([index("one")])
    for path in (tmp_path / "keys").rglob("root.*.pem"):
        path.rename(tmp_path / path.name)
    clock.advance(days=30)
    assert make_repository().publish([index("two")]).warnings == ()
    clock.advance(days=250)
    publication = make_repository().renew()
    assert "root metadata" in publication.warnings[0] and "key folder" in publication.warnings[0]


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_rotation_reaches_old_clients(
    role: str, repository: FleetRepository, served: Path, tmp_path: Path
) -> None:
    device = Device(tmp_path / "device", served, repository.root()[1])
    repository.publish([index("one")])
    assert device.read("index.json")[0] == b"one"
    repository.rotate(role)
    repository.publish([index("two")])
    assert device.read("index.json")[0] == b"two"


def test_missing_and_readable_keys(make_repository: Callable[..., FleetRepository], tmp_path: Path) -> None:
    make_repository().publish([index("one")])
    key = next((tmp_path / "keys").rglob("targets.*.pem"))
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(KeyFileUnsafe, match="chmod 600"):
        make_repository().publish([index("two")])
    key.unlink()
    with pytest.raises(KeysMissing, match="backup"):
        make_repository().publish([index("two")])


def test_lost_timestamp_is_not_silently_started_over(repository: FleetRepository, served: Path) -> None:
    repository.publish([index("one")])
    repository.publish([index("two")])
    (served / "metadata/timestamp.json").unlink()
    with pytest.raises(RepositoryDamaged, match="backup"):
        repository.publish([index("three")])
    (served / "metadata/timestamp.json").write_bytes(b"{")
    with pytest.raises(RepositoryDamaged, match="backup"):
        repository.publish([index("three")])


def test_old_files_go_after_a_while(repository: FleetRepository, clock, served: Path) -> None:
    for number in range(6):
        repository.publish([index(f"state {number}")])
    assert len(list((served / "targets").iterdir())) == 6
    assert len(list((served / "metadata").glob("*.targets.json"))) == 3
    clock.advance(days=3)
    repository.publish([index("state 5")])
    assert len(list((served / "targets").iterdir())) == 1


class PowerCut(BaseException):
    """Ends a publication between two files."""


def test_every_crash_point_leaves_a_consistent_repository(
    make_repository: Callable[..., FleetRepository], served: Path, tmp_path: Path
) -> None:
    base = make_repository()
    root = base.root()[1]
    base.publish([index("old")])
    untouched = tmp_path / "before"
    shutil.copytree(tmp_path / "tuf", untouched)
    for cut in itertools.count():
        shutil.rmtree(tmp_path / "tuf")
        shutil.copytree(untouched, tmp_path / "tuf")
        left = cut

        def write(path: Path, data: bytes) -> None:
            nonlocal left
            if left == 0:
                path.with_name(".new-torn").write_bytes(data[: len(data) // 2])
                raise PowerCut
            left -= 1
            write_file(path, data)

        repository = make_repository(write=write)
        finished = False
        try:
            repository.publish([index("new"), WantedTarget("bundles/b.json", b"bundle")])
            repository.rotate("timestamp")
            finished = True
        except PowerCut:
            pass
        device = Device(tmp_path / f"device-{cut}", served, root)
        if not (served / "metadata/2.root.json").exists() or finished:
            assert device.read("index.json")[0] in (b"old", b"new")
        make_repository().publish([index("new"), WantedTarget("bundles/b.json", b"bundle")])
        assert device.read("index.json")[0] == b"new"
        assert device.read("bundles/b.json")[0] == b"bundle"
        assert not list(served.rglob(".new-*"))
        if finished:
            break
    assert cut >= 7  # 2 targets, 3 metadata files, root and timestamp of the rotation


_WRITER = """
import sys, itertools
from pathlib import Path
from boardwright.delivery.trust.keys import FileKeyStore
from boardwright.delivery.trust.metadata import WantedTarget
from boardwright.delivery.trust.repository import FleetRepository
base = Path(sys.argv[1])
repository = FleetRepository(base / "tuf", "default.line-1", FileKeyStore(base / "keys"))
for number in itertools.count():
    repository.publish([WantedTarget("index.json", b"%d" % number), WantedTarget("b/x.json", b"x" * number)])
"""


def test_killed_writers(
    make_repository: Callable[..., FleetRepository], served: Path, tmp_path: Path
) -> None:
    root = make_repository().root()[1]
    device = Device(tmp_path / "device", served, root)
    for number in range(6):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], env=os.environ)
        before = (served / "metadata/timestamp.json").read_bytes()
        deadline = time.monotonic() + 30
        while (served / "metadata/timestamp.json").read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.003 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert device.read("index.json")[0].isdigit()
    make_repository().publish([index("after")])
    assert device.read("index.json")[0] == b"after"


def test_the_operators_command(
    make_repository: Callable[..., FleetRepository],
    served: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from boardwright.delivery.trust.__main__ import main

    folders = ["--keys", str(tmp_path / "keys"), "--repositories", str(tmp_path / "tuf")]
    repository = make_repository()
    device = Device(tmp_path / "device", served, repository.root()[1])
    repository.publish([index("one")])
    assert main([*folders, "status"]) == 0
    said = capsys.readouterr().out
    assert "root       version 1" in said and "3 of 3 keys here, 2 must sign" in said
    assert main([*folders, "rotate", "default.line-1", "root"]) == 0
    assert main([*folders, "renew"]) == 0
    assert "2.root.json" in capsys.readouterr().out
    assert device.read("index.json")[0] == b"one"
    assert main([*folders, "rotate", "default.none", "root"]) == 2
    for key in (tmp_path / "keys").rglob("root.*.pem"):
        key.unlink()
    assert main([*folders, "rotate", "default.line-1", "root"]) == 3
    assert "backup" in capsys.readouterr().err


def test_a_restored_backup_leaps_over_what_devices_saw(
    make_repository: Callable[..., FleetRepository], served: Path, tmp_path: Path
) -> None:
    repository = make_repository()
    device = Device(tmp_path / "device", served, repository.root()[1])
    repository.publish([index("old")])
    shutil.copytree(tmp_path / "tuf", tmp_path / "backup")
    for number in range(5):
        repository.publish([index(f"new {number}")])
    assert device.read("index.json")[0] == b"new 4"
    shutil.rmtree(tmp_path / "tuf")
    shutil.copytree(tmp_path / "backup", tmp_path / "tuf")
    with pytest.raises(BadVersionNumberError):
        device.read("index.json")
    make_repository().leap(100)
    assert device.read("index.json")[0] == b"old"
    assert make_repository().renew().written == ()


def test_a_full_disk_leaves_the_old_state_in_force(
    make_repository: Callable[..., FleetRepository], served: Path, tmp_path: Path
) -> None:
    repository = make_repository()
    device = Device(tmp_path / "device", served, repository.root()[1])
    repository.publish([index("one")])

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        make_repository(write=full).publish([index("two")])
    assert device.read("index.json")[0] == b"one"
