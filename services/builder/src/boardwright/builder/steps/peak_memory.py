"""The process whose peak memory is read: it imports the runtime, opens one model, and runs it.

``python -m boardwright.builder.steps.peak_memory <job.json>`` prints JSON: ``peak_rss_bytes`` of the whole
process, and ``runtime_rss_bytes`` of the process with the runtime alone. A process of its own, because a peak
is never lowered again: in the measuring process the largest model would speak for all.

The peak is what ``getrusage(2)`` tells (``/proc`` is closed to a step's children). Linux hands the parent's
peak on to a child that starts a new program, so a second, small process stands between the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boardwright.model.golden import GoldenSamples

_RUNS = 3
_TIME_LIMIT_SECONDS = 300.0
_INNER = "--inner"


class MemoryUnknown(Exception):
    """The peak could not be read; the message says why."""


def measure_peak_memory(
    runtime: str,
    files: tuple[Path, Path | None],
    golden: GoldenSamples,
    settings: Mapping[str, Any],
    folder: Path,
) -> dict[str, float]:
    """Run one model in a process of its own and return its peak and the runtime's share, in bytes.

    ``files`` are the model and, where its runtime has a second file, the weights.
    ``folder`` may be written to; nothing stays in it.

    Raises:
        MemoryUnknown: the process failed.
    """
    import numpy as np

    inputs = {}
    for number, (name, array) in enumerate(sorted(golden.inputs.items())):
        inputs[name] = str(folder / f"peak-memory-{number}.npy")
        np.save(inputs[name], array[:1])
    job = folder / "peak-memory.json"
    model, weights = files
    document = {"runtime": runtime, "model": str(model), "weights": str(weights or "")}
    job.write_text(json.dumps({**document, "inputs": inputs, "settings": dict(settings)}))
    try:
        ended = subprocess.run(
            _command(str(job)), capture_output=True, text=True, timeout=_TIME_LIMIT_SECONDS, check=True
        )
        return {name: float(value) for name, value in json.loads(ended.stdout).items()}
    except (subprocess.SubprocessError, ValueError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise MemoryUnknown(f"the memory process failed: {words.strip()[-300:]}") from error
    finally:
        for path in (job, *map(Path, inputs.values())):
            path.unlink(missing_ok=True)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "boardwright.builder.steps.peak_memory", *arguments]


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _run_model(job: Mapping[str, Any]) -> dict[str, int]:
    from boardwright.toolchains.runtimes import import_runtime, open_model

    import_runtime(job["runtime"])  # alone, before any model
    runtime = _peak_bytes()
    import numpy as np

    inputs = {name: np.load(path, allow_pickle=False) for name, path in job["inputs"].items()}
    weights = Path(job["weights"]) if job["weights"] else None
    session = open_model(job["runtime"], Path(job["model"]), job["settings"], weights=weights)
    run = session.prepare(inputs)
    for _ in range(_RUNS):
        run()
    return {"peak_rss_bytes": _peak_bytes(), "runtime_rss_bytes": runtime}


def main(arguments: list[str]) -> None:
    """Open, run, report; or stand between the process that does and a large parent (see the module)."""
    if arguments[0] != _INNER:
        sys.exit(subprocess.run(_command(_INNER, arguments[0]), check=False).returncode)
    job = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(_run_model(job)))


if __name__ == "__main__":
    main(sys.argv[1:])
