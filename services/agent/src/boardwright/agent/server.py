"""The device's calls to the delivery service, through the gateway (signing: `boardwright.device.signing`)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from boardwright.agent.errors import Unavailable
from boardwright.agent.http import Answer, Http, problem
from boardwright.content.canonical import canonical_json
from boardwright.content.digest import Digest
from boardwright.device import signing

_SKEWED = b"TIMESTAMP_SKEWED"
_ERROR_CHUNKS = 4
"""How much of an error is read: whoever answers may never stop."""


@dataclass(frozen=True, slots=True)
class BlobAnswer:
    """A blob's bytes from some offset on."""

    offset: int
    chunks: Iterator[bytes]


class DeliveryServer:
    """Signed calls of one device.

    Args:
        http: where to.
        private_key: the device's raw Ed25519 key.
        device: resource name; "" before enrolment.
    """

    def __init__(self, http: Http, private_key: bytes, device: str = "") -> None:
        self._http = http
        self._key = private_key
        self._device = device
        self._ahead_seconds = 0
        self._traceparent = ""

    def enroll(
        self, token: str, device_id: str, host: Mapping[str, Any], agent_version: str
    ) -> dict[str, Any]:
        """Exchange a one-time token for a place in a fleet. The same key may repeat it.

        Raises:
            TurnedAway: the token is unknown, used by another device, or has run out.
            Unavailable: the server cannot be reached.
        """
        public_key = signing.public_key_of(self._key)
        text = signing.enrolment_message(token, device_id, public_key, host, agent_version)
        request = {
            "token": token,
            "device_id": device_id,
            "public_key": signing.encode(public_key),
            "host": dict(host),
            "agent_version": agent_version,
            "signature": signing.encode(signing.sign(self._key, text)),
        }
        headers = {"Content-Type": "application/json"}
        answer = self._http.call("POST", signing.ENROLL_PATH, body=canonical_json(request), headers=headers)
        return _expect(answer, "enrolment").json()

    def join_trace(self, traceparent: str) -> None:
        """Send this W3C trace context with every request from now on; "" for none."""
        self._traceparent = traceparent

    def report(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what runs here; the answer says how long to wait before the next poll.

        Raises:
            TurnedAway: the server does not know this device any more.
            Unavailable: the server cannot be reached.
        """
        body = canonical_json(dict(document))
        for attempt in (1, 2):
            headers = self._headers("POST", signing.REPORT_PATH, body)
            headers["Content-Type"] = "application/json"
            answer = self._http.call("POST", signing.REPORT_PATH, body=body, headers=headers)
            if attempt == 2 or not self._corrected(answer):
                break
        return _expect(answer, "the report").json()

    def open_blob(self, digest: Digest, offset: int) -> BlobAnswer:
        """A blob's bytes from ``offset`` on, or from its start when the server gives no parts.

        Raises:
            TurnedAway: the device may not read it.
            Unavailable: the server cannot be reached, or does not have it now.
        """
        path = f"{signing.BLOBS_PATH}/{digest}"
        for attempt in (1, 2):
            headers = self._headers("GET", path, b"")
            if offset:
                headers["Range"] = f"bytes={offset}-"
            status, got, chunks = self._http.stream("GET", path, headers=headers)
            if status in (200, 206):
                return BlobAnswer(offset if status == 206 else 0, chunks)
            answer = Answer(status, got, b"".join(islice(chunks, _ERROR_CHUNKS)))
            if attempt == 2 or not self._corrected(answer):
                break
        if answer.status == 404:
            raise Unavailable("BLOB_MISSING", f"the server does not have {digest} now: try again later")
        raise problem(answer, "the download")

    def _headers(self, method: str, path: str, body: bytes) -> dict[str, str]:
        timestamp = int(time.time()) + self._ahead_seconds
        nonce = secrets.token_urlsafe(18)
        text = signing.message(method, path, self._device, timestamp, nonce, body)
        trace = {"traceparent": self._traceparent} if self._traceparent else {}
        return {
            **trace,
            signing.DEVICE_HEADER: self._device,
            signing.TIMESTAMP_HEADER: str(timestamp),
            signing.NONCE_HEADER: nonce,
            signing.SIGNATURE_HEADER: signing.encode(signing.sign(self._key, text)),
        }

    def _corrected(self, answer: Answer) -> bool:
        """Whether the server said that the timestamp is off and what its time is: then sign again."""
        if answer.status != 401 or _SKEWED not in answer.body:
            return False
        told = answer.json().get("server_time", "")
        try:
            server_time = datetime.fromisoformat(str(told)).timestamp()
        except ValueError:
            if self._http.clock.ahead_seconds is None:
                return False
            server_time = time.time() + self._http.clock.ahead_seconds
        self._ahead_seconds = round(server_time - time.time())
        return True


def _expect(answer: Answer, doing: str) -> Answer:
    if answer.status >= 400:
        raise problem(answer, doing)
    return answer
