"""An ASGI application behind a real HTTP server on loopback, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

_START_SECONDS = 30.0


@contextlib.contextmanager
def listening_socket() -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens on a free loopback port, and its address as `http://127.0.0.1:port`."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def serve_asgi(app: Any, listener: socket.socket) -> Iterator[None]:
    """Serve an application with uvicorn in a thread, for the length of a `with`.

    Raises:
        RuntimeError: the server does not start.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the HTTP server did not start")
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_START_SECONDS)
