"""Spans reach a collector, in the caller's trace, from a registry that was given one."""

import queue
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.rpc.client import connect_sync
from boardwright.telemetry import span
from boardwright.testing.services import running_service


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps (service, span) as they come."""

    def __init__(self):
        self.spans = queue.SimpleQueue()

    def Export(self, request, context):
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for one in scope.spans:
                    self.spans.put((names["service.name"], one))
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector():
    servicer = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer
    server.stop(None).wait()


def test_a_call_is_a_span_of_the_callers_trace(collector, tmp_path):
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}"}
    with running_service("registry", environment, folder=tmp_path) as service:
        with connect_sync(service.endpoint, token=service.tokens["admin"]) as channel:
            stub = registry_pb2_grpc.RegistryStub(channel)
            with span("push") as pushed:
                stub.ListModels(pb.ListModelsRequest(parent="projects/default"))
                with pytest.raises(grpc.RpcError):
                    stub.GetModel(pb.GetModelRequest(name="projects/default/models/none"))
        found = [collector.spans.get(timeout=20) for _ in range(2)]
    by_name = {one.name: (service_name, one) for service_name, one in found}
    assert set(by_name) == {"Registry/ListModels", "Registry/GetModel"}
    for service_name, one in by_name.values():
        assert service_name == "boardwright-registry"
        assert one.trace_id.hex() == pushed.trace_id
        assert one.parent_span_id.hex() == pushed.span_id
        assert one.end_time_unix_nano >= one.start_time_unix_nano > 0
    assert by_name["Registry/GetModel"][1].status.message == "NotFound"
