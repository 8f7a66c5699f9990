"""Why the agent did not do what it was asked to.

Three kinds, because callers do different things about them: a `Refused` stays until a person or a new release
changes something, a `TurnedAway` until the server thinks otherwise, an `Unavailable` goes away by trying
again. Each carries a stable `reason` and a sentence that says what to do next.
"""

from __future__ import annotations

import errno
from pathlib import Path

EXIT_DONE = 0
EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_UNAVAILABLE = 4


class AgentError(Exception):
    """Root of everything that the agent raises on purpose.

    Attributes:
        reason: stable, upper case, for programs.
        message: for people.
        exit_code: what the command ends with.
    """

    exit_code = EXIT_REFUSED

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Refused(AgentError):
    """The device will not do this: what was offered is wrong for it, or cannot be trusted.

    Attributes:
        release, rollout: what was refused, "" when it is not about a release.
    """

    def __init__(self, reason: str, message: str, *, release: str = "", rollout: str = "") -> None:
        super().__init__(reason, message)
        self.release = release
        self.rollout = rollout


class RolledBack(Refused):
    """A new slot failed after the switch, and the device went back to the one before."""


class TurnedAway(AgentError):
    """The server, or a proxy before it, does not serve this device. That says nothing of what was offered."""


class Unavailable(AgentError):
    """Something outside is missing for now (network, server, disk space); the next try goes on from here."""

    exit_code = EXIT_UNAVAILABLE


def disk_failed(error: OSError, folder: Path) -> Unavailable:
    """What it means that this device's own disk did not do what it should."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable(
            "DISK_FULL",
            f"the disk of {folder} is full: free some space, then the agent goes on where it stopped",
        )
    return Unavailable("HOME_UNWRITABLE", f"{folder} cannot be used ({error}): repair it, then retry")
