"""The entry point."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boardwright.rpc.errors import BoardwrightError

DONE, DEFECT, USAGE, REFUSED, UNAVAILABLE = 0, 1, 2, 3, 4
INTERRUPTED = 130
_GOES_ON = (
    "boardwright: interrupted. A job or rollout that has begun goes on: see `boardwright job ls` and "
    "`boardwright rollout ls`, stop it with `boardwright job cancel` or `boardwright rollout cancel`, or "
    "take up what a job made with the same command again.\n"
)


def main() -> None:
    """Run the command and exit with its code."""
    from boardwright.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character of a tree or a name
    try:
        app(prog_name="boardwright")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(DONE)  # the reader (head, less) has seen enough
        if end.code == INTERRUPTED:
            sys.stderr.write(_GOES_ON)
        raise
    except Exception as error:
        from boardwright.rpc.errors import BoardwrightError

        if not isinstance(error, BoardwrightError):
            raise
        _say(error)
        sys.exit(exit_code(error))


def exit_code(error: BoardwrightError) -> int:
    """The exit code that tells an error: the request is wrong (2), refused (3), or something is away (4)."""
    if error.code == "INVALID_ARGUMENT":
        return USAGE
    if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return UNAVAILABLE
    return DEFECT if error.code == "INTERNAL" else REFUSED


def _say(error: BoardwrightError) -> None:
    """Say what went wrong and why: as JSON for programs, else in words."""
    from boardwright.cli.output import print_json, say

    arguments = sys.argv[1:]
    as_json = any(
        argument in ("-ojson", "--output=json") or (argument == "json" and before in ("-o", "--output"))
        for before, argument in zip(["", *arguments], arguments, strict=False)
    )
    if as_json:
        document = {
            "error": {
                "code": error.code,
                "reason": error.reason,
                "message": error.message,
                "metadata": dict(error.metadata),
            }
        }
        print_json(document)
    reason = f" [{error.reason}]" if error.reason else ""
    say(f"boardwright: {error.message}{reason}")


if __name__ == "__main__":
    main()
