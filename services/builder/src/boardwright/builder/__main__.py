"""`python -m boardwright.builder serve|migrate`."""

from boardwright.builder.app import open_database, run
from boardwright.rpc.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch("builder", run, open_database))
