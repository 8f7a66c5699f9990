"""Models: create, read, change, and the ladder of stages that comes with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boardwright.database import Transaction
from boardwright.registry import checks, names
from boardwright.registry.domain.resources import DEFAULT_STAGES, TASKS, Model, ModelKey, Stage
from boardwright.registry.domain.stages import ladder_fault
from boardwright.registry.errors import (
    etag_mismatch,
    field_invalid,
    model_exists,
    model_not_found,
    stage_not_found,
)
from boardwright.registry.ports import Page, Stores
from boardwright.registry.recording import Call, Recorder
from boardwright.rpc.errors import FailedPrecondition
from boardwright.rpc.names import check_id

_UPDATABLE = ("description", "stages", "gates")


class ModelsService:
    """See the module."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._database = recorder.database
        self._stores = recorder.stores

    async def create(self, call: Call, new: Model) -> Model:
        """Create a model. Raises: AlreadyExists MODEL_EXISTS, REQUEST_ID_REUSED; InvalidArgument."""
        check_id(new.key.model, "model_id")
        checks.one_of("model.task", new.task, TASKS)
        checks.text("model.description", new.description)
        new = replace(new, stages=new.stages or DEFAULT_STAGES)
        _check_ladder(new)

        def make(tx: Transaction, now: int) -> Model:
            model = replace(new, create_us=now, update_us=now, revision=1)
            if not self._stores.models.insert_model(tx, model):
                raise model_exists(model.key)
            self._recorder.record(
                tx, call, now, model.key.project, names.model(model.key), "model.created", model
            )
            return model

        return await self._recorder.create(
            call, names.model(new.key), make, lambda m: m.key.model,
            lambda tx, _: _loaded(self._stores, tx, new.key),
        )  # fmt: skip

    async def get(self, key: ModelKey) -> Model:
        """Read a model. Raises: NotFound MODEL_NOT_FOUND."""
        return await self._database.read(lambda tx: _loaded(self._stores, tx, key))

    async def page(self, project: str, page: Page) -> tuple[list[Model], str]:
        """Models of a project by id. Raises: InvalidArgument FILTER_INVALID, PAGE_TOKEN_MISMATCH."""
        return await self._database.read(lambda tx: self._stores.models.list_models(tx, project, page))

    async def update(self, call: Call, new: Model, etag: str, fields: Sequence[str]) -> Model:
        """Change the named fields of a model whose etag is current.

        Raises: NotFound MODEL_NOT_FOUND, Aborted ETAG_MISMATCH, FailedPrecondition STAGE_IN_USE,
        InvalidArgument FIELD_INVALID.
        """
        if not fields:
            raise field_invalid("update_fields", f"name at least one of {', '.join(_UPDATABLE)}")
        for name in fields:
            checks.one_of("update_fields", name, _UPDATABLE)
        checks.text("model.description", new.description)
        if not etag:
            raise field_invalid("model.etag", "is missing; read the model and send its etag")

        def change(tx: Transaction, now: int) -> Model:
            old = _loaded(self._stores, tx, new.key)
            if str(old.revision) != etag:
                raise etag_mismatch(names.model(new.key), str(old.revision))
            chosen = {name: getattr(new, name) for name in fields}
            model = replace(old, **chosen, update_us=now, revision=old.revision + 1)
            _check_ladder(model)
            if model.stages != old.stages:
                _change_ladder(self._stores, tx, model, now)
            if not self._stores.models.update_model(tx, model, old.revision):
                raise etag_mismatch(names.model(new.key), "")
            self._recorder.record(
                tx, call, now, model.key.project, names.model(model.key), "model.changed", model
            )
            return model

        return await self._recorder.change(names.model(new.key), change)

    async def get_stage(self, key: ModelKey, stage: str) -> Stage:
        """Read a stage. Raises: NotFound STAGE_NOT_FOUND."""

        def read(tx: Transaction) -> Stage:
            found = self._stores.models.find_stage(tx, key, stage)
            if found is None:
                raise stage_not_found(key, stage, self._stores.models.list_stages(tx, key))
            return found

        return await self._database.read(read)

    async def list_stages(self, key: ModelKey) -> list[Stage]:
        """The ladder, lowest rung first. Raises: NotFound MODEL_NOT_FOUND."""

        def read(tx: Transaction) -> list[Stage]:
            found = self._stores.models.list_stages(tx, key)
            if not found:
                raise model_not_found(key)
            return found

        return await self._database.read(read)


def _loaded(stores: Stores, tx: Transaction, key: ModelKey) -> Model:
    model = stores.models.find_model(tx, key)
    if model is None:
        raise model_not_found(key)
    return model


def _check_ladder(model: Model) -> None:
    if len(model.stages) > 16 or len(model.gates) > 64:
        raise field_invalid("model", "at most 16 stages and 64 gates")
    for stage in model.stages:
        check_id(stage, "model.stages")
        if stage == "latest":
            raise field_invalid(
                "model.stages", "latest already means the newest release; choose another name"
            )
    fault = ladder_fault(model.stages, model.gates)
    if fault:
        raise field_invalid("model.gates" if "gate" in fault else "model.stages", fault)


def _change_ladder(stores: Stores, tx: Transaction, model: Model, now: int) -> None:
    """Make the stored stages those of `model`. Raises: FailedPrecondition STAGE_IN_USE."""
    stored = {stage.stage: stage for stage in stores.models.list_stages(tx, model.key)}
    for name, stage in stored.items():
        if name not in model.stages:
            if stage.release:
                raise FailedPrecondition(
                    "STAGE_IN_USE",
                    f"stage {name} holds release {stage.release}; a stage in use cannot be removed, "
                    "keep it on the ladder",
                    stage=name,
                    release=str(stage.release),
                )
            stores.models.delete_stage(tx, model.key, name)
    for rung, name in enumerate(model.stages):
        if name not in stored:
            stores.models.insert_stage(tx, Stage(model.key, name, 0, rung, 0, 1, now))
        elif stored[name].rung != rung:
            stores.models.update_stage(tx, replace(stored[name], rung=rung))
