from __future__ import annotations

import socket

import pytest

from boardwright.gateway.app import _bind


def test_the_listener_s_connections_send_small_answers_at_once() -> None:
    """asyncio sets TCP_NODELAY only where the protocol is named; else every answer waits 40 ms."""
    with _bind("127.0.0.1:0") as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP


def test_a_taken_address_names_the_setting() -> None:
    with _bind("127.0.0.1:0") as listener:
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match="BOARDWRIGHT_GATEWAY_LISTEN"):
            _bind(f"127.0.0.1:{port}")
