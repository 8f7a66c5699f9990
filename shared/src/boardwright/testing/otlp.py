"""An OTLP collector in the test's own process: real gRPC, spans kept in memory.

with otlp_receiver() as receiver:
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
    …
    receiver.wait_for(lambda spans: any(span.name == "…" for span in spans))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as it arrived; ids in hex, ``service`` from the resource."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_span_id: str


class OtlpReceiver:
    """Holds the spans that arrived at ``endpoint`` (``http://127.0.0.1:port``)."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans so far."""
        with self._changed:
            return list(self._spans)

    def wait_for(self, condition: Callable[[Sequence[ReceivedSpan]], bool], seconds: float = 15.0) -> None:
        """Wait until the spans fulfil ``condition``. Raises: AssertionError listing what arrived."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._spans):
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    if condition(self._spans):
                        return
                    raise AssertionError(f"after {seconds} s only these spans arrived: {self._spans}")

    def receive(self, request: Any) -> None:
        """Keep the spans of an ExportTraceServiceRequest."""
        arrived = []
        for resource_spans in request.resource_spans:
            service = next(
                (a.value.string_value for a in resource_spans.resource.attributes if a.key == "service.name"),
                "",
            )
            for scope_spans in resource_spans.scope_spans:
                arrived += [
                    ReceivedSpan(service, s.name, s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex())
                    for s in scope_spans.spans
                ]
        with self._changed:
            self._spans += arrived
            self._changed.notify_all()


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """Serve the trace service on a free loopback port for as long as the context lasts."""
    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

    receiver = OtlpReceiver()

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc, unused-ignore]
        def Export(self, request: Any, context: Any) -> Any:
            receiver.receive(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    receiver.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        server.stop(1).wait()
