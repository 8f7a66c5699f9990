"""`python -m boardwright.agent` is the command `boardwright-agent`."""

from __future__ import annotations

from boardwright.agent.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
