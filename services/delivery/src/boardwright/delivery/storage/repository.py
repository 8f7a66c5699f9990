"""The records on a `Database`: implements `ports.Store` and `ports.Records`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from boardwright.database import Database, Row, Transaction, requests
from boardwright.database.filters import Field
from boardwright.database.listing import Listing, Page
from boardwright.database.outbox import Outbox, newest_cursor
from boardwright.delivery.domain.resources import (
    AuditEvent,
    BundleRecord,
    Device,
    DeviceKey,
    DeviceState,
    Fleet,
    FleetKey,
    Report,
    Rollout,
    RolloutCounts,
    RolloutState,
    StoredToken,
)
from boardwright.delivery.ports import Intent, Records
from boardwright.delivery.storage import rows

T = TypeVar("T")

_KEPT_REPORTS = 500
_TIME = Field("create_us", "time")

_FLEETS = Listing("fleets", "fleet", {"model": Field("model"), "create_time": _TIME}, descending=False)
_DEVICES = Listing(
    "devices",
    "device",
    {
        "state": Field("state", values=tuple(DeviceState.__members__)),
        "board": Field("board"),
        "release": Field("release"),
        "rollout": Field("rollout"),
        "install_time": Field("install_us", "time"),
        "last_seen_time": Field("last_seen_us", "time"),
    },
    descending=False,
)
_REPORTS = Listing("reports", "number", {"kind": Field("kind"), "create_time": _TIME})
_BUNDLES = Listing(
    "bundles", "digest", {"release": Field("release"), "board": Field("board")}, descending=False
)
_ROLLOUTS = Listing(
    "rollouts",
    "sequence",
    {
        "fleet": Field("fleet_name"),
        "state": Field("state", values=tuple(RolloutState.__members__)),
        "release": Field("release"),
        "create_time": _TIME,
    },
)
_AUDIT = Listing(
    "audit_events",
    "id",
    {"actor": Field("actor"), "method": Field("method"), "resource": Field("resource"), "create_time": _TIME},
)
_DEVICE = "project = :project AND fleet = :fleet AND device = :device"


class SqlStore:
    """Transactions on a database, with the event log that watchers follow."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def write(self, change: Callable[[Records], T], /, *, key: str = "") -> T:
        """See the port."""
        return await self._database.write(lambda tx: change(SqlRecords(tx, self._outbox)), key=key)

    async def read(self, look: Callable[[Records], T], /) -> T:
        """See the port."""
        return await self._database.read(lambda tx: look(SqlRecords(tx, self._outbox)))

    async def watch(self, subject: str) -> AsyncIterator[None]:
        """See the port."""
        cursor = await self._database.read(newest_cursor)
        yield
        async for event in self._outbox.watch(cursor, subject_prefix=subject):
            if event.subject == subject:
                yield


class SqlRecords:
    """The records inside one transaction; what the methods do is said at the port."""

    def __init__(self, tx: Transaction, outbox: Outbox) -> None:
        self._tx = tx
        self._outbox = outbox

    def recall(self, actor: str, intent: Intent) -> str | None:
        made = requests.recall(self._tx, actor, intent.method, intent.request_id, intent.fingerprint)
        return None if made is None else made.decode()

    def remember(self, actor: str, intent: Intent, made: str) -> None:
        requests.remember(
            self._tx, actor, intent.method, intent.request_id, intent.fingerprint, made.encode()
        )

    def add_audit_event(self, event: AuditEvent) -> None:
        self._tx.execute(
            "INSERT INTO audit_events (project, actor, service, method, resource, reason, create_us)"
            " VALUES (:project, :actor, :service, :method, :resource, :reason, :now)",
            project=event.project,
            actor=event.actor,
            service=event.service,
            method=event.method,
            resource=event.resource,
            reason=event.reason,
            now=event.create_us,
        )

    def list_audit_events(self, project: str, page: Page) -> tuple[list[AuditEvent], str]:
        return _AUDIT.read(self._tx, page, rows.to_audit_event, {"project": project})

    def announce(self, subject: str, kind: str) -> None:
        self._outbox.append(self._tx, subject, kind, {})

    def add_fleet(self, fleet: Fleet) -> bool:
        columns = {
            "project": fleet.key.project,
            "fleet": fleet.key.fleet,
            "model": fleet.model,
            "stage": fleet.stage,
            "description": fleet.description,
            "create_us": fleet.create_us,
        }
        return self._insert("fleets", columns)

    def fleet(self, key: FleetKey) -> Fleet | None:
        row = self._tx.one("SELECT * FROM fleets WHERE project = :project AND fleet = :fleet", **_scope(key))
        return None if row is None else self._to_fleet(row)

    def list_fleets(self, project: str, page: Page) -> tuple[list[Fleet], str]:
        return _FLEETS.read(self._tx, page, self._to_fleet, {"project": project})

    def every_fleet(self) -> list[FleetKey]:
        found = self._tx.all("SELECT project, fleet FROM fleets ORDER BY project, fleet")
        return [rows.fleet_key(row) for row in found]

    def _to_fleet(self, row: Row) -> Fleet:
        key = rows.fleet_key(row)
        counted = self._tx.one(
            "SELECT COUNT(*) AS n FROM devices"
            " WHERE project = :project AND fleet = :fleet AND state <> :revoked",
            **_scope(key),
            revoked=DeviceState.REVOKED.value,
        )
        rollout = self.offered(key)
        return rows.to_fleet(
            row, 0 if counted is None else counted["n"], "" if rollout is None else rollout.release
        )

    def add_token(self, token: StoredToken, creator: str, now_us: int) -> None:
        columns = {
            "token": token.token_id,
            **_scope(token.fleet),
            "secret_hash": token.secret_hash,
            "root_version": token.root_version,
            "expire_us": token.expire_us,
            "public_key": token.public_key,
            "device": token.device,
            "creator": creator,
            "create_us": now_us,
        }
        self._insert("enrolment_tokens", columns)

    def token(self, token_id: str) -> StoredToken | None:
        row = self._tx.one("SELECT * FROM enrolment_tokens WHERE token = :token", token=token_id)
        return None if row is None else rows.to_token(row)

    def use_token(self, token: StoredToken) -> None:
        self._tx.execute(
            "UPDATE enrolment_tokens SET public_key = :public_key, device = :device WHERE token = :token",
            public_key=token.public_key,
            device=token.device,
            token=token.token_id,
        )

    def put_device(self, device: Device) -> None:
        columns = rows.device_columns(device)
        changing = [name for name in columns if name not in ("project", "fleet", "device")]
        self._tx.execute(
            f"INSERT INTO devices ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
            " ON CONFLICT (project, fleet, device) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in changing),
            **columns,
        )

    def device(self, key: DeviceKey) -> Device | None:
        row = self._tx.one(f"SELECT * FROM devices WHERE {_DEVICE}", **_device_scope(key))
        return None if row is None else rows.to_device(row)

    def devices_of(self, fleet: FleetKey) -> list[Device]:
        found = self._tx.all(
            "SELECT * FROM devices WHERE project = :project AND fleet = :fleet", **_scope(fleet)
        )
        return [rows.to_device(row) for row in found]

    def list_devices(self, fleet: FleetKey, page: Page) -> tuple[list[Device], str]:
        return _DEVICES.read(self._tx, page, rows.to_device, _scope(fleet))

    def take_nonce(self, device: DeviceKey, nonce: str, now_us: int, keep_until_us: int) -> bool:
        scope = _device_scope(device)
        self._tx.execute(f"DELETE FROM nonces WHERE {_DEVICE} AND keep_until_us < :now", **scope, now=now_us)
        return self._insert("nonces", {**scope, "nonce": nonce, "keep_until_us": keep_until_us})

    def add_report(self, report: Report) -> None:
        scope = _device_scope(report.key)
        newest = self._tx.one(f"SELECT MAX(number) AS n FROM reports WHERE {_DEVICE}", **scope)
        number = 1 + ((newest["n"] or 0) if newest is not None else 0)
        columns = {
            **scope,
            "number": number,
            "kind": report.kind,
            "release": report.release,
            "bundle_digest": report.bundle_digest,
            "reason": report.reason,
            "message": report.message,
            "details": report.details,
            "create_us": report.create_us,
            "traceparent": report.traceparent,
        }
        self._insert("reports", columns)
        self._tx.execute(
            f"DELETE FROM reports WHERE {_DEVICE} AND number <= :oldest",
            **scope,
            oldest=number - _KEPT_REPORTS,
        )

    def list_reports(self, device: DeviceKey, page: Page) -> tuple[list[Report], str]:
        return _REPORTS.read(self._tx, page, rows.to_report, _device_scope(device))

    def put_bundle(self, bundle: BundleRecord) -> None:
        if not self._insert("bundles", rows.bundle_columns(bundle)):
            return
        for file in bundle.files:
            columns = {
                "project": bundle.project,
                "digest": file.digest,
                "bundle": bundle.digest,
                "size_bytes": file.size_bytes,
            }
            self._insert("bundle_files", columns)

    def bundles_of(self, project: str, release: str) -> list[BundleRecord]:
        found = self._tx.all(
            "SELECT * FROM bundles WHERE project = :project AND release = :release ORDER BY artifact, digest",
            project=project,
            release=release,
        )
        return [rows.to_bundle(row) for row in found]

    def list_bundles(self, project: str, page: Page) -> tuple[list[BundleRecord], str]:
        return _BUNDLES.read(self._tx, page, rows.to_bundle, {"project": project})

    def blob_size(self, fleet: FleetKey, digest: str) -> int | None:
        row = self._tx.one(
            "SELECT f.size_bytes AS size FROM bundle_files f"
            " JOIN bundles b ON b.project = f.project AND b.digest = f.bundle"
            " JOIN rollouts r ON r.project = b.project AND r.release = b.release"
            " WHERE f.project = :project AND f.digest = :digest AND r.fleet = :fleet LIMIT 1",
            **_scope(fleet),
            digest=digest,
        )
        return None if row is None else int(row["size"])

    def next_sequence(self, project: str) -> int:
        row = self._tx.one(
            "SELECT MAX(sequence) AS n FROM rollouts WHERE project = :project", project=project
        )
        return 1 + ((row["n"] or 0) if row is not None else 0)

    def add_rollout(self, rollout: Rollout) -> bool:
        return self._insert("rollouts", rows.rollout_columns(rollout))

    def update_rollout(self, rollout: Rollout) -> None:
        self._tx.execute(
            "UPDATE rollouts SET state = :state, state_reason = :state_reason, update_us = :update_us,"
            " revision = :revision WHERE project = :project AND rollout = :rollout",
            state=rollout.state.value,
            state_reason=rollout.state_reason,
            update_us=rollout.update_us,
            revision=rollout.revision,
            project=rollout.project,
            rollout=rollout.rollout,
        )

    def rollout(self, project: str, rollout: str) -> Rollout | None:
        row = self._tx.one(
            "SELECT * FROM rollouts WHERE project = :project AND rollout = :rollout",
            project=project,
            rollout=rollout,
        )
        return None if row is None else rows.to_rollout(row)

    def count(self, rollout: Rollout) -> RolloutCounts:
        row = self._tx.one(
            "SELECT COUNT(*) AS n, COALESCE(SUM(CASE WHEN release = :release THEN 1 ELSE 0 END), 0) AS done,"
            " COALESCE(SUM(CASE WHEN release <> :release AND refusal_rollout = :rollout"
            " THEN 1 ELSE 0 END), 0) AS failed"
            " FROM devices WHERE project = :project AND fleet = :fleet AND state <> :revoked",
            **_scope(rollout.fleet),
            release=rollout.release,
            rollout=rollout.name,
            revoked=DeviceState.REVOKED.value,
        )
        if row is None:
            return RolloutCounts()
        done, failed = int(row["done"]), int(row["failed"])
        return RolloutCounts(int(row["n"]) - done - failed, done, failed)

    def offered(self, fleet: FleetKey) -> Rollout | None:
        row = self._tx.one(
            "SELECT * FROM rollouts WHERE project = :project AND fleet = :fleet AND state <> :cancelled"
            " ORDER BY sequence DESC LIMIT 1",
            **_scope(fleet),
            cancelled=RolloutState.CANCELLED.value,
        )
        return None if row is None else rows.to_rollout(row)

    def list_rollouts(self, project: str, page: Page) -> tuple[list[Rollout], str]:
        return _ROLLOUTS.read(self._tx, page, rows.to_rollout, {"project": project})

    def _insert(self, table: str, columns: Mapping[str, Any]) -> bool:
        """Insert a row; False if its key is taken."""
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        sql = f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING"
        return self._tx.execute(sql, **columns) == 1


def _scope(fleet: FleetKey) -> dict[str, str]:
    return {"project": fleet.project, "fleet": fleet.fleet}


def _device_scope(device: DeviceKey) -> dict[str, str]:
    return {**_scope(device.fleet), "device": device.device}
