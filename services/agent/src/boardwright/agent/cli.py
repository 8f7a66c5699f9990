"""The command `boardwright-agent`: enroll, run, once, status.

Exit codes: 0 done; 1 a defect in the agent itself; 2 wrong usage; 3 refused, with its reason; 4 something is
unavailable (server, network, disk space) and trying again goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.agent.errors import EXIT_DEFECT, EXIT_DONE, EXIT_USAGE, AgentError, disk_failed
from boardwright.agent.home import Home
from boardwright.device.shorthand import shorten_names

if TYPE_CHECKING:
    from boardwright.agent.device import Pass

_EPILOG = """
exit codes:
  0  done: installed, up to date, waiting, or nothing assigned
  2  wrong usage
  3  refused: the message says why and what to do; the device keeps what it ran
  4  unavailable: server, network or disk space; running it again goes on from there

example:
  boardwright-agent enroll --server https://boardwright.example --token bwe1.…
  boardwright-agent run --health-command 'systemctl restart camera'
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(_COMMANDS[options.command](options))
    except AgentError as error:
        _say_error(options, error)
        return error.exit_code
    except OSError as error:
        failed = disk_failed(error, options.home)
        _say_error(options, failed)
        return failed.exit_code
    except ImportError as error:
        sys.stderr.write(f"boardwright-agent: its installation is damaged ({error}): install it again\n")
        return EXIT_DEFECT
    except KeyboardInterrupt:
        return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--home", type=Path, default=_default_home(), help="the device's folder (default: %(default)s)"
    )
    shared.add_argument("-o", "--output", choices=("text", "json"), default="text")
    shared.add_argument("-q", "--quiet", action="store_true", help="no progress on standard error")
    work = argparse.ArgumentParser(add_help=False)
    work.add_argument(
        "--health-command",
        default=os.environ.get("BOARDWRIGHT_HEALTH_COMMAND", ""),
        help="must succeed after a switch, else the device goes back; it sees BOARDWRIGHT_SLOT",
    )
    parser = argparse.ArgumentParser(
        prog="boardwright-agent",
        description="Keeps this device on the release that its fleet should run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version("boardwright-agent"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="enroll|run|once|status")
    enroll = commands.add_parser("enroll", parents=[shared], help="make this machine a device of a fleet")
    enroll.add_argument(
        "--server", required=True, help="the gateway, for example https://boardwright.example"
    )
    enroll.add_argument(
        "--token",
        default=os.environ.get("BOARDWRIGHT_ENROLMENT_TOKEN", ""),
        help="the one-time token; - reads it from standard input (default: $BOARDWRIGHT_ENROLMENT_TOKEN)",
    )
    enroll.add_argument("--id", default="", help="the device's id (default: this machine's name)")
    enroll.add_argument("--board", default="", help="the board's catalogue name, when it cannot be detected")
    enroll.add_argument("--again", action="store_true", help="replace an earlier enrolment")
    enroll.add_argument(
        "--allow-http", action="store_true", help="take a server without encryption that is not this machine"
    )
    run = commands.add_parser("run", parents=[shared, work], help="keep the device up to date until stopped")
    run.add_argument("--interval", type=int, default=0, help="seconds between polls (default: the server's)")
    commands.add_parser("once", parents=[shared, work], help="check and install once")
    commands.add_parser("status", parents=[shared], help="what is installed, from the folder alone")
    return parser


def _default_home() -> Path:
    named = os.environ.get("BOARDWRIGHT_AGENT_HOME")
    if named:
        return Path(named)
    if os.geteuid():
        with contextlib.suppress(RuntimeError):  # a user of the system's that has no home
            return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "boardwright-agent"
    return Path("/var/lib/boardwright-agent")


def _enroll(options: argparse.Namespace) -> int:
    from boardwright.agent.enrolment import enroll

    token = sys.stdin.readline() if options.token == "-" else options.token  # noqa: S105  no secret
    if not token.strip():
        sys.stderr.write("boardwright-agent: give --token (boardwright fleet token makes one)\n")
        return EXIT_USAGE
    home = Home(options.home)
    with home.locked():
        identity = enroll(
            home,
            options.server,
            token,
            device_id=options.id,
            board=options.board,
            again=options.again,
            allow_http=options.allow_http,
        )
    _say(options, {"device": identity.device, "fleet": identity.fleet}, f"enrolled as {identity.device}")
    return EXIT_DONE


def _once(options: argparse.Namespace) -> int:
    from boardwright.agent.device import Device
    from boardwright.agent.progress import console_progress

    with Home(options.home).locked():
        progress = console_progress(sys.stderr, quiet=options.quiet)
        result = Device(options.home, health_command=options.health_command, progress=progress).once()
    return _say_pass(options, result)


def _run(options: argparse.Namespace) -> int:
    from boardwright.agent.device import Device
    from boardwright.agent.progress import console_progress, interruptible

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Home(options.home).locked():
        progress = interruptible(console_progress(sys.stderr, quiet=options.quiet), stop)
        device = Device(options.home, health_command=options.health_command, progress=progress)
        said: tuple[str, str] | None = None

        def tell(result: Pass) -> None:
            """Say what is new: a log that repeats itself every minute hides what happened."""
            nonlocal said
            if result.told != said:
                _say_pass(options, result)
            said = result.told

        device.run(stop, max(0, options.interval), tell)
    return EXIT_DONE


def _status(options: argparse.Namespace) -> int:
    from boardwright.agent.device import status_document

    document = status_document(Home(options.home))
    lines = [f"{name.replace('_', ' '):17} {_plain(value)}" for name, value in document.items()]
    _say(options, document, "\n".join(lines))
    return EXIT_DONE


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['reason']}: {value['message']} ({value['release']})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _say_pass(options: argparse.Namespace, result: Pass) -> int:
    if result.report_error is not None:
        told = shorten_names(result.report_error.message)
        sys.stderr.write(f"boardwright-agent: the report did not arrive: {told}\n")
    if result.error is not None:
        _say_error(options, result.error)
        return result.error.exit_code
    outcome = result.outcome
    if outcome is None:
        return EXIT_DONE
    document = {
        "result": outcome.result,
        "message": outcome.message,
        "release": outcome.release,
        "rollout": outcome.rollout,
        "golden_samples": outcome.samples,
        "reported": result.report_error is None,
    }
    _say(options, document, f"{outcome.result}: {outcome.message}")
    return EXIT_DONE


def _say(options: argparse.Namespace, document: dict[str, object], text: str) -> None:
    """Programs get full names, people short ones."""
    sys.stdout.write((json.dumps(document) if options.output == "json" else shorten_names(text)) + "\n")
    sys.stdout.flush()


def _say_error(options: argparse.Namespace, error: AgentError) -> None:
    if options.output == "json":
        result = "refused" if error.exit_code == 3 else "unavailable"
        _say(options, {"result": result, "reason": error.reason, "message": error.message}, "")
    else:
        sys.stderr.write(f"boardwright-agent: {error.reason}: {shorten_names(error.message)}\n")
        sys.stderr.flush()


_COMMANDS = {"enroll": _enroll, "run": _run, "once": _once, "status": _status}
