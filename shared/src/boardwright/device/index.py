"""FleetIndex: which release each device of a fleet should run.

It is the one file with a fixed name (`index.json`) in a fleet's TUF repository. A device reads it, takes the
first group that it belongs to, and looks for a bundle there whose pin fits it. The bundle's manifest is a
TUF file of its own, signed together with the same pin and release (its custom data), so that neither the
server nor this index can hand a board a file that was signed for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from boardwright.content.canonical import canonical_json, read_json
from boardwright.content.digest import Digest
from boardwright.device.errors import InvalidDocument

INDEX_PATH = "index.json"
SCHEMA = "boardwright.fleet-index.v1"


def bundle_path(manifest: Digest) -> str:
    """The path of a bundle's manifest in the fleet's repository."""
    return f"bundles/{manifest.hex}.json"


@dataclass(frozen=True, slots=True)
class OfferedBundle:
    """A bundle and where it may run.

    Attributes:
        path: the manifest's path in the repository (`bundle_path`).
        pin: the HardwarePin as JSON.
    """

    path: str
    pin: Mapping[str, Any]

    def signed_custom(self, release: str, rollout: str) -> dict[str, Any]:
        """What the repository signs about the manifest's file."""
        return {"pin": dict(self.pin), "release": release, "rollout": rollout}


@dataclass(frozen=True, slots=True)
class GroupOffer:
    """What one deployment group should run.

    Attributes:
        group: the group's name.
        devices: device ids, or None for every device of the fleet.
        rollout: the Rollout that says so.
        release: the Release to run.
        paused: devices that did not install it yet wait; those that did keep it.
        bundles: the release's bundles.
        traceparent: the W3C trace context that the device's report goes on with, "" for none.
    """

    group: str
    devices: tuple[str, ...] | None
    rollout: str
    release: str
    paused: bool
    bundles: tuple[OfferedBundle, ...]
    traceparent: str = ""

    def includes(self, device: str) -> bool:
        """Whether a device (its id) belongs to the group."""
        return self.devices is None or device in self.devices


@dataclass(frozen=True, slots=True)
class FleetIndex:
    """The whole index of a fleet."""

    fleet: str
    groups: tuple[GroupOffer, ...]

    def offer_for(self, device: str) -> GroupOffer | None:
        """What a device (its id) should run; None when nothing was rolled out to it."""
        return next((group for group in self.groups if group.includes(device)), None)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        groups = [
            {
                "group": group.group,
                "devices": None if group.devices is None else sorted(group.devices),
                "rollout": group.rollout,
                "release": group.release,
                "paused": group.paused,
                "traceparent": group.traceparent,
                "bundles": [{"path": bundle.path, "pin": dict(bundle.pin)} for bundle in group.bundles],
            }
            for group in self.groups
        ]
        return canonical_json({"schema": SCHEMA, "fleet": self.fleet, "groups": groups})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an index.

        Raises:
            InvalidDocument: it has another schema, or a member is missing or malformed.
        """
        try:
            document = read_json(data)
            if document["schema"] != SCHEMA:
                raise InvalidDocument(
                    f"the fleet index has the schema {document['schema']!r} and this program reads {SCHEMA}: "
                    f"install a newer agent"
                )
            return cls(str(document["fleet"]), tuple(_group(group) for group in document["groups"]))
        except InvalidDocument:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidDocument(f"the fleet index is malformed: {error!r}") from error


def _group(document: Mapping[str, Any]) -> GroupOffer:
    devices = document["devices"]
    paused = document["paused"]
    if not isinstance(paused, bool) or not (devices is None or isinstance(devices, list)):
        raise TypeError("devices must be a list or null, paused true or false")
    return GroupOffer(
        group=str(document["group"]),
        devices=None if devices is None else tuple(str(device) for device in devices),
        rollout=str(document["rollout"]),
        release=str(document["release"]),
        paused=paused,
        traceparent=str(document.get("traceparent", "")),
        bundles=tuple(OfferedBundle(str(item["path"]), dict(item["pin"])) for item in document["bundles"]),
    )
