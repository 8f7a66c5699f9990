import logging

import pytest

from boardwright.database import DatabaseUnavailable
from boardwright.rpc.launch import launch


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


async def nothing():
    pass


@pytest.mark.parametrize(("words", "status"), [([], 2), (["bogus"], 2), (["serve", "x"], 2), (["--help"], 0)])
def test_other_words_show_the_usage(words, status, capsys):
    assert launch("registry", nothing, lambda: None, words) == status
    told = capsys.readouterr().err
    assert "python -m boardwright.registry serve|migrate" in told
    assert "BOARDWRIGHT_" in told


def test_both_words_run():
    done = []

    async def serve():
        done.append("served")

    assert launch("registry", serve, lambda: done.append("migrated"), ["serve"]) == 0
    assert launch("registry", serve, lambda: done.append("migrated"), ["migrate"]) == 0
    assert done == ["served", "migrated"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("BOARDWRIGHT_DATABASE_URL is not set"), 2),
        (DatabaseUnavailable("start it"), 4),
        (OSError("taken"), 4),
    ],
)
def test_what_is_wrong_is_told_in_one_line(error, status, capsys):
    assert launch("registry", raising(error), lambda: None, ["serve"]) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"registry: {error}"


def test_a_wrong_log_level_is_a_wrong_setting(monkeypatch, capsys):
    monkeypatch.setenv("BOARDWRIGHT_LOG", "loud")
    assert launch("registry", nothing, lambda: None, ["serve"]) == 2
    assert "loud" in capsys.readouterr().err
