"""Brings the signed repositories to what the records say, and keeps them signed.

The records decide, the repositories follow: after every change, at every start, and by a timer. A publication
that failed (disk full, keys away) is therefore made up for by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from datetime import UTC, datetime

from boardwright.content.digest import Digest
from boardwright.delivery.domain.resources import BundleRecord, FleetKey, Rollout
from boardwright.delivery.domain.rollouts import index_of
from boardwright.delivery.errors import signing_unavailable
from boardwright.delivery.ports import FleetRepositories, Records, Store
from boardwright.delivery.trust.errors import TrustError
from boardwright.delivery.trust.metadata import WantedTarget
from boardwright.delivery.trust.repository import Publication
from boardwright.device.index import INDEX_PATH, bundle_path

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 3600.0
_RETRY_SECONDS = 30.0


class Publisher:
    """Publishes fleets, one at a time each."""

    def __init__(self, store: Store, repositories: FleetRepositories) -> None:
        self._store = store
        self._repositories = repositories
        self._turns: defaultdict[FleetKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._warned: set[str] = set()

    async def publish(self, fleet: FleetKey) -> Publication:
        """Make a fleet's repository say what the records say; writes nothing when it does already.

        Raises:
            Unavailable: SIGNING_UNAVAILABLE; `keep_signed` will try again.
        """
        async with self._turns[fleet]:
            rollout, bundles = await self._store.read(lambda records: _offer(records, fleet))
            index = index_of(fleet, rollout, bundles)
            wanted = [WantedTarget(INDEX_PATH, index.to_bytes())]
            if rollout is not None:
                wanted.extend(_target(bundle, rollout) for bundle in bundles)
            try:
                publication = await self._repositories.publish(fleet, wanted)
            except (TrustError, OSError) as error:
                _log.error("%s cannot be published: %s", fleet.name, error)
                raise signing_unavailable(str(error)) from error
        self._warn(publication)
        return publication

    async def keep_signed(self) -> None:
        """Publish every fleet now, and again whenever something is due, for ever."""
        while True:
            await asyncio.sleep(await self.publish_all())

    async def publish_all(self) -> float:
        """Publish every fleet; returns after how many seconds the next signature is due."""
        pause = _LONGEST_PAUSE_SECONDS
        try:
            fleets = await self._store.read(lambda records: records.every_fleet())
        except Exception as error:  # the database may be away for a while; this loop must outlive it
            _log.error("the fleets cannot be listed, so nothing is signed: %s", error)
            return _RETRY_SECONDS
        for fleet in fleets:
            try:
                publication = await self.publish(fleet)
            except Exception as error:  # one fleet's trouble must not keep the others from being signed
                _log.error("%s was not signed: %s", fleet.name, error)
                pause = min(pause, _RETRY_SECONDS)
                continue
            due = (publication.renew_at - datetime.now(UTC)).total_seconds()
            pause = min(pause, max(due, 1.0))
        return pause

    def _warn(self, publication: Publication) -> None:
        for warning in publication.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                _log.warning(warning)


def _offer(records: Records, fleet: FleetKey) -> tuple[Rollout | None, list[BundleRecord]]:
    rollout = records.offered(fleet)
    return rollout, [] if rollout is None else records.bundles_of(fleet.project, rollout.release)


def _target(bundle: BundleRecord, rollout: Rollout) -> WantedTarget:
    custom = {"pin": dict(bundle.pin), "release": bundle.release, "rollout": rollout.name}
    return WantedTarget(bundle_path(Digest.parse(bundle.digest)), bundle.manifest.encode(), custom)


def now_us() -> int:
    """The time in microseconds since 1970."""
    return time.time_ns() // 1000
