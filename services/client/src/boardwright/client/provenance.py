"""Which commit and which run a model came from, as CI or git tell it.

Known: GitHub Actions, GitLab CI, Jenkins, Buildkite, CircleCI, Azure Pipelines, Bitbucket; the run ids of
MLflow and Weights & Biases; else the git checkout that the script runs in. What nobody says stays empty.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_COMMITS = (
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "GIT_COMMIT",
    "BUILDKITE_COMMIT",
    "CIRCLE_SHA1",
    "BUILD_SOURCEVERSION",
    "BITBUCKET_COMMIT",
)
_RUNS = (
    "MLFLOW_RUN_ID",
    "WANDB_RUN_ID",
    "CI_JOB_URL",
    "BUILD_URL",
    "BUILDKITE_BUILD_URL",
    "CIRCLE_BUILD_URL",
)
_GIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model came from; empty where nobody says."""

    commit: str = ""
    run: str = ""


def detect_provenance(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Provenance:
    """Read CI's variables, then git's HEAD of `folder` (default: the current one)."""
    environment = os.environ if environment is None else environment
    commit = next((environment[name] for name in _COMMITS if environment.get(name)), "")
    run = next((environment[name] for name in _RUNS if environment.get(name)), "")
    if not run and environment.get("GITHUB_RUN_ID"):
        server = environment.get("GITHUB_SERVER_URL", "https://github.com")
        run = (
            f"{server}/{environment.get('GITHUB_REPOSITORY', '')}/actions/runs/{environment['GITHUB_RUN_ID']}"
        )
    return Provenance(commit or _git_head(folder or Path.cwd()), run)


def _git_head(folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
