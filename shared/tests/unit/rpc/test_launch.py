import logging
import subprocess
import sys

import pytest

from boardwright.database import Database, DatabaseUnavailable
from boardwright.rpc.launch import launch
from boardwright.testing.jobs import MIGRATIONS


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """`launch` sets up the root logger; give it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def raising(error):
    async def serve():
        raise error

    return serve


def opens_nothing(url):
    raise AssertionError(url)


async def nothing():
    pass


@pytest.mark.parametrize(("words", "status"), [([], 2), (["bogus"], 2), (["serve", "x"], 2), (["--help"], 0)])
def test_other_words_show_the_usage(words, status, capsys):
    assert launch("registry", nothing, opens_nothing, words) == status
    told = capsys.readouterr().err
    assert "python -m boardwright.registry serve|migrate" in told
    assert "BOARDWRIGHT_" in told


def test_both_words_run(tmp_path, monkeypatch):
    done = []

    async def serve():
        done.append("served")

    def opens(url):
        return Database.open(url, schema="jobs", migrations=MIGRATIONS)

    monkeypatch.setenv("BOARDWRIGHT_DATABASE_URL", f"sqlite:///{tmp_path}/jobs.db")
    assert launch("registry", serve, opens, ["serve"], leave=lambda: done.append("left")) == 0
    assert not list(tmp_path.iterdir())
    assert launch("registry", serve, opens, ["migrate"]) == 0
    assert done == ["served", "left"] and (tmp_path / "jobs.db").exists()


def test_what_drained_waits_for_no_thread():
    """One hashes a large blob, or asks a service that stops as well."""
    served = """
import asyncio, threading
from boardwright.rpc.launch import launch

async def serve():
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    print("drained")

raise SystemExit(launch("registry", serve, None, ["serve"]))
"""
    done = subprocess.run([sys.executable, "-c", served], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "drained\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("BOARDWRIGHT_DATABASE_URL is not set"), 2),
        (DatabaseUnavailable("start it"), 4),
        (OSError("taken"), 4),
    ],
)
def test_what_is_wrong_is_told_in_one_line(error, status, capsys):
    assert launch("registry", raising(error), opens_nothing, ["serve"]) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"registry: {error}"


def test_a_wrong_log_level_is_a_wrong_setting(monkeypatch, capsys):
    monkeypatch.setenv("BOARDWRIGHT_LOG", "loud")
    assert launch("registry", nothing, opens_nothing, ["serve"]) == 2
    assert "loud" in capsys.readouterr().err
