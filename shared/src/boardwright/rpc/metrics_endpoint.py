"""GET /metrics of a gRPC service, for Prometheus: a few lines of HTTP/1.0 on asyncio, no framework."""

from __future__ import annotations

import asyncio

from boardwright.telemetry import metrics_text

_LONGEST_REQUEST_BYTES = 16 * 1024
_PATIENCE_SECONDS = 5.0


async def start_metrics(listen: str) -> asyncio.Server:
    """Answer GET /metrics on "host:port". Raises: OSError when the address is taken."""
    host, _, port = listen.rpartition(":")
    return await asyncio.start_server(_answer, host, int(port), limit=_LONGEST_REQUEST_BYTES)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            method, _, rest = head.partition(b" ")
            found = method == b"GET" and rest.split(b" ")[0].partition(b"?")[0] == b"/metrics"
            body = metrics_text().encode() if found else b"only GET /metrics is here\n"
            writer.write(
                b"HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n"
                % (b"200 OK" if found else b"404 Not Found", len(body))
            )
            writer.write(body)
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass  # whoever does not speak HTTP gets no answer
    finally:
        writer.close()
