"""Client: a project with all verbs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.client import references
from boardwright.client.catalogue import IMPORT_RECIPE, read_recipe
from boardwright.client.optimizing import Optimizer, own_recipes, plan_candidates, wished_toolchains
from boardwright.client.progress import Progress, silent
from boardwright.client.provenance import detect_provenance
from boardwright.client.pushing import BUILDER_LABEL, SpecLike, read_checkpoint
from boardwright.client.releasing import Releasing
from boardwright.client.starting import Starting
from boardwright.rpc.errors import AlreadyExists, BoardwrightError, InvalidArgument, NotFound
from boardwright.selection import Attempt, Constraints, Selection

if TYPE_CHECKING:
    from boardwright.client.auditing import AuditEvent


class Client(Starting, Releasing):
    """A Boardwright server, seen from one project. May be used from several threads.

    Args:
        endpoint: `host:port`, or `https://host:port`; found by `find_credentials` when not given.
        token: likewise.
        project: id of the project that all names are in.
        data: the data folder of a stack on this machine, instead of looking for one.

    Every method raises `BoardwrightError` subclasses: `Unavailable` when the server is away,
    `Unauthenticated` and `PermissionDenied` for a bad token, and what its own docstring lists.

    Raises:
        CredentialsMissing: no server is configured, and none runs here.
    """

    def push(
        self,
        model: str,
        path: str | Path,
        *,
        input_spec: SpecLike | None = None,
        output_spec: SpecLike | None = None,
        classes: Iterable[str] = (),
        format: str | None = None,  # noqa: A002
        module: str | Path | None = None,
        task: str = "",
        commit: str | None = None,
        run: str | None = None,
        metrics: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        description: str = "",
        recipe: str | None = None,
        datasets: Mapping[str, str] | None = None,
        wait: bool = False,
        request_id: str = "",
        progress: Progress = silent,
    ) -> pb.ModelVersion:
        """Upload a checkpoint and record it as the model's next version; the model is created if need be.

        Args:
            model: the model's id.
            path: ONNX, a torch state dict, safetensors, TorchScript, or an Ultralytics `.pt`.
            input_spec: an `InputSpec`, its JSON object or a file with it; may be left out where the
                checkpoint tells (Ultralytics).
            output_spec: likewise an `OutputSpec`.
            classes: class names, completing the output spec.
            format: told by the file's content when not given.
            module: Python file that builds the network of a state dict, "net.py" or "net.py:function". It is
                imported in the step's process alone.
            task: "classification" or "detection"; needed only for a new model without output spec.
            commit, run: found in CI's variables and git when not given; "" for none.
            metrics: as the training reported them.
            labels: free key-value pairs to filter by.
            recipe, datasets: start this recipe on the new version (see `compile`).
            wait: wait for that job; without a recipe, import the checkpoint and wait, which tells whether it
                can be used at all.
            request_id: the same id again gives the same version, whatever happened in between.

        Raises:
            InvalidArgument: what is wrong with the file or a spec, and what to do.
            ResourceExhausted: STORE_FULL, BLOB_TOO_LARGE.
            JobFailed: with `wait`.
            BoardwrightError: with `pushed` in its metadata: that was pushed, and its recipe refused.
        """
        checkpoint = read_checkpoint(
            Path(path),
            format=format,
            module=module,
            input_spec=input_spec,
            output_spec=output_spec,
            labels=tuple(classes),
        )
        task = self._task_of(model, task or checkpoint.task)
        if recipe is not None:
            datasets = self._startable(recipe, datasets)
        files = [
            self.content.upload(file.path, name=file.name, media_type=file.media_type, progress=progress)
            for file in checkpoint.files
        ]
        found = detect_provenance() if commit is None or run is None else None
        marks = dict(labels or {})
        if checkpoint.builder:
            marks[BUILDER_LABEL] = checkpoint.builder
        self._ensure_model(model, task)
        version: pb.ModelVersion = self._connection.registry.CreateModelVersion(
            pb.CreateModelVersionRequest(
                parent=references.model_name(self.project, model),
                version=pb.ModelVersion(
                    format=checkpoint.format,
                    files=files,
                    input_spec_json=checkpoint.input_spec_json,
                    output_spec_json=checkpoint.output_spec_json,
                    commit=commit if commit is not None else found.commit if found else "",
                    run=run if run is not None else found.run if found else "",
                    labels=marks,
                    metrics=dict(metrics or {}),
                    description=description,
                ),
                request_id=request_id,
            )
        )
        if recipe is None and not wait:
            return version
        try:
            job = self.compile(version.name, recipe or IMPORT_RECIPE, datasets=datasets)
            if wait:
                self.jobs.wait(job.name, progress=progress)
                version = self.models.version(version.name)
        except BoardwrightError as error:
            error.metadata["pushed"] = version.name
            error.message = f"{references.shorten(version.name)} was pushed, but then: {error.message}"
            error.args = (error.message,)
            raise
        return version

    def optimize(
        self,
        version: str,
        constraints: Iterable[Constraints],
        *,
        boards: Iterable[str] = ("host",),
        datasets: Mapping[str, str] | None = None,
        recipes: Iterable[str | Path] = (),
        toolchains: Sequence[str] = (),
        exhaustive: bool = False,
        retry: bool = False,
        runs: int = 0,
        time_limit_seconds: float = math.inf,
        progress: Progress = silent,
        on_attempt: Callable[[Attempt], None] = lambda _: None,
    ) -> Selection:
        """Try recipes from cheap to dear until each set of constraints has its variant on each board.

        Each is compiled, built and, where the board is here, measured; the same call again takes all of it
        from the caches. A latency is a board's own or unknown.

        Args:
            version: digits@3, or a full name.
            constraints: one or more sets, each settled for itself.
            boards: catalogue names; "host" is the machine that the workers run on.
            datasets: sealed dataset versions by role; "evaluation" tells what is lost.
            recipes: try these (names or YAML files) instead of those that come with the compiler.
            toolchains: build by each of these ("all": every one that runs here) and keep the fastest;
                without any, by the board's first.
            exhaustive: try every recipe and choose the fastest that satisfies, not the cheapest to make.
            retry: run again what is known to fail.
            runs: of a measurement; 0 for the service's default.
            time_limit_seconds: no candidate goes on beyond it; what has finished stays in the caches.
            on_attempt: called with what came of each recipe, as soon as it is known.

        Raises:
            InvalidArgument: DATASET_MISSING, CONSTRAINTS_MISSING, RECIPE_INVALID, TOOLCHAIN_UNKNOWN.
            NotFound: VERSION_NOT_FOUND, BOARD_NOT_FOUND, DATASET_NOT_FOUND.
            JobFailed: the checkpoint itself cannot be imported or evaluated.
        """
        asked = list(dict.fromkeys(constraints))
        roles = {role: self.datasets.version(text).name for role, text in (datasets or {}).items()}
        if not asked:
            raise InvalidArgument(
                "CONSTRAINTS_MISSING", "say what the variant must keep to, at least one bound"
            )
        if "evaluation" not in roles:
            raise InvalidArgument(
                "DATASET_MISSING",
                "candidates are judged on a labelled dataset: name it (--evaluation DATASET)",
            )
        subject = self.models.version(version)
        found = {board.name: board for board in map(self.boards.get, boards)}
        # A variant that keeps to the strictest set keeps to all.
        drops = [held.max_drop_points for held in asked if held.max_drop_points is not None]
        strictest = min(drops, default=None)
        plans = plan_candidates(self.recipes.list(), own_recipes(self, recipes), roles, strictest)
        optimizer = Optimizer(
            self,
            subject,
            list(found.values()),
            roles,
            toolchains=wished_toolchains(self, found.values(), toolchains),
            runs=runs,
            retry=retry,
            time_limit_seconds=time_limit_seconds,
            progress=progress,
        )
        return optimizer.run(plans, asked, exhaustive=exhaustive, on_attempt=on_attempt)

    def audit(self, model: str = "", *, where: str = "", limit: int = 0) -> Iterator[AuditEvent]:
        """Who did what to a model, or (without one) to all models, datasets and fleets; newest first.

        Raises:
            InvalidArgument: FILTER_INVALID.
        """
        from boardwright.client.auditing import audit

        name = references.model_name(self.project, model) if model else ""
        return audit(self._connection, self.project, name, where=where, limit=limit)

    def _task_of(self, model: str, task: str) -> str:
        """The task to create the model with, "" where it is there; found out before anything is uploaded."""
        try:
            self.models.get(model)
        except NotFound as error:
            if not task:
                raise InvalidArgument(
                    "TASK_NEEDED",
                    f"{model} is a new model: say what it does (--task classification or --task detection), "
                    "or declare its output spec",
                ) from error
            return task
        return ""

    def _startable(self, recipe: str | Path, datasets: Mapping[str, str] | None) -> dict[str, str]:
        """The datasets' full names; a slip of the pen is told before anything is uploaded."""
        _, yaml = read_recipe(recipe)
        if yaml:
            self.recipes.validate(yaml)
        return {role: self.datasets.version(text).name for role, text in (datasets or {}).items()}

    def _ensure_model(self, model: str, task: str) -> None:
        if not task:
            return
        try:
            self.models.create(model, task=task)
        except AlreadyExists as error:
            if error.reason != "MODEL_EXISTS":
                raise
