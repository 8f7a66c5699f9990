"""HTTP for the agent: one pool, bounded waits, and errors that say what to do.

The answers' `Date` headers are kept as the server's idea of the time. Whether metadata has ended is judged by
this device's clock alone. The server's time explains why ("your clock is wrong"), can make the device more
careful, and where it is the earlier one, it is what the device remembers as already seen (`trust.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from boardwright.agent.errors import AgentError, TurnedAway, Unavailable
from boardwright.content.canonical import read_json

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CHUNK_BYTES = 1 << 18
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_LARGEST_ANSWER_BYTES = 8 << 20


@dataclass(slots=True)
class ServerClock:
    """How far the server's clock is ahead of this device's, from the last answer that said so."""

    ahead_seconds: float | None = None

    def note(self, date: str | None) -> None:
        """Take a `Date` header into account."""
        if date:
            try:
                self.ahead_seconds = parsedate_to_datetime(date).astimezone(UTC).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                return


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, however it ended."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            Unavailable: SERVER_ERROR, the body is something else (a proxy's page, for example).
        """
        try:
            document = read_json(self.body)
        except ValueError as error:
            raise Unavailable(
                "SERVER_ERROR", "the server's answer is not JSON: is --server a gateway?"
            ) from error
        if not isinstance(document, dict):
            raise Unavailable(
                "SERVER_ERROR", "the server's answer is not a JSON object: is --server a gateway?"
            )
        return document


@dataclass(slots=True)
class Http:
    """Sends requests to one server.

    Attributes:
        server: base URL without a slash at its end.
        clock: what answers said about the time.
    """

    server: str
    clock: ServerClock = field(default_factory=ServerClock)
    _pool: urllib3.PoolManager = field(init=False, repr=False)
    _streamed: urllib3.response.BaseHTTPResponse | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._pool = _make_pool(self.server)

    def call(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read the whole answer, of at most 8 MiB.

        Raises:
            Unavailable: SERVER_UNREACHABLE or SERVER_ERROR.
        """
        response = self._send(method, path, body, headers or {})
        try:
            data = response.read(_LARGEST_ANSWER_BYTES + 1)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(self.server, error) from error
        finally:
            response.release_conn()
        if len(data) > _LARGEST_ANSWER_BYTES:
            raise Unavailable("SERVER_ERROR", f"{self.server}/{path} answered with more than 8 MiB")
        return Answer(response.status, dict(response.headers), data)

    def stream(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], Iterator[bytes]]:
        """Send a request without a body; return status, headers and the answer's bytes as they come.

        Raises:
            Unavailable: SERVER_UNREACHABLE, also while iterating.
        """
        response = self._streamed = self._send(method, path, b"", headers or {})
        return response.status, dict(response.headers), self._chunks(response)

    def close(self) -> None:
        """Close every connection, also one whose answer was not read to its end."""
        if self._streamed is not None:
            self._streamed.close()
        self._pool.clear()

    def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> urllib3.response.BaseHTTPResponse:
        try:
            response = self._pool.request(
                method,
                f"{self.server}/{path.lstrip('/')}",
                body=body or None,
                headers={"User-Agent": "boardwright-agent", **headers},
                preload_content=False,
                redirect=True,
                retries=urllib3.Retry(
                    connect=0, read=0, redirect=2, status=0, other=0, raise_on_status=False
                ),
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:  # ValueError: sent on to no address
            raise _unreachable(self.server, error) from error
        self.clock.note(response.headers.get("Date"))
        return response

    def _chunks(self, response: urllib3.response.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(CHUNK_BYTES, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(self.server, error) from error
        finally:
            response.close()


def _make_pool(server: str) -> urllib3.PoolManager:
    """A pool that uses the environment's proxy (https_proxy, no_proxy), except for this machine."""
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    parts = urlsplit(server)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme, "")
    if not proxy or host in LOOPBACK or proxy_bypass(host):
        return urllib3.PoolManager(timeout=timeout, retries=False, maxsize=2)
    return urllib3.ProxyManager(proxy, timeout=timeout, retries=False, maxsize=2)


def problem(answer: Answer, doing: str) -> AgentError:
    """The error that an answer of 400 or more stands for.

    The gateway answers with problem details (RFC 9457) whose `reason` and `detail` are passed on.
    """
    try:
        document = read_json(answer.body)
        reason, detail = str(document["reason"]), str(document.get("detail") or document.get("title") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        reason, detail = f"HTTP_{answer.status}", f"the server answered with HTTP {answer.status}"
    text = f"{doing}: {detail}"
    if answer.status >= 500 or answer.status == 429:
        return Unavailable(reason, f"{text} (trying again later may help)")
    return TurnedAway(reason, text)


def _unreachable(server: str, error: Exception) -> Unavailable:
    cause = error
    while isinstance(cause, urllib3.exceptions.MaxRetryError) and cause.reason is not None:
        cause = cause.reason
    if isinstance(cause, urllib3.exceptions.SSLError):
        return Unavailable(
            "TLS_FAILED",
            f"{server} could not prove who it is ({cause}): check the address, its certificate and the clock",
        )
    return Unavailable(
        "SERVER_UNREACHABLE",
        f"{server} cannot be reached ({cause}): check the network; the next try goes on from here",
    )
