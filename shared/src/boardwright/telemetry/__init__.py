"""Logs, traces and metrics, cheap enough for every request.

logs.py      JSON lines on standard error
tracing.py   W3C trace context and spans, usable without the OpenTelemetry SDK
export.py    spans to a collector; the SDK is loaded only when one is configured
metrics.py   counters and histograms as Prometheus text
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

from boardwright.telemetry.metrics import Counter, Gauge, Histogram, counter, gauge, histogram, metrics_text
from boardwright.telemetry.tracing import (
    TraceContext,
    attach,
    current_context,
    current_trace_id,
    current_traceparent,
    detach,
    parse_traceparent,
    span,
)

__all__ = [
    "Counter",
    "Gauge",
    "Histogram",
    "TraceContext",
    "attach",
    "configure",
    "counter",
    "current_context",
    "current_trace_id",
    "current_traceparent",
    "detach",
    "flush",
    "gauge",
    "histogram",
    "metrics_text",
    "parse_traceparent",
    "span",
]


_FLUSH_SECONDS = 0.5
_flushing: list[Callable[[], None]] = []


def configure(service: str) -> None:
    """Set up logs (level by BOARDWRIGHT_LOG) and, with OTEL_EXPORTER_OTLP_ENDPOINT set, span export.

    Raises: ValueError for an unknown log level.
    """
    from boardwright.telemetry.logs import configure_logs
    from boardwright.telemetry.tracing import set_sink

    configure_logs(service, os.environ.get("BOARDWRIGHT_LOG", "info"))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from boardwright.telemetry.export import OtlpSink

        sink = OtlpSink(service)
        set_sink(sink)
        atexit.register(sink.close)
        _flushing.append(sink.flush)


def flush() -> None:
    """Send the spans that are queued, as far as that takes half a second: the collector may be away."""
    for send in _flushing:
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(_FLUSH_SECONDS)
