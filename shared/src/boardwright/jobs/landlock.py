"""A process that sees only the files it was given: Linux's Landlock, without any privilege.

https://docs.kernel.org/userspace-api/landlock.html. A restricted process may not trace one that is not
restricted either. Only what this kernel's Landlock knows is handled; without one, ``restrict`` says so.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

# include/uapi/linux/landlock.h, LANDLOCK_ACCESS_FS_*
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST_VERSION_RIGHTS = (1 << 13) - 1
_MAKE_CHARACTER_DEVICE, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
_REFER, _TRUNCATE = 1 << 13, 1 << 14
# LANDLOCK_SCOPE_*: abstract Unix sockets of, and signals to, processes that are not restricted alike.
_SCOPED = 1 << 0 | 1 << 1
SCOPES_SINCE = 6
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


def version() -> int:
    """Return the version of this kernel's Landlock interface; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, _call(ctypes.CDLL(None, use_errno=True), _CREATE_RULESET, None, 0, _ASK_VERSION))


def restrict(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Leave this thread and its future children only these files and folders (with all below them).

    ``writable`` may be read as well; nobody makes devices. Paths that do not exist are skipped. Where the
    kernel can (version 6, Linux 6.12), signals reach no process outside either. Returns False, and changes
    nothing, where the kernel has no Landlock.
    """
    known = version()
    if not known:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    handled = _FIRST_VERSION_RIGHTS | (_REFER if known >= 2 else 0) | (_TRUNCATE if known >= 3 else 0)
    packed = struct.pack("Q", handled) if known < SCOPES_SINCE else struct.pack("QQQ", handled, 0, _SCOPED)
    attributes = ctypes.create_string_buffer(packed, len(packed))
    ruleset = _call(libc, _CREATE_RULESET, attributes, len(packed), 0)
    if ruleset < 0:
        return False
    try:
        for path in dict.fromkeys(readable):
            _allow(libc, ruleset, path, _READ)
        for path in dict.fromkeys(writable):
            _allow(libc, ruleset, path, handled & ~(_MAKE_CHARACTER_DEVICE | _MAKE_BLOCK_DEVICE))
        arguments = [ctypes.c_ulong(value) for value in (1, 0, 0, 0)]
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, *arguments) != 0:
            return False
        return _call(libc, _RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_A_FILE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened), 12)
        if _call(libc, _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock refuses a rule for {path}")
    finally:
        os.close(opened)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(libc.syscall(ctypes.c_long(number), *converted))
