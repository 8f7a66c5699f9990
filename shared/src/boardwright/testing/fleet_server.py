"""A fleet's server for tests of devices: a TUF repository in memory behind a real HTTP server on loopback.

It speaks the device protocol (services/delivery/README.md) with real signatures, and can misbehave on demand:
cut connections, flip bytes, show an old state, live in another time. It is written against the documents in
`boardwright.device` and python-tuf alone, so it also checks the delivery service's side of them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from boardwright.content.digest import Digest
from boardwright.device import signing
from boardwright.device.bundle import Bundle
from boardwright.device.index import INDEX_PATH, FleetIndex, GroupOffer, OfferedBundle, bundle_path
from boardwright.device.tokens import EnrolmentToken

FLEET = "projects/default/fleets/line-1"
ROLES = ("root", "targets", "snapshot", "timestamp")


class FleetRepositorySimulator:
    """A TUF repository in memory; every `publish` is one consistent snapshot.

    Attributes:
        files: what is served, by name ("metadata/timestamp.json").
        now: the time that expiry is counted from; tests may set it.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.version = 0
        self.signers = {role: CryptoSigner.generate_ed25519() for role in ROLES}
        self.root = self._make_root(1)

    def _make_root(self, version: int) -> bytes:
        root = Root(version=version, expires=self.now + timedelta(days=365), consistent_snapshot=True)
        for role, signer in self.signers.items():
            root.add_key(signer.public_key, role)
        data = self._signed(Metadata(root), "root")
        self.files[f"metadata/{version}.root.json"] = data
        return data

    def publish(
        self, targets: Mapping[str, tuple[bytes, Mapping[str, Any]]], validity_days: float = 7
    ) -> None:
        """Name exactly these files: path to (bytes, custom data)."""
        self.version += 1
        expires = self.now + timedelta(days=validity_days)
        named: dict[str, TargetFile] = {}
        for path, (data, custom) in targets.items():
            target = TargetFile.from_data(path, data, ["sha256"])
            if custom:
                target.unrecognized_fields["custom"] = dict(custom)
            named[path] = target
            self.files[f"targets/{target.get_prefixed_paths()[0]}"] = data
        body = Targets(version=self.version, expires=expires, targets=named)
        self.files[f"metadata/{self.version}.targets.json"] = self._signed(Metadata(body), "targets")
        snapshot = Snapshot(
            version=self.version, expires=expires, meta={"targets.json": MetaFile(version=self.version)}
        )
        self.files[f"metadata/{self.version}.snapshot.json"] = self._signed(Metadata(snapshot), "snapshot")
        timestamp = Timestamp(
            version=self.version, expires=expires, snapshot_meta=MetaFile(version=self.version)
        )
        self.files["metadata/timestamp.json"] = self._signed(Metadata(timestamp), "timestamp")

    def _signed(self, metadata: Metadata[Any], role: str) -> bytes:
        metadata.sign(self.signers[role])
        return metadata.to_bytes()


@dataclass
class Fault:
    """How the server misbehaves.

    Attributes:
        cut_blobs_after: blob answers end after so many bytes, None for never. Counted per answer.
        changed_blobs: digests whose bytes come with one bit flipped.
        clock_offset_seconds: how far the server's clock is off.
        refuse: path prefix to HTTP status.
        slow_bytes_per_second: 0 for as fast as it goes.
    """

    cut_blobs_after: int | None = None
    changed_blobs: set[str] = field(default_factory=set)
    clock_offset_seconds: float = 0.0
    refuse: dict[str, int] = field(default_factory=dict)
    slow_bytes_per_second: int = 0


class FleetServer:
    """A running server. Use it as a context manager.

    Attributes:
        repository: the fleet's signed state.
        blobs: content by "sha256:…".
        reports: every report accepted, oldest first.
        proxied: the addresses asked for when it was used as a proxy.
        requests: (method, path, Range header) of everything asked, oldest first.
        fault: how it misbehaves now.
    """

    def __init__(self) -> None:
        self.repository = FleetRepositorySimulator()
        self.blobs: dict[str, bytes] = {}
        self.reports: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.proxied: list[str] = []
        self.fault = Fault()
        self.devices: dict[str, bytes] = {}
        self.tokens: dict[str, bytes | None] = {}
        self._nonces: set[tuple[str, str]] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FleetServer:
        self.publish()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def now(self) -> float:
        """The server's idea of the time."""
        return time.time() + self.fault.clock_offset_seconds

    def token(self, number: int = 1) -> str:
        """A new one-time token."""
        text = str(EnrolmentToken(f"token-{number}", "s" * 32, Digest.of(self.repository.root)))
        self.tokens[text] = None
        return text

    def add_blob(self, data: bytes) -> Digest:
        """Hold a blob; returns its digest."""
        digest = Digest.of(data)
        self.blobs[str(digest)] = data
        return digest

    def publish(
        self, *offers: tuple[Bundle, Mapping[str, Any]], rollout: str = "rollouts/1", **options: Any
    ) -> None:
        """Offer bundles (with their pins) of one release to the whole fleet; nothing when there are none.

        Options: `paused`, `validity_days`.
        """
        targets: dict[str, tuple[bytes, Mapping[str, Any]]] = {}
        offered: list[OfferedBundle] = []
        for bundle, pin in offers:
            data = bundle.to_manifest().to_bytes()
            item = OfferedBundle(bundle_path(Digest.of(data)), pin)
            targets[item.path] = (data, item.signed_custom(bundle.release, rollout))
            offered.append(item)
        groups: tuple[GroupOffer, ...] = ()
        if offers:
            paused = bool(options.get("paused", False))
            groups = (GroupOffer("all", None, rollout, offers[0][0].release, paused, tuple(offered)),)
        targets[INDEX_PATH] = (FleetIndex(FLEET, groups).to_bytes(), {})
        self.repository.publish(targets, options.get("validity_days", 7))

    def state(self) -> dict[str, bytes]:
        """The served files as they are now, to go back to them later."""
        return deepcopy(self.repository.files)

    # What the requests do. Each returns status and body.

    def enroll(self, body: bytes) -> tuple[int, bytes]:
        """POST /device/v1/enroll."""
        request = json.loads(body)
        key = signing.decode(request["public_key"])
        text = signing.enrolment_message(
            request["token"], request["device_id"], key, request["host"], request["agent_version"]
        )
        if not signing.verify(key, text, signing.decode(request["signature"])):
            return _problem(401, "SIGNATURE_INVALID", "the signature is not the key's")
        if request["token"] not in self.tokens:
            return _problem(403, "TOKEN_INVALID", "no such token: ask the fleet's operator for a new one")
        if self.tokens[request["token"]] not in (None, key):
            return _problem(403, "TOKEN_USED", "another device used this token: ask for a new one")
        self.tokens[request["token"]] = key
        device = f"{FLEET}/devices/{request['device_id']}"
        self.devices[device] = key
        answer = {
            "device": device,
            "tuf_root": signing.encode(self.repository.root),
            "tuf_path": f"tuf/{FLEET}",
            "server_time": datetime.fromtimestamp(self.now, UTC).isoformat(),
        }
        return 200, json.dumps(answer).encode()

    def report(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """POST /device/v1/report."""
        refused = self._check(
            headers, lambda device, at, nonce: signing.report_message(device, at, nonce, body)
        )
        if refused is not None:
            return refused
        self.reports.append(json.loads(body))
        return 200, json.dumps({"poll_seconds": 1}).encode()

    def blob(self, digest: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """GET /device/v1/blobs/{digest}, whole."""
        refused = self._check(
            headers, lambda device, at, nonce: signing.download_message(device, at, nonce, digest)
        )
        if refused is not None:
            return refused
        if digest not in self.blobs:
            return _problem(404, "BLOB_NOT_FOUND", "not part of a bundle of this fleet")
        data = self.blobs[digest]
        if digest in self.fault.changed_blobs:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return 200, data

    def _check(
        self, headers: Mapping[str, str], text: Callable[[str, int, str], bytes]
    ) -> tuple[int, bytes] | None:
        device = headers.get(signing.DEVICE_HEADER, "")
        nonce = headers.get(signing.NONCE_HEADER, "")
        timestamp = int(headers.get(signing.TIMESTAMP_HEADER, "0"))
        if device not in self.devices:
            return _problem(404, "DEVICE_NOT_FOUND", "no such device: enrol it again")
        if abs(timestamp - self.now) > signing.ALLOWED_SKEW_SECONDS:
            told = datetime.fromtimestamp(self.now, UTC).isoformat()
            return _problem(401, "TIMESTAMP_SKEWED", "the device's clock is off", server_time=told)
        signature = signing.decode(headers.get(signing.SIGNATURE_HEADER, ""))
        if not signing.verify(self.devices[device], text(device, timestamp, nonce), signature):
            return _problem(401, "SIGNATURE_INVALID", "the signature is not the device's")
        if (device, nonce) in self._nonces:
            return _problem(401, "SIGNATURE_INVALID", "this request was made before")
        self._nonces.add((device, nonce))
        return None


def _problem(status: int, reason: str, detail: str, **more: str) -> tuple[int, bytes]:
    return status, json.dumps(
        {"title": detail, "status": status, "detail": detail, "reason": reason, **more}
    ).encode()


def _handler(server: FleetServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def parse_request(self) -> bool:
            parsed = super().parse_request()
            if parsed and self.path.startswith("http://"):  # as a proxy is asked
                server.proxied.append(self.path)
                self.path = "/" + self.path.split("/", 3)[3]
            return parsed

        def do_GET(self) -> None:
            if self._refused():
                return
            if self.path.startswith(f"/tuf/{FLEET}/"):
                data = server.repository.files.get(self.path.removeprefix(f"/tuf/{FLEET}/"))
                self._answer(*((404, b"") if data is None else (200, data)))
            elif self.path.startswith(f"{signing.BLOBS_PATH}/"):
                self._blob(self.path.removeprefix(f"{signing.BLOBS_PATH}/"))
            else:
                self._answer(404, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self._refused():
                return
            if self.path == signing.ENROLL_PATH:
                self._answer(*server.enroll(body))
            elif self.path == signing.REPORT_PATH:
                self._answer(*server.report(body, dict(self.headers)))
            else:
                self._answer(404, b"")

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(server.now, usegmt=True)

        def log_message(self, *arguments: object) -> None:
            return

        def _refused(self) -> bool:
            server.requests.append((self.command, self.path, self.headers.get("Range", "")))
            for prefix, status in server.fault.refuse.items():
                if self.path.startswith(prefix):
                    self._answer(status, b"<html>no</html>")
                    return True
            return False

        def _blob(self, digest: str) -> None:
            status, data = server.blob(digest, dict(self.headers))
            begin = 0
            wanted = self.headers.get("Range", "")
            if status == 200 and wanted.startswith("bytes="):
                begin, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            cut = server.fault.cut_blobs_after
            self._answer(status, data[begin:], cut if status < 400 else None)

        def _answer(self, status: int, data: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            sent = data if cut is None else data[:cut]
            try:
                self._write(sent, slow=cut is not None or self.path.startswith(signing.BLOBS_PATH))
            except OSError:
                self.close_connection = True
            if len(sent) < len(data):
                self.close_connection = True

        def _write(self, data: bytes, *, slow: bool) -> None:
            rate = server.fault.slow_bytes_per_second
            if not rate or not slow:
                self.wfile.write(data)
                return
            step = max(1, rate // 100)
            for begin in range(0, len(data), step):
                self.wfile.write(data[begin : begin + step])
                time.sleep(0.01)

    return Handler
