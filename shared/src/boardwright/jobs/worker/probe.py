"""What this machine can serve, told by a short-lived process: ``python -m boardwright.jobs.worker.probe``.

Detecting the board and the toolchains loads libraries that an idle worker does not need afterwards.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass

_log = logging.getLogger(__name__)
_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Machine:
    """The catalogue name of this machine's board, if it is in the catalogue, and its usable toolchains."""

    boards: frozenset[str] = frozenset()
    toolchains: frozenset[str] = frozenset()


def probe_machine() -> Machine:
    """Return what this machine can serve; nothing, with a warning in the log, where the probe fails."""
    command = [sys.executable, "-m", "boardwright.jobs.worker.probe"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=_SECONDS
        )
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", b"") or b""
        _log.warning("the machine's board and toolchains are unknown: %s %s", error, said[-500:])
        return Machine()
    return Machine(frozenset(found["boards"]), frozenset(found["toolchains"]))


def main() -> int:
    """Detect, and write the answer as JSON to standard output."""
    from boardwright.model.host import detect_host
    from boardwright.toolchains.catalogue import toolchain_named, toolchain_names

    board = detect_host().board
    toolchains = [name for name in toolchain_names() if toolchain_named(name).availability().available]
    sys.stdout.write(json.dumps({"boards": [board] if board else [], "toolchains": toolchains}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
