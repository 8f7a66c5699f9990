"""`python -m boardwright.registry serve|migrate`."""

from boardwright.registry.app import open_database, run
from boardwright.rpc.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch("registry", run, open_database))
