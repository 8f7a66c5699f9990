"""`python -m boardwright.delivery serve|migrate`."""

import sys

from boardwright.delivery.app import migrate, run
from boardwright.rpc.launch import launch


def main() -> int:
    """Run the command line; return the exit status."""
    return launch("delivery", run, migrate)


if __name__ == "__main__":
    sys.exit(main())
