"""Spans to an OpenTelemetry collector; imported only when an exporter is configured."""

from __future__ import annotations

import os

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from boardwright.telemetry.tracing import TraceContext

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpSink:
    """Hands finished spans to the SDK's batch processor (endpoint and headers by the OTEL_ variables)."""

    def __init__(self, service: str) -> None:
        self._resource = Resource.create({"service.name": f"boardwright-{service}"})
        self._scope = InstrumentationScope("boardwright")
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(
                insecure=not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").startswith("https:")
            ),
            schedule_delay_millis=1000,
        )

    def export(
        self,
        name: str,
        context: TraceContext,
        parent_span_id: str,
        start_ns: int,
        end_ns: int,
        attributes: dict[str, str | int | float | bool],
        error: str,
    ) -> None:
        """Queue one span."""
        trace = int(context.trace_id, 16)
        parent = None
        if parent_span_id:
            parent = SpanContext(trace, int(parent_span_id, 16), is_remote=True, trace_flags=_SAMPLED)
        self._processor.on_end(
            ReadableSpan(
                name,
                SpanContext(trace, int(context.span_id, 16), is_remote=False, trace_flags=_SAMPLED),
                parent,
                self._resource,
                attributes,
                kind=SpanKind.SERVER if "rpc.method" in attributes else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.OK),
                start_time=start_ns,
                end_time=end_ns,
                instrumentation_scope=self._scope,
            )
        )

    def flush(self, timeout_ms: int = 2000) -> None:
        """Send what is queued."""
        self._processor.force_flush(timeout_ms)

    def close(self) -> None:
        """Send what is queued and stop."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]
