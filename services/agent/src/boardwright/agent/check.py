"""Checks a slot in a process of its own: `python -m boardwright.agent.check FOLDER`.

A model that crashes its runtime, hangs or eats all memory must not take the agent with it. The process
prints one JSON object: {"passed": …, "reason": …, "message": …, "samples": …, "worst_error": …}.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from boardwright.agent.errors import AgentError, Refused
from boardwright.content.digest import digest_file
from boardwright.device.bundle import Bundle
from boardwright.device.errors import InvalidDocument


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    Attributes:
        passed: the slot works.
        reason, message: why not, else "".
        samples: how many golden samples were run.
        worst_error: the largest deviation from the expected outputs.
    """

    passed: bool
    reason: str = ""
    message: str = ""
    samples: int = 0
    worst_error: float = 0.0


def check_in_process(folder: Path, *, timeout_seconds: float = 300.0) -> CheckResult:
    """Check a folder in a new process, whatever the model does there."""
    command = [sys.executable, "-m", "boardwright.agent.check", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired:
        return CheckResult(
            False, "HEALTH_TIMEOUT", f"the model did not finish within {timeout_seconds:.0f} s"
        )
    try:
        return CheckResult(**json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        end = (
            f"was ended by signal {-done.returncode}"
            if done.returncode < 0
            else f"ended with {done.returncode}"
        )
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        said = f": {last[0][:300]}" if last else ""
        return CheckResult(
            False, "RUNTIME_CRASHED", f"the runtime's process {end} while it ran the model{said}"
        )


def check(folder: Path) -> CheckResult:
    """Check a folder here: its files are the signed ones, the model loads, the golden samples pass."""
    try:
        bundle = Bundle.parse((folder / "manifest.json").read_bytes())
        for file in bundle.files:
            if digest_file(folder / file.name) != file.digest:
                raise Refused("SLOT_DAMAGED", f"{file.name} in {folder} is not the file that was installed")
        return _run_golden(folder, bundle)
    except AgentError as error:
        return CheckResult(False, error.reason, error.message)
    except (OSError, InvalidDocument) as error:
        return CheckResult(False, "SLOT_DAMAGED", f"{folder} cannot be read: {error}")


def _run_golden(folder: Path, bundle: Bundle) -> CheckResult:
    from boardwright.agent.runtime import open_model
    from boardwright.model.errors import ModelError
    from boardwright.model.golden import GoldenSamples

    session = open_model(folder, bundle)
    file = bundle.file("golden")
    if file is None:
        return CheckResult(True)
    try:
        verdict = GoldenSamples.from_bytes((folder / file.name).read_bytes()).check(session.run)
    except ModelError as error:
        raise Refused("GOLDEN_INVALID", error.message) from error
    except Exception as error:  # whatever the runtime raises, the model does not work here
        raise Refused("RUNTIME_FAILED", f"the model failed in this runtime: {error}") from error
    if not verdict.passed:
        message = (
            f"{len(verdict.failed)} of {verdict.samples} golden samples come out differently in this runtime"
        )
        return CheckResult(
            False,
            "GOLDEN_MISMATCH",
            f"{message}: {'; '.join(verdict.reasons[:3])}",
            verdict.samples,
            _finite(verdict.worst_error),
        )
    return CheckResult(True, "", "", verdict.samples, _finite(verdict.worst_error))


def _finite(value: float) -> float:
    return min(value, sys.float_info.max)


def main(arguments: list[str]) -> int:
    """Check the folder named by the one argument and print the result."""
    result = check(Path(arguments[0]))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
