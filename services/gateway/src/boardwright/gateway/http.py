"""The HTTP application: REST, files, devices, health."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from boardwright import telemetry
from boardwright.gateway import problems
from boardwright.gateway.devices import device_routes
from boardwright.gateway.health import service_states
from boardwright.gateway.rest.mirror import endpoint_for
from boardwright.gateway.rest.openapi import openapi_document
from boardwright.gateway.rest.routes import ROUTES
from boardwright.gateway.services import Connections
from boardwright.gateway.settings import Settings
from boardwright.rpc.errors import BoardwrightError

TRANSFER_PATH = "/transfer"
"""Where the directory store's signed requests are served."""

VERSION = "0.1.0"

_log = logging.getLogger(__name__)


def make_application(settings: Settings, connections: Connections) -> FastAPI:
    """Everything the gateway serves over HTTP."""
    app = FastAPI(title="Boardwright", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app)
    _add_health(app, connections)
    app.include_router(device_routes(connections, settings.service_token), include_in_schema=False)
    if settings.blobs_url.startswith("file:"):
        app.mount(TRANSFER_PATH, _transfer(settings))
    for route in ROUTES:
        app.add_route(route.path, _measured(route.rpc, endpoint_for(route, connections)), [route.http_method])

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(_openapi(), media_type="application/json")

    return app


@cache
def _openapi() -> bytes:
    return json.dumps(openapi_document(ROUTES, VERSION)).encode()


def _transfer(settings: Settings) -> Any:
    from boardwright.content import open_store
    from boardwright.content.directory import DirectoryStore
    from boardwright.content.directory_app import DirectoryApp
    from boardwright.content.directory_endpoint import DirectoryEndpoint

    store = open_store(settings.blobs_url, signing_key=settings.signing_key)
    if not isinstance(store, DirectoryStore):  # open_store's type is the port
        raise TypeError(f"{settings.blobs_url} is no directory store")
    return DirectoryApp(DirectoryEndpoint(store, settings.signing_key))


def _add_health(app: FastAPI, connections: Connections) -> None:
    @app.get("/health", include_in_schema=False)
    async def health() -> JSONResponse:
        """200 when every service serves, else 503; the body names each one's state."""
        states = await service_states(connections)
        serving = all(state == "SERVING" for state in states.values())
        body = {"status": "SERVING" if serving else "NOT_SERVING", "services": states}
        return JSONResponse(body, 200 if serving else 503)

    @app.get("/health/live", include_in_schema=False)
    async def live() -> JSONResponse:
        """200 as long as this process answers."""
        return JSONResponse({"status": "SERVING"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(telemetry.metrics_text(), media_type="text/plain; version=0.0.4")


def _measured(
    rpc: str, endpoint: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    seconds = telemetry.histogram(
        "boardwright_gateway_rest_seconds", "Duration of REST calls", ("rpc", "status")
    )

    async def run(request: Request) -> Response:
        started = time.perf_counter()
        status = "500"
        try:
            response = await endpoint(request)
            status = str(response.status_code)
            return response
        except BoardwrightError as error:
            status = str(problems.status_of(error))
            raise
        finally:
            seconds.observe(time.perf_counter() - started, rpc, status)

    return run


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods of a path. Each is a route of its own, and Starlette tells those of the first alone."""
    here = [
        route for route in app.routes if isinstance(route, Route) and route.path_regex.match(request.url.path)
    ]
    return ", ".join(sorted({name for route in here for name in route.methods or ()}))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(BoardwrightError)
    async def refused(request: Request, error: BoardwrightError) -> Response:
        return JSONResponse(
            problems.document_of(error),
            problems.status_of(error),
            problems.headers_of(error),
            media_type=problems.MEDIA_TYPE,
        )

    @app.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> Response:
        document = {
            "type": "about:blank",
            "title": str(error.detail),
            "status": error.status_code,
            "detail": f"there is nothing to {request.method} at {request.url.path}; see /openapi.json",
            "reason": "NO_SUCH_PATH",
        }
        headers = {"Allow": _allowed(app, request)} if error.status_code == 405 else error.headers
        return JSONResponse(document, error.status_code, headers, media_type=problems.MEDIA_TYPE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        trace = telemetry.current_trace_id()
        _log.error("unexpected error", extra={"trace_id": trace}, exc_info=error)
        document = {
            "type": "about:blank",
            "title": "Internal Server Error",
            "status": 500,
            "detail": f"the gateway failed; its log has the details under the trace id {trace}",
            "reason": "INTERNAL",
        }
        return JSONResponse(document, 500, media_type=problems.MEDIA_TYPE)
