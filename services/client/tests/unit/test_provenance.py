from __future__ import annotations

import subprocess
from pathlib import Path

from boardwright.client.provenance import Provenance, detect_provenance


def test_ci_tells_commit_and_run(tmp_path: Path) -> None:
    github = {
        "GITHUB_SHA": "a" * 40,
        "GITHUB_RUN_ID": "7",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_SERVER_URL": "https://example.org",
    }
    assert detect_provenance(github, tmp_path) == Provenance(
        "a" * 40, "https://example.org/o/r/actions/runs/7"
    )
    gitlab = {"CI_COMMIT_SHA": "b" * 40, "CI_JOB_URL": "https://example.org/j/1"}
    assert detect_provenance(gitlab, tmp_path) == Provenance("b" * 40, "https://example.org/j/1")


def test_a_checkout_tells_its_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert detect_provenance({}, tmp_path) == Provenance(git("rev-parse", "HEAD"), "")


def test_what_nobody_says_stays_empty(tmp_path: Path) -> None:
    assert detect_provenance({}, tmp_path) == Provenance("", "")
