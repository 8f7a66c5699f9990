"""A server that answers oddly: the device neither falls over nor fills up."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from boardwright.agent.errors import Unavailable
from boardwright.agent.home import Home
from boardwright.agent.http import Http, ServerClock
from boardwright.agent.report import send_if_due
from boardwright.agent.server import DeliveryServer
from boardwright.content.digest import Digest

KEY = bytes(32)


def test_an_error_that_never_ends_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while len(sent) < 1000:
            sent.append(1)
            yield bytes(1 << 10)

    http = Http("http://127.0.0.1:9")
    monkeypatch.setattr(Http, "stream", lambda *given, **named: (500, {}, endless()))
    with pytest.raises(Unavailable, match="HTTP 500"):
        DeliveryServer(http, KEY, "devices/cam-1").open_blob(Digest.of(b"x"), 0)
    assert len(sent) < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_being_sent_on_to_no_address_is_an_unreachable_server() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(307)
            self.send_header("Location", "http://[::bad")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.handle_request, daemon=True).start()
        http = Http(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            http.call("GET", "x")
        http.close()
    assert caught.value.reason == "SERVER_UNREACHABLE"
    del caught
    gc.collect()  # urllib3 forgets the connection that sent it on


@pytest.mark.parametrize("wished", ["soon", -5, float("inf"), [1], None])
def test_a_pause_that_is_no_number_of_seconds_is_no_wish(tmp_path: Path, wished: object) -> None:
    class Server(DeliveryServer):
        def report(self, document: Any) -> dict[str, Any]:
            return {"poll_seconds": wished}

    server = Server(Http("http://127.0.0.1:9"), KEY)
    assert send_if_due(Home(tmp_path), server, {"kind": "seen"}, ServerClock()) == 0


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 -2359", f"Mon, 1 Jan {'9' * 20} 00:00:00 GMT"])
def test_a_time_that_no_clock_shows_is_none(date: str) -> None:
    clock = ServerClock()
    clock.note(date)
    assert clock.ahead_seconds is None
