"""The Builder API over BuilderService."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

from boardwright.api.builder.v1 import builder_pb2 as pb
from boardwright.api.builder.v1 import builder_pb2_grpc
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.builder.domain.boards import Board
from boardwright.builder.ports import BuildOrder, MeasureOrder
from boardwright.builder.rpc.convert import pin_overrides, to_board, to_toolchain
from boardwright.builder.service import BuilderService, Call
from boardwright.database import paging, requests
from boardwright.database.filters import Field, to_condition
from boardwright.jobs.rpc.collection import JobCollection
from boardwright.jobs.rpc.convert import to_job
from boardwright.rpc.auth import current_principal
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import NameTemplate
from boardwright.toolchains.catalogue import toolchain_named, toolchain_names

PROJECT = NameTemplate("projects/{project}")
BUILD_JOB = NameTemplate("projects/{project}/buildJobs/{job}")
BOARD = NameTemplate("boards/{board*}")
VARIANT = NameTemplate("projects/{project}/models/{model}/versions/{version#}/variants/{variant}")
ARTIFACT = NameTemplate(
    "projects/{project}/models/{model}/versions/{version#}/variants/{variant}/artifacts/{artifact}"
)

_BOARD_FIELDS = {
    "name": Field("name"),
    "architecture": Field("architecture"),
    "toolchains": Field("toolchains"),
}


class BuilderServicer(builder_pb2_grpc.BuilderServicer):
    """See builder.proto."""

    def __init__(self, service: BuilderService, collection: JobCollection) -> None:
        self._service = service
        self._collection = collection

    async def ListBoards(self, request: pb.ListBoardsRequest, context: Any) -> pb.ListBoardsResponse:
        """See builder.proto."""
        boards = _filtered(self._service.boards(), request.filter)
        page, token = _page(boards, request.page_size, request.page_token, "boards", request.filter)
        return pb.ListBoardsResponse(boards=[self._message(board) for board in page], next_page_token=token)

    async def GetBoard(self, request: pb.GetBoardRequest, context: Any) -> pb.Board:
        """See builder.proto; ``boards/host`` is this machine's."""
        (name,) = BOARD.parse(request.name)
        return self._message(self._service.board(name))

    def _message(self, board: Board) -> pb.Board:
        workers = self._service.workers
        features = workers.host_features if board.name == workers.host_board else None
        return to_board(board, board.name in workers.boards(), features)

    async def ListToolchains(
        self, request: pb.ListToolchainsRequest, context: Any
    ) -> pb.ListToolchainsResponse:
        """See builder.proto."""
        page, token = _page(toolchain_names(), request.page_size, request.page_token, "toolchains")
        offered = self._service.workers.toolchains()
        return pb.ListToolchainsResponse(
            toolchains=[
                to_toolchain(
                    toolchain_named(name),
                    [board.name for board in self._service.boards() if name in board.toolchains],
                    name in offered,
                )
                for name in page
            ],
            next_page_token=token,
        )

    async def CreateBuildJob(self, request: pb.CreateBuildJobRequest, context: Any) -> jobs_pb2.Job:
        """See builder.proto."""
        (project,) = PROJECT.parse(request.parent, "parent")
        _same_project(VARIANT.parse(request.variant, "variant")[0], project, "variant")
        if not request.board:
            raise InvalidArgument(
                "FIELD_INVALID", "board must name a board of the catalogue, or host.", field="board"
            )
        order = BuildOrder(
            project=project,
            variant=request.variant,
            board=request.board.removeprefix("boards/"),
            toolchain=request.toolchain.removeprefix("toolchains/"),
            golden_dataset=request.golden_dataset,
            pin=pin_overrides(request.pin),
            retry_failed=request.retry_failed,
        )
        call = _call(request, request.request_id, request.validate_only)
        return to_job(await self._service.create_build_job(call, order))

    async def CreateMeasureJob(self, request: pb.CreateMeasureJobRequest, context: Any) -> jobs_pb2.Job:
        """See builder.proto."""
        (project,) = PROJECT.parse(request.parent, "parent")
        for artifact in request.artifacts:
            _same_project(ARTIFACT.parse(artifact, "artifacts")[0], project, "artifacts")
        for field in ("runs", "warm_up_runs"):
            if not 0 <= getattr(request, field) <= 1_000_000:
                raise InvalidArgument("FIELD_INVALID", f"{field} must be 0 to 1,000,000.", field=field)
        order = MeasureOrder(
            project=project,
            artifacts=tuple(request.artifacts),
            runs=request.runs,
            warm_up_runs=request.warm_up_runs,
            again=request.again,
            allow_emulated=request.allow_emulated,
        )
        return to_job(await self._service.create_measure_job(_call(request, request.request_id), order))

    async def GetBuildJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.Job:
        """See builder.proto."""
        return await self._collection.get(request)

    async def ListBuildJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Any
    ) -> jobs_pb2.ListJobsResponse:
        """See builder.proto."""
        return await self._collection.list(request)

    async def CancelBuildJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.Job:
        """See builder.proto."""
        return await self._collection.cancel(request)

    async def RetryBuildJob(self, request: jobs_pb2.RetryJobRequest, context: Any) -> jobs_pb2.Job:
        """See builder.proto."""
        return await self._collection.retry(request)

    async def WatchBuildJob(
        self, request: jobs_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.Job]:
        """See builder.proto."""
        async for job in self._collection.watch(request):
            yield job

    async def GetStepLog(
        self, request: jobs_pb2.GetStepLogRequest, context: Any
    ) -> jobs_pb2.GetStepLogResponse:
        """See builder.proto."""
        return await self._collection.log(request)


def _call(request: Any, request_id: str, validate_only: bool = False) -> Call:
    print_ = requests.fingerprint(request.SerializeToString(deterministic=True)) if request_id else ""
    return Call(current_principal().actor, request_id, print_, validate_only)


def _same_project(found: str, project: str, field: str) -> None:
    if found != project:
        raise InvalidArgument(
            "FIELD_INVALID", f"{field} is in project {found}, the parent is {project}.", field=field
        )


def _page(items: Any, size: int, token: str, *scope: str) -> tuple[Any, str]:
    """Return a page of a short, fixed list and the next page's token."""
    start = int((paging.decode(token, *scope) or [0])[0])
    end = start + paging.page_size(size)
    return items[start:end], paging.encode([end], *scope) if end < len(items) else ""


def _filtered(boards: tuple[Board, ...], text: str) -> tuple[Board, ...]:
    """Apply an AIP-160 filter by the database's own rules, in a database of this moment."""
    condition = to_condition(text, _BOARD_FIELDS, "sqlite")
    with closing(sqlite3.connect(":memory:")) as rows:
        rows.execute("CREATE TABLE boards (name TEXT, architecture TEXT, toolchains TEXT)")
        rows.executemany(
            "INSERT INTO boards VALUES (?, ?, ?)",
            [(board.name, board.architecture, " ".join(board.toolchains)) for board in boards],
        )
        found = {
            row[0]
            for row in rows.execute(
                f"SELECT name FROM boards WHERE {condition.sql}",  # noqa: S608
                condition.parameters,
            )
        }
    return tuple(board for board in boards if board.name in found)
