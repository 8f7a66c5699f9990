"""The directory endpoint as an ASGI 3 application: any ASGI framework can mount it, and it needs none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from boardwright.content.directory_endpoint import (
    PROBLEM_MEDIA_TYPE,
    DirectoryEndpoint,
    problem_of,
)
from boardwright.content.errors import ContentError
from boardwright.content.file_range import FileRange
from boardwright.content.parts import PartWriter
from boardwright.content.store import CHUNK_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Gone(Exception):
    """The client hung up."""


class DirectoryApp:
    """Serves parts and downloads; the disk is only touched in threads.

    Mount it (`app.mount("/transfer", DirectoryApp(endpoint))`) with its address as the store's `public_url`.
    """

    def __init__(self, endpoint: DirectoryEndpoint) -> None:
        self._endpoint = endpoint
        # One writer: parts of one upload lie in one file, whose lock several threads would only spin for.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="boardwright-parts")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        path = str(scope["path"])
        root = str(scope.get("root_path", ""))
        if root and path.startswith(root):
            path = path[len(root) :]
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        try:
            if scope["method"] == "PUT":
                await self._receive_part(path, query, headers, receive)
                await _answer(send, 200, {"Content-Length": "0"}, b"")
            else:
                await self._download(str(scope["method"]), path, query, headers, send)
        except ContentError as error:
            problem = problem_of(error)
            body = problem.body()
            fields = {"Content-Type": PROBLEM_MEDIA_TYPE, "Content-Length": str(len(body))}
            await _answer(send, problem.status, fields, body)
        except _Gone:
            return

    async def _receive_part(
        self, path: str, query: dict[str, str], headers: dict[str, str], receive: Receive
    ) -> None:
        length = headers.get("content-length", "")
        writer = await asyncio.to_thread(
            self._endpoint.receive_part, "PUT", path, query, int(length) if length.isdecimal() else None
        )
        try:
            await self._copy_body(receive, writer)
            await asyncio.to_thread(writer.finish)
        finally:
            writer.close()

    async def _copy_body(self, receive: Receive, writer: PartWriter) -> None:
        # Servers hand out bodies in small pieces; a thread is worth its switch from about a mebibyte on.
        # While it writes, the next pieces come in.
        loop = asyncio.get_running_loop()
        pending = bytearray()
        writing: asyncio.Future[None] | None = None
        more = True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                pending += message.get("body", b"")
                more = bool(message.get("more_body", False))
                if len(pending) >= CHUNK_BYTES or not more:
                    if writing is not None:
                        await writing
                    writing = loop.run_in_executor(self._writer, writer.write, pending)
                    pending = bytearray()
        finally:
            # Also when the client is gone: the file must not be closed under the writing thread.
            if writing is not None:
                await writing

    async def _download(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str], send: Send
    ) -> None:
        answer = await asyncio.to_thread(self._endpoint.download, method, path, query, headers.get("range"))
        if answer.body is None:
            await _answer(send, answer.status, dict(answer.headers), b"")
            return
        with contextlib.closing(answer.body) as body:
            # The first chunk is read before the head is sent, so that an error can still become a status.
            # Errors after that can only break the connection off.
            chunk = await _next_chunk(body)
            await send(_head(answer.status, dict(answer.headers)))
            try:
                while chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    chunk = await _next_chunk(body)
            except ContentError as error:
                raise RuntimeError(f"a download broke off: {error}") from error
        await send({"type": "http.response.body", "body": b""})


async def _next_chunk(body: FileRange) -> bytes | memoryview:
    # Most downloads are of what was just stored; for those a thread would cost more than the reading.
    chunk = body.read_cached()
    return await asyncio.to_thread(body.read) if chunk is None else chunk


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    await send(_head(status, headers))
    await send({"type": "http.response.body", "body": body})


def _head(status: int, headers: dict[str, str]) -> dict[str, Any]:
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}
