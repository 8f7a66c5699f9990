"""FleetRepository: one fleet's TUF repository in a folder that any web server can serve as static files.

    <folder>/<name>/metadata/   N.root.json, N.targets.json, N.snapshot.json, timestamp.json
    <folder>/<name>/targets/    <sha256>.<name of the file>, in sub-folders as the paths say

Crash safety: every file is written atomically and durably, target files before the metadata that names
them, `timestamp.json` last. A process killed anywhere in between leaves the old state in force; the next
`publish` starts from what `timestamp.json` names.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from boardwright.content.durable import make_folder, remove_leftovers, write_file
from boardwright.delivery.trust.errors import RepositoryDamaged
from boardwright.delivery.trust.keys import KeyStore
from boardwright.delivery.trust.metadata import (
    Chain,
    WantedTarget,
    advance,
    first_root,
    next_renewal,
    rotate,
)
from boardwright.delivery.trust.policy import ROLES, TrustPolicy

_KEPT_VERSIONS = 3
_KEPT_TARGET_AGE = timedelta(days=2)
"""A slow client finishes with the state it began with; files of older states go after this time."""

_SERVED = re.compile(
    r"metadata/[0-9a-z][0-9a-z.]{0,100}\.json|targets/([0-9a-z]+/)?[0-9a-f]{64}\.[0-9a-z.]{1,100}"
)

WriteFile = Callable[[Path, bytes], None]
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class Publication:
    """What one `FleetRepository.publish` did.

    Attributes:
        written: the files written, relative to the repository, in order; empty when nothing had changed.
        timestamp_version: the version that devices see.
        renew_at: when the first role is due to be signed again.
        warnings: what an operator should do soon.
    """

    written: tuple[str, ...]
    timestamp_version: int
    renew_at: datetime
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _NamedKeys:
    name: str
    store: KeyStore

    def create(self, role: str) -> SSlibKey:
        return self.store.create(self.name, role)

    def signer(self, key: Key) -> Signer | None:
        return self.store.signer(self.name, key)


class FleetRepository:
    """Reads and writes one repository. Processes that share the folder take turns by a file lock."""

    def __init__(
        self,
        folder: Path,
        name: str,
        keys: KeyStore,
        policy: TrustPolicy | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        write: WriteFile = write_file,
    ) -> None:
        self._base = folder / name
        self._metadata = self._base / "metadata"
        self._targets = self._base / "targets"
        self._keys = _NamedKeys(name, keys)
        self._policy = policy or TrustPolicy()
        self._clock = clock
        self._write = write

    @property
    def exists(self) -> bool:
        """Whether the repository was ever created."""
        return (self._metadata / "1.root.json").exists()

    def root(self, version: int = 0) -> tuple[int, bytes]:
        """Version and bytes of root metadata: of ``version``, or of the newest with 0.

        What a new device is given to trust; it finds the way from any version to the newest by itself.
        Creates the repository if there is none.

        Raises:
            TrustError: keys are missing, the repository is damaged, or there is no such version.
            OSError: the folder cannot be written.
        """
        if not (self._metadata / "timestamp.json").exists():
            self.renew()
        wanted = version or self._versions("root")[-1]
        try:
            return wanted, (self._metadata / f"{wanted}.root.json").read_bytes()
        except FileNotFoundError as error:
            raise RepositoryDamaged(f"{self._keys.name} has no root metadata of version {wanted}") from error

    def read(self, path: str) -> bytes | None:
        """A served file ("metadata/timestamp.json", "targets/…"), None when there is none."""
        if not _SERVED.fullmatch(path) or ".." in path:
            return None
        try:
            return (self._base / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def publish(self, wanted: Iterable[WantedTarget]) -> Publication:
        """Make the repository name exactly these files; writes only what changed.

        Raises:
            TrustError: keys are missing or the repository is damaged.
            OSError: the folder cannot be written; devices go on seeing the previous state.
        """
        targets = list(wanted)
        with self._locked():
            written = [name for target in targets if (name := self._store_target(target))]
            publication = self._advance({target.path: target.to_target_file() for target in targets}, written)
            self._prune()
        return publication

    def renew(self) -> Publication:
        """Sign again what is due, naming the same files as before. Cheap when nothing is due.

        Raises:
            TrustError: keys are missing or the repository is damaged.
            OSError: the folder cannot be written; devices go on seeing the previous state.
        """
        with self._locked():
            return self._advance(None, [])

    def rotate(self, role: str) -> Publication:
        """Replace all keys of a role by new ones and sign everything that depends on them.

        A crash after the new root was written is healed by the next `publish` or `renew`, which finds the
        old signatures no longer sufficient.

        Raises:
            TrustError: keys are missing or the repository is damaged.
            OSError: the folder cannot be written.
        """
        with self._locked():
            following = rotate(self._load().root, role, self._keys, self._policy, self._clock())
            name = f"{following.signed.version}.root.json"
            self._write(self._metadata / name, following.to_bytes())
            return self._advance(None, [f"metadata/{name}"])

    def leap(self, versions: int) -> Publication:
        """Sign everything again with versions that are higher by at least ``versions``.

        For a repository that was restored from a backup: devices that have seen newer versions than those
        in the backup take its metadata for a rollback until the versions are higher than what they saw.

        Raises:
            TrustError: keys are missing or the repository is damaged.
            OSError: the folder cannot be written.
        """
        with self._locked():
            chain = self._load()
            for metadata in (chain.targets, chain.snapshot, chain.timestamp):
                if metadata is not None:
                    metadata.signed.version += versions
                    metadata.signatures.clear()  # so that it counts as unsigned and is signed again
            return self._sign(chain, None, [])

    def describe(self) -> list[str]:
        """One line a role: version, end of validity, how many of its keys are here and how many must sign.

        Raises:
            TrustError: the repository is damaged.
        """
        chain = self._load()
        lines = []
        for role, metadata in zip(
            ROLES, (chain.root, chain.timestamp, chain.snapshot, chain.targets), strict=True
        ):
            duty = chain.root.signed.roles[role]
            here = sum(
                self._keys.signer(chain.root.signed.keys[key_id]) is not None for key_id in duty.keyids
            )
            keys = f"{here} of {len(duty.keyids)} keys here, {duty.threshold} must sign"
            if metadata is None:
                lines.append(f"{role:9}  never signed  {keys}")
                continue
            signed = metadata.signed
            lines.append(
                f"{role:9}  version {signed.version}  until {signed.expires:%Y-%m-%d %H:%M} UTC  {keys}"
            )
        return lines

    def _advance(self, wanted: Mapping[str, TargetFile] | None, written: list[str]) -> Publication:
        return self._sign(self._load(), wanted, written)

    def _sign(self, chain: Chain, wanted: Mapping[str, TargetFile] | None, written: list[str]) -> Publication:
        if wanted is None:
            wanted = {} if chain.targets is None else chain.targets.signed.targets
        step = advance(chain, wanted, self._keys, self._policy, self._clock())
        for name, data in step.files:
            self._write(self._metadata / name, data)
        renew_at = next_renewal(step.chain, self._policy)
        if step.chain.timestamp is None or renew_at is None:
            raise RepositoryDamaged(f"{self._keys.name} has no timestamp after signing")
        return Publication(
            written=(*written, *(f"metadata/{name}" for name, _ in step.files)),
            timestamp_version=step.chain.timestamp.signed.version,
            renew_at=renew_at,
            warnings=step.warnings,
        )

    def _load(self) -> Chain:
        """The chain that `timestamp.json` names, under the newest root; makes the first root."""
        versions = self._versions("root")
        if not versions:
            root = first_root(self._keys, self._policy, self._clock())
            self._write(self._metadata / "1.root.json", root.to_bytes())
            return Chain(root)
        root = self._read(f"{versions[-1]}.root.json", Root)
        if not (self._metadata / "timestamp.json").exists():
            if self._versions("snapshot")[1:]:
                raise RepositoryDamaged(
                    f"{self._metadata / 'timestamp.json'} is gone, though it was written before: restore the "
                    f"folder from its backup (starting over would make devices see a rollback)"
                )
            return Chain(root)
        timestamp = self._read("timestamp.json", Timestamp)
        snapshot = self._read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
        targets = self._read(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        return Chain(root, targets, snapshot, timestamp)

    def _read(self, name: str, kind: type[S]) -> Metadata[S]:
        path = self._metadata / name
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
        except (OSError, DeserializationError) as error:
            raise RepositoryDamaged(f"{path} cannot be read ({error}): restore it from its backup") from error
        if not isinstance(metadata.signed, kind):
            raise RepositoryDamaged(
                f"{path} holds {metadata.signed.type} metadata: restore it from its backup"
            )
        return metadata

    def _versions(self, role: str) -> list[int]:
        names = (path.name.split(".")[0] for path in self._metadata.glob(f"*.{role}.json"))
        return sorted(int(name) for name in names if name.isdigit())

    def _store_target(self, target: WantedTarget) -> str:
        path = self._targets / target.served_name
        if path.exists() and path.stat().st_size == len(target.data):
            os.utime(path)  # so that pruning leaves a file that is wanted again
            return ""
        make_folder(path.parent)
        self._write(path, target.data)
        return f"targets/{target.served_name}"

    def _prune(self) -> None:
        chain = self._load()
        if chain.targets is None or chain.snapshot is None:
            return
        current = {"targets": chain.targets.signed.version, "snapshot": chain.snapshot.signed.version}
        for role, version in current.items():
            for old in self._versions(role):
                if old <= version - _KEPT_VERSIONS:
                    (self._metadata / f"{old}.{role}.json").unlink(missing_ok=True)
        named = {
            name for target in chain.targets.signed.targets.values() for name in target.get_prefixed_paths()
        }
        oldest = (self._clock() - _KEPT_TARGET_AGE).timestamp()
        for path in self._targets.rglob("*"):
            unnamed = path.is_file() and path.relative_to(self._targets).as_posix() not in named
            if unnamed and path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._metadata)
        make_folder(self._targets)
        with open(self._base / ".lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_leftovers(self._base)
            yield
