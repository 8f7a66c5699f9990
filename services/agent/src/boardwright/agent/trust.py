"""What the fleet's signed metadata says, read through `tuf.ngclient`, with failures in plain words.

The device trusts The Update Framework metadata and not the server: whatever answers the requests can at
worst keep an update away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.ngclient import FetcherInterface, TargetFile, Updater

from boardwright.agent.errors import AgentError, Refused, Unavailable
from boardwright.agent.home import Home, Identity
from boardwright.agent.http import Http
from boardwright.device.bundle import Bundle
from boardwright.device.errors import InvalidDocument
from boardwright.device.index import INDEX_PATH, FleetIndex, GroupOffer, OfferedBundle

_CLOCK_TOLERANCE = timedelta(days=1)
"""A clock further behind the server's than this cannot judge whether metadata has ended."""

_CLOCK_STEP_BACK = timedelta(hours=1)
_SET_CLOCK = "set the clock (NTP), because with a clock that is behind, expired metadata looks valid"
_LARGEST_TIMESTAMP_BYTES = 16384


class HttpFetcher(FetcherInterface):
    """Fetches metadata and targets through the agent's own connections."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self.timestamp = b""
        """The last timestamp metadata as it came, verified or not; only explains failures."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        status, _, chunks = self._http.stream("GET", url.removeprefix(f"{self._http.server}/"))
        if status >= 400:
            for _ in chunks:
                break
            raise DownloadHTTPError(f"{url} answered with HTTP {status}", status)
        return self._remember(chunks) if url.endswith("/timestamp.json") else chunks

    def _remember(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        self.timestamp = b""
        for chunk in chunks:
            if len(self.timestamp) < _LARGEST_TIMESTAMP_BYTES:
                self.timestamp += chunk
            yield chunk


@dataclass(frozen=True, slots=True)
class SignedBundle:
    """A bundle's manifest, verified.

    Attributes:
        manifest: its bytes.
        bundle: what it says.
        digest: the manifest's SHA-256 in hexadecimal.
        pin: the HardwarePin that was signed with it.
    """

    manifest: bytes
    bundle: Bundle
    digest: str
    pin: dict[str, Any]


class FleetTrust:
    """The signed state of the device's fleet. One object per check: `refresh` first, then read."""

    def __init__(
        self, home: Home, identity: Identity, http: Http, fetcher: HttpFetcher | None = None
    ) -> None:
        self._fetcher = fetcher or HttpFetcher(http)
        self._home = home
        self._http = http
        base = f"{identity.server}/{identity.repository}"
        self._targets = home.trust / "targets"
        self._targets.mkdir(parents=True, exist_ok=True)
        try:
            self._updater = Updater(
                str(home.trust),
                f"{base}/metadata",
                str(self._targets),
                f"{base}/targets",
                self._fetcher,
                bootstrap=home.root_path.read_bytes(),
            )
        except (RepositoryError, ValueError, FileNotFoundError) as error:
            raise Refused(
                "HOME_DAMAGED",
                f"{home.root_path} cannot be used ({error}): enrol with a new token and --again",
            ) from error

    def refresh(self) -> None:
        """Fetch and verify the newest metadata.

        Raises:
            Refused: CLOCK_WRONG, METADATA_EXPIRED, METADATA_ROLLED_BACK, METADATA_UNSIGNED, METADATA_CHANGED.
            Unavailable: SERVER_UNREACHABLE, REPOSITORY_MISSING, SERVER_ERROR.
            OSError: the disk is full or fails.
        """
        now = datetime.now(UTC)
        floor = datetime.fromtimestamp(self._home.state().clock_floor_us / 1e6, UTC)
        if now < floor - _CLOCK_STEP_BACK:
            raise Refused(
                "CLOCK_WRONG",
                f"this device's clock says {_day(now)}, but it has already seen {_day(floor)}: {_SET_CLOCK}",
            )
        with self._explained():
            self._updater.refresh()
        ahead = self._http.clock.ahead_seconds
        if ahead is not None and ahead > _CLOCK_TOLERANCE.total_seconds():
            raise Refused(
                "CLOCK_WRONG",
                f"this device's clock says {_day(now)}, the server's {_day(now, ahead)}: {_SET_CLOCK}",
            )
        # A clock that ran ahead of the server's and was set since must not keep the device waiting.
        seen_us = int((now.timestamp() + min(0.0, ahead or 0.0)) * 1e6)
        if seen_us > (floor + _CLOCK_STEP_BACK).timestamp() * 1e6:  # not always: flash memory wears out
            self._home.save_state(clock_floor_us=seen_us)

    def index(self) -> FleetIndex:
        """Which release each device should run.

        Raises:
            Refused: METADATA_CHANGED, INDEX_INVALID.
            Unavailable: the server does not give the file.
        """
        target = self._target(INDEX_PATH)
        if target is None:
            return FleetIndex("", ())
        try:
            return FleetIndex.parse(self._read(target))
        except InvalidDocument as error:
            raise Refused("INDEX_INVALID", str(error)) from error

    def bundle(self, offer: GroupOffer, offered: OfferedBundle) -> SignedBundle:
        """The manifest of an offered bundle, if pin and release were signed with it as the index says.

        Raises:
            Refused: BUNDLE_NOT_SIGNED, BUNDLE_CHANGED, BUNDLE_INVALID.
            Unavailable: the server does not give the file.
        """
        target = self._target(offered.path)
        if target is None:
            raise Refused(
                "BUNDLE_NOT_SIGNED",
                f"the fleet's index offers {offered.path}, which its signed metadata does not name",
            )
        signed = target.unrecognized_fields.get("custom") or {}
        if signed.get("pin") != dict(offered.pin) or signed.get("release") != offer.release:
            raise Refused(
                "BUNDLE_NOT_SIGNED",
                f"{offered.path} was signed for another board or release than the fleet's index says",
            )
        data = self._read(target)
        try:
            bundle = Bundle.parse(data)
        except InvalidDocument as error:
            raise Refused("BUNDLE_INVALID", str(error)) from error
        if bundle.release != offer.release:
            raise Refused("BUNDLE_INVALID", f"the bundle is of {bundle.release}, not of {offer.release}")
        return SignedBundle(data, bundle, target.hashes["sha256"], dict(offered.pin))

    def _target(self, path: str) -> TargetFile | None:
        with self._explained():
            return self._updater.get_targetinfo(path)

    def _read(self, target: TargetFile) -> bytes:
        with self._explained():
            path = self._updater.find_cached_target(target) or self._updater.download_target(target)
            return Path(path).read_bytes()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ExpiredMetadataError as error:
            raise self._expired(error) from error
        except (RepositoryError, DownloadLengthMismatchError, ValueError) as error:
            raise _untrusted(error) from error
        except DownloadHTTPError as error:
            raise _http_failure(error) from error
        except DownloadError as error:
            cause = error.__cause__
            if isinstance(cause, AgentError):
                raise cause from error
            raise Unavailable("SERVER_UNREACHABLE", f"{self._http.server}: {error}") from error

    def _expired(self, error: ExpiredMetadataError) -> Refused:
        now = datetime.now(UTC)
        ahead = self._http.clock.ahead_seconds
        expires = self._offered_expiry()
        if ahead is not None and expires is not None and now + timedelta(seconds=ahead) < expires:
            return Refused(
                "CLOCK_WRONG",
                f"this device's clock says {_day(now)}, the server's {_day(now, ahead)}; by this clock "
                f"the fleet's metadata, valid until {_day(expires)}, has ended: set the clock (NTP)",
            )
        until = f" on {_day(expires)}" if expires is not None else ""
        return Refused(
            "METADATA_EXPIRED",
            f"the fleet's metadata has ended{until} ({error}): either the delivery service has not signed "
            f"it again, or somebody answers with an old copy. The device keeps what it runs",
        )

    def _offered_expiry(self) -> datetime | None:
        """When the timestamp that the server gave ends. Only explains; nothing is decided by it."""
        try:
            expires = json.loads(self._fetcher.timestamp)["signed"]["expires"]
            return datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except (ValueError, KeyError, TypeError):
            return None


def _untrusted(error: Exception) -> Refused:
    if isinstance(error, BadVersionNumberError):
        return Refused(
            "METADATA_ROLLED_BACK",
            f"the server offers older metadata than this device has already seen ({error}): somebody replays "
            f"an old copy, or the delivery service was restored from an old backup. "
            f"The device keeps what it runs",
        )
    if isinstance(error, UnsignedMetadataError):
        return Refused(
            "METADATA_UNSIGNED",
            f"the fleet's metadata is not signed by the keys that this device trusts ({error}): if the fleet "
            f"was set up anew, enrol the device again; else somebody else answers in the server's name",
        )
    if isinstance(error, (LengthOrHashMismatchError, DownloadLengthMismatchError)):
        return Refused(
            "METADATA_CHANGED",
            f"a file of the fleet is not the one that was signed ({error}): "
            f"it was changed or cut short on the way. The device keeps what it runs",
        )
    return Refused("METADATA_INVALID", f"the fleet's metadata cannot be used: {error}")


def _http_failure(error: DownloadHTTPError) -> AgentError:
    if error.status_code in (403, 404):
        return Unavailable(
            "REPOSITORY_MISSING",
            f"the server does not have the fleet's files now ({error}): was the fleet removed?",
        )
    return Unavailable("SERVER_ERROR", f"{error}: try again later")


def _day(moment: datetime, ahead_seconds: float = 0.0) -> str:
    return f"{moment + timedelta(seconds=ahead_seconds):%Y-%m-%d %H:%M} UTC"
