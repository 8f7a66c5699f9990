"""``python -m boardwright.builder serve|migrate``."""

from boardwright.builder.app import migrate, run
from boardwright.rpc.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch("builder", run, migrate))
