"""`python -m boardwright.delivery.trust`: what an operator does with the keys themselves.

    status                      every fleet's roles: version, end of validity, keys here and needed
    rotate FLEET ROLE           replace a role's keys, after a theft or by schedule
    leap FLEET VERSIONS         after a restore from a backup, so that devices do not see a rollback
    renew                       sign again what is due, with the service stopped or running

Folders are the service's: $BOARDWRIGHT_STATE_DIR/keys and /repositories, or the variables that name them
singly. The commands take the same lock as the service, so both may run at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from boardwright.delivery.trust.errors import TrustError
from boardwright.delivery.trust.keys import FileKeyStore
from boardwright.delivery.trust.policy import ROLES
from boardwright.delivery.trust.repository import FleetRepository


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0 done, 2 wrong usage, 3 refused with the reason."""
    options = _parser().parse_args(arguments)
    state = os.environ.get("BOARDWRIGHT_STATE_DIR", "")
    keys = options.keys or os.environ.get("BOARDWRIGHT_DELIVERY_KEYS_DIR") or (state and f"{state}/keys")
    folder = (
        options.repositories
        or os.environ.get("BOARDWRIGHT_DELIVERY_REPOSITORIES_DIR")
        or (state and f"{state}/repositories")
    )
    if not keys or not folder:
        sys.stderr.write("set BOARDWRIGHT_STATE_DIR, or give --keys and --repositories\n")
        return 2
    store = FileKeyStore(Path(keys))
    names = sorted(path.name for path in Path(folder).glob("*") if (path / "metadata").is_dir())
    try:
        return _run(options, {name: FleetRepository(Path(folder), name, store) for name in names})
    except (TrustError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m boardwright.delivery.trust",
        description="Looks after the keys and signatures of fleets.",
        epilog="example: python -m boardwright.delivery.trust rotate default.line-1 timestamp",
    )
    parser.add_argument("--keys", default="", help="the folder of the signing keys")
    parser.add_argument("--repositories", default="", help="the folder of the signed repositories")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="versions, validity and keys of every fleet")
    commands.add_parser("renew", help="sign again what is due")
    rotate = commands.add_parser("rotate", help="replace a role's keys by new ones")
    rotate.add_argument("fleet", help="the fleet as project.fleet")
    rotate.add_argument("role", choices=ROLES)
    leap = commands.add_parser("leap", help="sign with versions higher than devices have seen")
    leap.add_argument("fleet", help="the fleet as project.fleet")
    leap.add_argument("versions", type=int, help="by how much; 1000 is safe for years")
    return parser


def _run(options: argparse.Namespace, repositories: dict[str, FleetRepository]) -> int:
    if options.command in ("rotate", "leap"):
        repository = repositories.get(options.fleet)
        if repository is None or (options.command == "leap" and options.versions < 1):
            known = ", ".join(repositories) or "none"
            sys.stderr.write(f"fleets are: {known}; versions are 1 or more\n")
            return 2
        leaping = options.command == "leap"
        done = repository.leap(options.versions) if leaping else repository.rotate(options.role)
        _say(options.fleet, done.written)
    elif options.command == "renew":
        for name, repository in repositories.items():
            _say(name, repository.renew().written)
    else:
        for name, repository in repositories.items():
            for line in repository.describe():
                sys.stdout.write(f"{name}  {line}\n")
    return 0


def _say(name: str, written: tuple[str, ...]) -> None:
    sys.stdout.write(f"{name}  {', '.join(written) or 'nothing was due'}\n")


if __name__ == "__main__":
    raise SystemExit(main())
