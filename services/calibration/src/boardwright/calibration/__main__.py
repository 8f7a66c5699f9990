"""`python -m boardwright.calibration serve|migrate`."""

from boardwright.calibration.app import open_database, run
from boardwright.rpc.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch("calibration", run, open_database))
