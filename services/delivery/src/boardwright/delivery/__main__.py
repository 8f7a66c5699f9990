"""`python -m boardwright.delivery serve|migrate`."""

from boardwright.delivery.app import open_database, run
from boardwright.rpc.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch("delivery", run, open_database))
