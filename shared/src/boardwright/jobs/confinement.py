"""What a step's process gives up before it runs foreign code: memory, file size, the network, other files.

Limits are set by the process on itself (no code runs between fork and exec in the many-threaded worker).
The network is closed by a seccomp filter that answers EACCES to ``socket`` of every family but Unix's
(seccomp(2), no privilege needed after ``PR_SET_NO_NEW_PRIVS``), knows no io_uring (it makes sockets too), and
kills a process that calls by another architecture's numbers. Where the kernel has no seccomp the step still
runs: its environment holds no credentials in any case.

Both bind the calling thread and what it starts from then on: threads started earlier would stay free, and
foreign code could run in them (by a signal's handler). So the step confines itself while it has one thread.

Files are closed by Landlock (``boardwright.jobs.landlock``): the step reads the system, its Python and its
inputs, and writes in its own folder alone. Its user's credentials and other processes' memory are out of its
sight; whoever starts steps keeps its own secrets out of ``/proc/<pid>/environ`` (``scrub_environment``).
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from boardwright.jobs import landlock

_log = logging.getLogger(__name__)

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO_EACCES = 0x00050000 | 13
_RET_ERRNO_ENOSYS = 0x00050000 | 38
_RET_KILL_PROCESS = 0x80000000
# Offsets in struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6].
_NR, _ARCH, _ARG0 = 0, 4, 16
# machine: (audit architecture, number of socket(2)); include/uapi/linux/audit.h and the syscall tables.
_SOCKET_CALL = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_X32_CALLS = 0x40000000  # x86_64's second table of calls begins here; no other machine has numbers so high
_IO_URING_SETUP = 425  # the same number on every architecture
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/nix", "/proc", "/sys")
_DEVICES = ("/dev",)


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of one process. ``data_bytes`` bounds private writable memory (RLIMIT_DATA, a hard stop above
    the executor's watch on resident memory); ``file_bytes`` bounds each written file. 0 sets no limit."""

    data_bytes: int = 0
    file_bytes: int = 0
    network: bool = False


def confine(limits: ProcessLimits) -> None:
    """Apply ``limits`` to this process and its future children."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bounds = ((resource.RLIMIT_DATA, limits.data_bytes), (resource.RLIMIT_FSIZE, limits.file_bytes))
    for which, limit in bounds:
        if limit:
            _, hard = resource.getrlimit(which)
            bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(which, (bound, bound))
    # Python ignores SIGXFSZ, so a file over the limit is an OSError (EFBIG) and not a silent death.
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
            stream.write("1000")
    except OSError:
        _log.debug("oom_score_adj cannot be set here")
    if not limits.network and not close_network():
        _log.warning("this kernel has no seccomp filters: the step's network is not closed")


def close_network() -> bool:
    """Forbid sockets other than Unix's to this thread, and what it starts, for good; False if it cannot."""
    known = _SOCKET_CALL.get(platform.machine())
    if known is None or platform.system() != "Linux":
        return False
    architecture, socket_number = known

    def statement(code: int, jump_true: int, jump_false: int, k: int) -> bytes:
        return struct.pack("HBBI", code, jump_true, jump_false, k)

    # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K; jumps count the statements they pass over.
    load, jump_equal, jump_not_below, give = 0x20, 0x15, 0x35, 0x06
    program = [
        statement(load, 0, 0, _ARCH),
        statement(jump_equal, 1, 0, architecture),
        statement(give, 0, 0, _RET_KILL_PROCESS),
        statement(load, 0, 0, _NR),
        statement(jump_not_below, 5, 0, _X32_CALLS),
        statement(jump_equal, 4, 0, _IO_URING_SETUP),
        statement(jump_equal, 0, 2, socket_number),
        statement(load, 0, 0, _ARG0),
        statement(jump_equal, 0, 2, socket.AF_UNIX),
        statement(give, 0, 0, _RET_ALLOW),
        statement(give, 0, 0, _RET_ERRNO_ENOSYS),
        statement(give, 0, 0, _RET_ERRNO_EACCES),
    ]
    code = ctypes.create_string_buffer(b"".join(program))
    filter_program = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    arguments = [ctypes.c_ulong(value) for value in (1, 0, 0, 0)]
    if prctl(_PR_SET_NO_NEW_PRIVS, *arguments) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), filter_program, 0, 0) == 0)


def close_files(folders: Iterable[Path], inputs: Iterable[Path]) -> bool:
    """Leave this process its system, Python, ``inputs``, and ``folders`` to write in; False if it cannot."""
    imports = [sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if path)]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    readable = [*_SYSTEM, *imports, *filter(None, libraries), *map(str, inputs)]
    return landlock.restrict(readable, [*_DEVICES, *map(str, folders)])


def scrub_environment(names: Iterable[str]) -> None:
    """Erase these variables from what ``/proc/<pid>/environ`` shows; ``os.environ`` keeps them.

    Processes of the same user may read that file. Call it first thing: it overwrites the strings that the
    process was started with. Programs started later with this process's environment see them empty.
    """
    if sys.platform != "linux":
        return
    wanted = {name.encode() for name in names}
    pointers = ctypes.POINTER(ctypes.c_void_p).in_dll(ctypes.CDLL(None), "environ")
    index = 0
    while address := pointers[index]:
        name, _, value = ctypes.string_at(address).partition(b"=")
        if name in wanted:
            ctypes.memset(address + len(name) + 1, 0, len(value))
        index += 1


def end_group_with_stdin() -> None:
    """Kill this process group as soon as standard input closes: whoever holds the other end is gone."""
    held = os.dup(0)
    os.set_inheritable(held, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def wait() -> None:
        while os.read(held, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="end-with-stdin", daemon=True).start()
