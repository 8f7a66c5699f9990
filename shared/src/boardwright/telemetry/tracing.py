"""W3C trace context that costs nothing: a trace id always exists, spans are exported only when configured.

Without an exporter a span is two context-variable writes. With one (`OTEL_EXPORTER_OTLP_ENDPOINT`), finished
spans go to the OpenTelemetry SDK, which is imported by `configure` alone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Protocol

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Ids as lower-case hex: 32 digits of trace, 16 of span."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """The W3C header value."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class SpanSink(Protocol):
    """Where finished spans go."""

    def export(
        self, name: str, context: TraceContext, parent_span_id: str, start_ns: int, end_ns: int,
        attributes: dict[str, str | int | float | bool], error: str,
    ) -> None: ...  # fmt: skip


_CURRENT: ContextVar[TraceContext | None] = ContextVar("boardwright_trace", default=None)
_sink: SpanSink | None = None


def set_sink(sink: SpanSink | None) -> None:
    """Send finished spans to `sink`, or nowhere."""
    global _sink
    _sink = sink


def exporting() -> bool:
    """Whether spans go anywhere: skip the work of describing them when not."""
    return _sink is not None


def new_context() -> TraceContext:
    """A fresh trace."""
    digits = os.urandom(24).hex()
    return TraceContext(digits[:32], digits[32:])


def parse_traceparent(value: str) -> TraceContext | None:
    """The context of a W3C traceparent, or None if it is not one."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None or set(match.group(1)) == {"0"} or set(match.group(2)) == {"0"}:
        return None
    return TraceContext(match.group(1), match.group(2))


def current_context() -> TraceContext:
    """The trace that this code runs in; begins one if there is none."""
    context = _CURRENT.get()
    if context is None:
        context = new_context()
        _CURRENT.set(context)
    return context


def current_traceparent() -> str:
    """`current_context()` as a header value: store it on rows whose work goes on later, send it along."""
    return current_context().traceparent


def current_trace_id() -> str:
    """The trace id alone, as logs and error answers show it."""
    return current_context().trace_id


def known_trace_id() -> str:
    """The trace id, or "" where no trace was begun (logs do not begin one)."""
    context = _CURRENT.get()
    return "" if context is None else context.trace_id


def attach(traceparent: str) -> Token[TraceContext | None]:
    """Continue the trace of `traceparent`; if it is none, one begins when asked for. `detach` undoes it."""
    return _CURRENT.set(parse_traceparent(traceparent) if traceparent else None)


def detach(token: Token[TraceContext | None]) -> None:
    """Return to the trace before `attach`."""
    _CURRENT.reset(token)


@contextmanager
def span(
    name: str, *, traceparent: str = "", **attributes: str | int | float | bool
) -> Iterator[TraceContext]:
    """Run a block as a span of the current trace, or of `traceparent` where given."""
    parent = parse_traceparent(traceparent) if traceparent else _CURRENT.get()
    context = new_context()
    if parent is not None:
        context = TraceContext(parent.trace_id, context.span_id)
    token = _CURRENT.set(context)
    start = time.time_ns() if _sink else 0
    error = ""
    try:
        yield context
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        _CURRENT.reset(token)
        if _sink is not None:
            _sink.export(
                name,
                context,
                parent.span_id if parent else "",
                start,
                time.time_ns(),
                dict(attributes),
                error,
            )
