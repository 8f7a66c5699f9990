"""One gRPC channel to one authority. What goes wrong becomes a `BoardwrightError`.

gRPC is imported when the first call is made, so that importing the SDK costs a training script little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from boardwright.client.credentials import Credentials

_LONG_SECONDS = 120.0


class Connection:
    """The channel and its stubs, made at first use. May be used from several threads."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._channel: Any = None
        self._stubs: dict[str, Stub] = {}

    def __reduce__(self) -> tuple[type[Connection], tuple[Credentials]]:
        """Another process (a training on several GPUs) opens a channel of its own."""
        return Connection, (self.credentials,)

    @property
    def registry(self) -> Stub:
        """The registry's RPCs."""
        from boardwright.api.registry.v1.registry_pb2_grpc import RegistryStub

        return self._stub("registry", RegistryStub)

    @property
    def blobs(self) -> Stub:
        """The Blobs API."""
        from boardwright.api.registry.v1.blobs_pb2_grpc import BlobsStub

        return self._stub("blobs", BlobsStub)

    @property
    def calibration(self) -> Stub:
        """The calibration service's RPCs."""
        from boardwright.api.calibration.v1.calibration_pb2_grpc import CalibrationStub

        return self._stub("calibration", CalibrationStub)

    @property
    def compiler(self) -> Stub:
        """The compiler's RPCs."""
        from boardwright.api.compiler.v1.compiler_pb2_grpc import CompilerStub

        return self._stub("compiler", CompilerStub)

    @property
    def builder(self) -> Stub:
        """The builder's RPCs."""
        from boardwright.api.builder.v1.builder_pb2_grpc import BuilderStub

        return self._stub("builder", BuilderStub)

    @property
    def delivery(self) -> Stub:
        """The delivery service's RPCs."""
        from boardwright.api.delivery.v1.delivery_pb2_grpc import DeliveryStub

        return self._stub("delivery", DeliveryStub)

    @property
    def channel(self) -> Any:
        """The `grpc.Channel` to the authority, with token, trace and deadline on every call."""
        if self._channel is None:
            from boardwright.rpc.client import connect_sync

            self._channel = connect_sync(
                self.credentials.endpoint, token=self.credentials.token, deadline_seconds=_LONG_SECONDS
            )
        return self._channel

    def close(self) -> None:
        """Close the channel; a later call opens a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._stubs.clear()

    def _stub(self, name: str, kind: Callable[[Any], Any]) -> Stub:
        if name not in self._stubs:
            self._stubs[name] = Stub(kind(self.channel))
        return self._stubs[name]


class Stub:
    """A generated stub whose calls raise `BoardwrightError` instead of `grpc.RpcError`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, rpc: str) -> Callable[..., Any]:
        method = getattr(self._inner, rpc)

        def call(request: Any, **options: Any) -> Any:
            import grpc

            from boardwright.rpc.errors import from_rpc_error

            try:
                return method(request, **options)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error

        return call

    def stream(self, rpc: str, request: Any, **options: Any) -> Iterator[Any]:
        """The messages of a streaming call, until it ends; leaving the loop cancels the call."""
        import grpc

        from boardwright.rpc.errors import from_rpc_error

        call = getattr(self._inner, rpc)(request, **options)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


@contextmanager
def continue_trace(traceparent: str) -> Iterator[None]:
    """Let the calls in this block belong to the trace of a resource, such as the push of a version.

    So one trace leads from a push to a device's report, whoever makes the calls in between.
    """
    from boardwright.telemetry import attach, detach

    if not traceparent:
        yield
        return
    token = attach(traceparent)
    try:
        yield
    finally:
        detach(token)


def every_page(list_page: Callable[..., Any], request: Any, field: str, limit: int = 0) -> Iterator[Any]:
    """The items of a list over all its pages, at most `limit` of them (0: all)."""
    given = 0
    if limit:
        request.page_size = min(limit, 1000)
    while True:
        page = list_page(request)
        for item in getattr(page, field):
            yield item
            given += 1
            if limit and given >= limit:
                return
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
