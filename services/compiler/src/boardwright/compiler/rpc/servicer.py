"""The Compiler API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from boardwright.api.compiler.v1 import compiler_pb2 as pb
from boardwright.api.compiler.v1 import compiler_pb2_grpc
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.compiler.domain.recipe import Recipe, RecipeError
from boardwright.compiler.errors import recipe_refused
from boardwright.compiler.recipes import parse_recipe, read_shipped, shipped_names, spell_out
from boardwright.compiler.service import CompileRequest, CompilerService, recipe_digest
from boardwright.database.requests import fingerprint
from boardwright.jobs.rpc.collection import JobCollection
from boardwright.jobs.rpc.convert import to_job
from boardwright.rpc.auth import current_principal
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import NameTemplate
from boardwright.telemetry import tracing

_PROJECT = NameTemplate("projects/{project}")


class CompilerServicer(compiler_pb2_grpc.CompilerServicer):
    """Serves ``CompilerService`` and its jobs; see compiler.proto."""

    def __init__(self, service: CompilerService, collection: JobCollection) -> None:
        self._service = service
        self._collection = collection

    async def CreateCompileJob(self, request: pb.CreateCompileJobRequest, context: Any) -> jobs_pb2.Job:
        """See compiler.proto."""
        (project,) = _PROJECT.parse(request.parent, "parent")
        if not request.version.startswith(f"{request.parent}/"):
            raise InvalidArgument(
                "FIELD_INVALID",
                f"version {request.version!r} is not in {request.parent}.",
                field="version",
            )
        asked = pb.CreateCompileJobRequest()
        asked.CopyFrom(request)
        asked.request_id = ""
        job = await self._service.create_job(
            CompileRequest(
                project=project,
                version=request.version,
                recipe_name=request.recipe_name,
                recipe_yaml=request.recipe_yaml if request.HasField("recipe_yaml") else None,
                datasets=dict(request.datasets),
                boards=tuple(request.boards),
                principal=current_principal().actor,
                trace=tracing.current_traceparent(),
                request_id=request.request_id,
                fingerprint=fingerprint(asked.SerializeToString(deterministic=True)),
                validate_only=request.validate_only,
                retry_failed=request.retry_failed,
            )
        )
        return to_job(job)

    async def GetCompileJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.Job:
        """See compiler.proto."""
        return await self._collection.get(request)

    async def ListCompileJobs(
        self, request: jobs_pb2.ListJobsRequest, context: Any
    ) -> jobs_pb2.ListJobsResponse:
        """See compiler.proto."""
        return await self._collection.list(request)

    async def CancelCompileJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.Job:
        """See compiler.proto."""
        return await self._collection.cancel(request)

    async def RetryCompileJob(self, request: jobs_pb2.RetryJobRequest, context: Any) -> jobs_pb2.Job:
        """See compiler.proto."""
        return await self._collection.retry(request)

    async def WatchCompileJob(
        self, request: jobs_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.Job]:
        """See compiler.proto."""
        async for job in self._collection.watch(request):
            yield job

    async def GetStepLog(
        self, request: jobs_pb2.GetStepLogRequest, context: Any
    ) -> jobs_pb2.GetStepLogResponse:
        """See compiler.proto."""
        return await self._collection.log(request)

    async def ListRecipes(self, request: pb.ListRecipesRequest, context: Any) -> pb.ListRecipesResponse:
        """See compiler.proto."""
        return pb.ListRecipesResponse(
            recipes=[to_recipe(read_shipped(name), f"recipes/{name}") for name in shipped_names()]
        )

    async def ValidateRecipe(
        self, request: pb.ValidateRecipeRequest, context: Any
    ) -> pb.ValidateRecipeResponse:
        """See compiler.proto."""
        try:
            recipe = parse_recipe(request.yaml)
        except RecipeError as error:
            raise recipe_refused(error) from error
        message = to_recipe(recipe, "")
        message.yaml = spell_out(recipe)
        return pb.ValidateRecipeResponse(recipe=message)


def to_recipe(recipe: Recipe, name: str) -> pb.Recipe:
    """Return the message of a recipe."""
    rung = recipe.rung
    return pb.Recipe(
        name=name,
        description=recipe.description,
        yaml=recipe.text,
        digest=recipe_digest(recipe),
        datasets=sorted(recipe.needed_datasets),
        variants=recipe.variants,
        rung=pb.Rung(
            order=rung.order,
            no_lighter_than=rung.no_lighter_than,
            no_more_accurate_than=rung.no_more_accurate_than,
        )
        if rung is not None
        else None,
    )
