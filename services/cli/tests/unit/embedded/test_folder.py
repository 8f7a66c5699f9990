"""The data folder's lock says who holds it; its files are private."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boardwright.cli.embedded.folder import (
    DataFolder,
    DataFolderInUse,
    FolderLock,
    find_holder,
    read_json,
    write_json,
)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.make()
    return made


def test_a_second_lock_says_who_holds_the_folder(folder: DataFolder) -> None:
    lock = FolderLock(folder)
    lock.acquire()
    with pytest.raises(DataFolderInUse, match=f"in use by process {os.getpid()} on .*--data"):
        FolderLock(folder).acquire()
    held = find_holder(folder)
    assert held is not None and held["pid"] == os.getpid()
    lock.release()
    assert find_holder(folder) is None
    FolderLock(folder).acquire()


def test_the_lock_ends_with_its_process(folder: DataFolder) -> None:
    code = (
        "import os, sys, pathlib\n"
        "from boardwright.cli.embedded.folder import DataFolder, FolderLock\n"
        "FolderLock(DataFolder(pathlib.Path(sys.argv[1]))).acquire()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder.root)], check=False)
    assert find_holder(folder) is None


def test_nobody_holds_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert find_holder(DataFolder(tmp_path / "none")) is None


def test_written_json_is_private_and_comes_back(folder: DataFolder) -> None:
    write_json(folder.endpoints, {"token": "t"})
    assert folder.endpoints.stat().st_mode & 0o777 == 0o600
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert read_json(folder.endpoints) == {"token": "t"}
    assert read_json(folder.status) is None
