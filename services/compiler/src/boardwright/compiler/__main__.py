"""`python -m boardwright.compiler serve|migrate`."""

from boardwright.compiler.app import open_database, serve
from boardwright.rpc.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch("compiler", serve, open_database))
