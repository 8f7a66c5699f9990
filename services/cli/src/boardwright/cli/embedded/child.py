"""The first code in each process of the stack: ``python -m boardwright.cli.embedded.child PID MODULE …``.

It asks the kernel for SIGTERM when the supervisor (process PID) dies, whatever it died of, keeps the secrets
that it was started with out of ``/proc``, where a step's process could read them, and then runs the module
as ``python -m MODULE …`` would, in this very process.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

from boardwright.cli.embedded.processes import SECRETS
from boardwright.jobs.confinement import scrub_environment

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> bool:
    """Arrange that this process gets SIGTERM when ``parent`` ends; False if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
    return os.getppid() == parent


def main() -> None:
    """Run the module named on the command line."""
    scrub_environment(SECRETS)
    parent, module = int(sys.argv[1]), sys.argv[2]
    if not end_with(parent):
        sys.exit(0)
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
