"""What a process gives up stays given up."""

import os
import platform
import signal
import subprocess
import sys

import pytest

from boardwright.jobs import landlock

_SCRUB = """
import os
from boardwright.jobs.confinement import scrub_environment
scrub_environment(["SECRET"])
shown = open("/proc/self/environ", "rb").read()
assert b"hidden-value" not in shown and b"KEPT=kept-value" in shown, shown
assert os.environ["SECRET"] == "hidden-value"
"""
_TWICE = """
import pathlib, sys
from boardwright.jobs import landlock
folder = pathlib.Path(sys.argv[1])
(folder / "mine").mkdir()
assert landlock.restrict(["/usr", sys.prefix, sys.base_prefix], [str(folder / "mine"), "/dev/null", "/none"])
(folder / "mine" / "a").write_text("a")
(folder / "mine" / "a").rename(folder / "mine" / "b")
for attempt in (lambda: (folder / "other").write_text("x"), lambda: list(folder.iterdir())):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit("not closed")
"""


_NETWORK = """
import ctypes, errno, os, platform, socket, sys
from boardwright.jobs.confinement import close_network
if not close_network():
    sys.exit(77)
libc = ctypes.CDLL(None, use_errno=True)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_NETLINK, 40):
    try:
        socket.socket(family, socket.SOCK_STREAM)
    except PermissionError:
        continue
    raise SystemExit(f"family {family} is open")
socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
left, right = socket.socketpair()
left.send(b"x")
assert right.recv(1) == b"x"
calls = [425] if platform.machine() != "x86_64" else [425, 0x40000000 + 41, 0x40000000 + 39]
for number in calls:
    assert libc.syscall(ctypes.c_long(number), 2, 1, 0) == -1 and ctypes.get_errno() == errno.ENOSYS, number
print("closed")
"""
_OTHER_ARCHITECTURE = """
import ctypes, mmap, sys
from boardwright.jobs.confinement import close_network
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53" "b814000000" "cd80" "5b" "c3"))  # eax = 20 (getpid); int 0x80
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
if sys.argv[1] == "closed" and not close_network():
    sys.exit(77)
print(call(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_scrubbed_variables_are_not_shown_and_stay_known() -> None:
    environment = {**os.environ, "SECRET": "hidden-value", "KEPT": "kept-value"}
    subprocess.run([sys.executable, "-c", _SCRUB], env=environment, check=True)


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock (Linux 5.13 or newer)")
def test_landlock_leaves_what_was_named_and_nothing_else(tmp_path: os.PathLike[str]) -> None:
    subprocess.run([sys.executable, "-c", _TWICE, str(tmp_path)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_no_way_to_an_internet_socket_stays_open() -> None:
    done = subprocess.run([sys.executable, "-c", _NETWORK], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no seccomp filters")
    assert done.stdout == "closed\n", done.stderr


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="int 0x80 is x86_64's way to i386's calls",
)
def test_another_architectures_calls_end_the_process() -> None:
    command = [sys.executable, "-c", _OTHER_ARCHITECTURE]
    before = subprocess.run([*command, "open"], capture_output=True, check=False)
    if before.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel has no i386 calls")
    assert before.returncode == 0, before.stderr
    after = subprocess.run([*command, "closed"], capture_output=True, check=False)
    if after.returncode == 77:
        pytest.skip("this kernel has no seccomp filters")
    assert (after.returncode, after.stdout) == (-signal.SIGSYS, b"")
