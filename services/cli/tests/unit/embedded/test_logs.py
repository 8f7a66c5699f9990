"""Logs rotate by size at the end of a line and keep a few old files."""

from pathlib import Path

from boardwright.cli.embedded.logs import RotatingLog, tail


def test_rotation_keeps_whole_lines_and_a_few_files(tmp_path: Path) -> None:
    path = tmp_path / "registry.log"
    log = RotatingLog(path, max_bytes=20, kept=2)
    for number in range(6):
        log.write(f"line {number}..".encode())
        log.write(b"......\n")
    log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "registry.log",
        "registry.log.1",
        "registry.log.2",
    ]
    assert (tmp_path / "registry.log.1").read_text().splitlines() == ["line 4........", "line 5........"]
    assert path.read_text() == ""


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    log = RotatingLog(Path("/dev/full"), max_bytes=4)
    log.write(b"a line\n")
    log.write(b"another\n")
    log.close()


def test_a_log_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    for text in (b"first\n", b"second\n"):
        log = RotatingLog(path)
        log.write(text)
        log.close()
    assert tail(path) == "first\nsecond"
    assert tail(tmp_path / "none.log") == ""
