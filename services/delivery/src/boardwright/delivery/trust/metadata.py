"""From the current metadata of a fleet's repository and the files it should name, to the next metadata.

Pure: bytes and a clock reading go in, files to write come out. The rules that hold throughout:

- Versions only ever grow. A role's next version is one more than the version that the current chain names,
  whatever half-finished files lie beside it: the timestamp never named those, so nobody verified them.
- `N.root.json`, `N.targets.json`, `N.snapshot.json` are written first and `timestamp.json` last; its atomic
  replacement is the moment at which clients see the new state (consistent snapshots, specification 6.2).
- A role is signed anew only if what it says changed, its validity runs out, or its signatures no longer
  satisfy the root (after a root rotation). So one cycle without changes writes nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from securesystemslib.signer import Key, Signer, SSlibKey
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from boardwright.delivery.trust.errors import KeysMissing
from boardwright.delivery.trust.policy import TrustPolicy

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


class RoleKeys(Protocol):
    """The keys of one repository, as `metadata` needs them."""

    @property
    def name(self) -> str:
        """The repository's name, for messages."""
        ...

    def create(self, role: str) -> SSlibKey:
        """Make a key for a role."""
        ...

    def signer(self, key: Key) -> Signer | None:
        """The signer of a key, None when its private half is not here."""
        ...


@dataclass(frozen=True, slots=True)
class WantedTarget:
    """A file that the fleet may download, with what is signed about it.

    Attributes:
        path: its name in the repository, for example "index.json".
        data: its bytes.
        custom: what devices check before they use it; a JSON object.
    """

    path: str
    data: bytes
    custom: Mapping[str, Any] = field(default_factory=dict)

    def to_target_file(self) -> TargetFile:
        """Length, SHA-256 and custom data, as targets metadata holds them."""
        target = TargetFile.from_data(self.path, self.data, ["sha256"])
        if self.custom:
            target.unrecognized_fields["custom"] = dict(self.custom)
        return target

    @property
    def served_name(self) -> str:
        """The name under which clients ask for it: the digest stands before the last part (6.2)."""
        folder, slash, name = self.path.rpartition("/")
        return f"{folder}{slash}{self.to_target_file().hashes['sha256']}.{name}"


@dataclass(frozen=True, slots=True)
class Chain:
    """The current metadata: what a client would verify now. None stands for a role never signed."""

    root: Metadata[Root]
    targets: Metadata[Targets] | None = None
    snapshot: Metadata[Snapshot] | None = None
    timestamp: Metadata[Timestamp] | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """The next metadata.

    Attributes:
        chain: what holds once `files` are written.
        files: name and bytes of each metadata file that changed, in the order of writing.
        warnings: what an operator should do soon, in plain sentences.
    """

    chain: Chain
    files: tuple[tuple[str, bytes], ...]
    warnings: tuple[str, ...] = ()


def first_root(keys: RoleKeys, policy: TrustPolicy, now: datetime) -> Metadata[Root]:
    """Version 1 of the root metadata, with new keys for every role.

    Raises:
        KeysMissing: the key store gives no signer for a key that it just made.
    """
    root = Root(expires=_end(policy, "root", now), consistent_snapshot=True)
    for _ in range(policy.root_keys):
        root.add_key(keys.create("root"), "root")
    root.roles["root"].threshold = policy.root_threshold
    for role in ("targets", "snapshot", "timestamp"):
        root.add_key(keys.create(role), role)
    return _sign(Metadata(root), "root", root, keys)


def rotate(
    current: Metadata[Root], role: str, keys: RoleKeys, policy: TrustPolicy, now: datetime
) -> Metadata[Root]:
    """The next root, in which new keys replace all keys of ``role`` (after a theft, or by schedule).

    The caller writes it and then calls `advance`, which signs the other roles anew with the new keys.

    Raises:
        KeysMissing: too few old or new root keys are here to sign.
    """
    following = Metadata.from_bytes(current.to_bytes())
    root: Root = following.signed
    for key_id in list(root.roles[role].keyids):
        root.revoke_key(key_id, role)
    for _ in range(policy.root_keys if role == "root" else 1):
        root.add_key(keys.create(role), role)
    root.version += 1
    root.expires = _end(policy, "root", now)
    signed = _sign(following, "root", root, keys)
    # Clients check a new root against the root they have, too (specification 5.3.4).
    return _sign(signed, "root", current.signed, keys, append=True)


def advance(
    chain: Chain, wanted: Mapping[str, TargetFile], keys: RoleKeys, policy: TrustPolicy, now: datetime
) -> Advance:
    """The next metadata: names exactly the ``wanted`` files (by path) and is valid from ``now`` on.

    Raises:
        KeysMissing: a role must be signed and too few of its keys are here. For the root this is only a
            warning as long as its metadata is valid.
    """
    files: list[tuple[str, bytes]] = []
    root, warnings = _renew_root(chain.root, keys, policy, now)
    if root is not chain.root:
        files.append((f"{root.signed.version}.root.json", root.to_bytes()))
    targets = _next_targets(chain.targets, wanted, root.signed, keys, policy, now)
    if targets is not chain.targets:
        files.append((f"{targets.signed.version}.targets.json", targets.to_bytes()))
    snapshot = _next_snapshot(chain.snapshot, targets.signed.version, root.signed, keys, policy, now)
    if snapshot is not chain.snapshot:
        files.append((f"{snapshot.signed.version}.snapshot.json", snapshot.to_bytes()))
    timestamp = _next_timestamp(chain.timestamp, snapshot, root.signed, keys, policy, now)
    if timestamp is not chain.timestamp:
        files.append(("timestamp.json", timestamp.to_bytes()))
    return Advance(Chain(root, targets, snapshot, timestamp), tuple(files), tuple(warnings))


def next_renewal(chain: Chain, policy: TrustPolicy) -> datetime | None:
    """When the first of the roles is due to be signed again; None when one was never signed."""
    parts = (("targets", chain.targets), ("snapshot", chain.snapshot), ("timestamp", chain.timestamp))
    moments = []
    for role, metadata in parts:
        if metadata is None:
            return None
        moments.append(metadata.signed.expires - policy.of(role).renew_before)
    return min(moments)


def _renew_root(
    current: Metadata[Root], keys: RoleKeys, policy: TrustPolicy, now: datetime
) -> tuple[Metadata[Root], list[str]]:
    expires = current.signed.expires
    if not policy.root.due(expires, now):
        return current, []
    following = Metadata.from_bytes(current.to_bytes())
    following.signed.version += 1
    following.signed.expires = _end(policy, "root", now)
    try:
        return _sign(following, "root", following.signed, keys), []
    except KeysMissing as missing:
        return current, [
            f"the root metadata of {keys.name} ends on {expires:%Y-%m-%d} and must be renewed: {missing}"
        ]


def _next_targets(
    current: Metadata[Targets] | None,
    wanted: Mapping[str, TargetFile],
    root: Root,
    keys: RoleKeys,
    policy: TrustPolicy,
    now: datetime,
) -> Metadata[Targets]:
    files = dict(wanted)
    if current is not None and current.signed.targets == files and _holds(current, root, policy, now):
        return current
    version = 1 if current is None else current.signed.version + 1
    body = Targets(version=version, expires=_end(policy, "targets", now), targets=files)
    return _sign(Metadata(body), "targets", root, keys)


def _next_snapshot(
    current: Metadata[Snapshot] | None,
    targets_version: int,
    root: Root,
    keys: RoleKeys,
    policy: TrustPolicy,
    now: datetime,
) -> Metadata[Snapshot]:
    meta = {"targets.json": MetaFile(version=targets_version)}
    if current is not None and current.signed.meta == meta and _holds(current, root, policy, now):
        return current
    version = 1 if current is None else current.signed.version + 1
    body = Snapshot(version=version, expires=_end(policy, "snapshot", now), meta=meta)
    return _sign(Metadata(body), "snapshot", root, keys)


def _next_timestamp(
    current: Metadata[Timestamp] | None,
    snapshot: Metadata[Snapshot],
    root: Root,
    keys: RoleKeys,
    policy: TrustPolicy,
    now: datetime,
) -> Metadata[Timestamp]:
    data = snapshot.to_bytes()
    meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
    if current is not None and current.signed.snapshot_meta == meta and _holds(current, root, policy, now):
        return current
    version = 1 if current is None else current.signed.version + 1
    body = Timestamp(version=version, expires=_end(policy, "timestamp", now), snapshot_meta=meta)
    return _sign(Metadata(body), "timestamp", root, keys)


def _holds(metadata: Metadata[S], root: Root, policy: TrustPolicy, now: datetime) -> bool:
    """Whether clients go on accepting this metadata for long enough."""
    role = metadata.signed.type
    if policy.of(role).due(metadata.signed.expires, now):
        return False
    try:
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        return False
    return True


def _sign(
    metadata: Metadata[S], role: str, delegator: Root, keys: RoleKeys, *, append: bool = False
) -> Metadata[S]:
    duty = delegator.roles[role]
    signers = [
        signer for key_id in duty.keyids if (signer := keys.signer(delegator.keys[key_id])) is not None
    ]
    if len(signers) < duty.threshold:
        raise KeysMissing(keys.name, role, len(signers), duty.threshold)
    for number, signer in enumerate(signers):
        metadata.sign(signer, append=append or number > 0)
    return metadata


def _end(policy: TrustPolicy, role: str, now: datetime) -> datetime:
    # TUF dates have whole seconds.
    return (now + policy.of(role).validity + timedelta(seconds=1)).replace(microsecond=0)
