"""Models, their stages, and the promotions between them."""

from __future__ import annotations

from typing import get_args

from boardwright.database import Row, Transaction
from boardwright.database.filters import Field
from boardwright.database.listing import Listing
from boardwright.registry.domain.resources import Gate, Model, ModelKey, Promotion, PromotionKind, Stage
from boardwright.registry.ports import Page
from boardwright.registry.storage.rows import (
    encode,
    encode_gates,
    encode_verdicts,
    to_model,
    to_promotion,
    to_stage,
)

_MODELS = Listing(
    "models",
    "model",
    {"task": Field("task"), "create_time": Field("create_us", "time")},
    descending=False,
)
_PROMOTIONS = Listing(
    "promotions",
    "number",
    {
        "stage": Field("stage"),
        "kind": Field("kind", values=get_args(PromotionKind)),
        "actor": Field("actor"),
        "create_time": Field("create_us", "time"),
    },
)


def insert_model(tx: Transaction, model: Model) -> bool:
    """Store a new model and its empty stages; False if the id is taken."""
    stored = tx.execute(
        "INSERT INTO models (project, model, task, description, stages, gates, create_us, update_us,"
        " revision)"
        " VALUES (:project, :model, :task, :description, :stages, :gates, :create_us, :update_us, :revision)"
        " ON CONFLICT DO NOTHING",
        project=model.key.project,
        model=model.key.model,
        task=model.task,
        description=model.description,
        stages=encode(model.stages),
        gates=encode_gates(model.gates),
        create_us=model.create_us,
        update_us=model.update_us,
        revision=model.revision,
    )
    if not stored:
        return False
    for rung, stage in enumerate(model.stages):
        insert_stage(tx, Stage(model.key, stage, 0, rung, 0, 1, model.create_us))
    return True


def update_model(tx: Transaction, model: Model, revision: int) -> bool:
    """Store `model` over the one at `revision`; False if that is no longer current."""
    return bool(
        tx.execute(
            "UPDATE models SET description = :description, stages = :stages, gates = :gates,"
            " update_us = :update_us, revision = :new_revision"
            " WHERE project = :project AND model = :model AND revision = :revision",
            project=model.key.project,
            model=model.key.model,
            description=model.description,
            stages=encode(model.stages),
            gates=encode_gates(model.gates),
            update_us=model.update_us,
            new_revision=model.revision,
            revision=revision,
        )
    )


def model_exists(tx: Transaction, key: ModelKey) -> bool:
    """Whether there is such a model."""
    sql = "SELECT 1 AS found FROM models WHERE project = :project AND model = :model"
    return tx.one(sql, project=key.project, model=key.model) is not None


def find_model(tx: Transaction, key: ModelKey) -> Model | None:
    """The model, or None."""
    sql = "SELECT * FROM models WHERE project = :project AND model = :model"
    row = tx.one(sql, project=key.project, model=key.model)
    return None if row is None else to_model(row)


def list_models(tx: Transaction, project: str, page: Page) -> tuple[list[Model], str]:
    """By id."""
    return _MODELS.read(tx, page, to_model, {"project": project})


def insert_stage(tx: Transaction, stage: Stage) -> None:
    """Store a new stage. The id must be free."""
    tx.execute(
        "INSERT INTO stages (project, model, stage, release, rung, promotion, revision, update_us)"
        " VALUES (:project, :model, :stage, :release, :rung, :promotion, :revision, :update_us)",
        project=stage.key.project,
        model=stage.key.model,
        stage=stage.stage,
        release=stage.release,
        rung=stage.rung,
        promotion=stage.promotion,
        revision=stage.revision,
        update_us=stage.update_us,
    )


def update_stage(tx: Transaction, stage: Stage) -> None:
    """Store a stage's new state (the caller has read it in this transaction)."""
    changed = tx.execute(
        "UPDATE stages SET release = :release, rung = :rung, promotion = :promotion, revision = :revision,"
        " update_us = :update_us WHERE project = :project AND model = :model AND stage = :stage",
        project=stage.key.project,
        model=stage.key.model,
        stage=stage.stage,
        release=stage.release,
        rung=stage.rung,
        promotion=stage.promotion,
        revision=stage.revision,
        update_us=stage.update_us,
    )
    if changed != 1:
        raise LookupError(f"stage {stage.stage} vanished within a transaction")


def delete_stage(tx: Transaction, key: ModelKey, stage: str) -> None:
    """Remove an empty stage; its promotions stay in the history."""
    tx.execute(
        "DELETE FROM stages WHERE project = :project AND model = :model AND stage = :stage",
        project=key.project,
        model=key.model,
        stage=stage,
    )


def _gates(tx: Transaction, key: ModelKey) -> tuple[Gate, ...]:
    model = find_model(tx, key)
    return () if model is None else model.gates


def find_stage(tx: Transaction, key: ModelKey, stage: str) -> Stage | None:
    """The stage with its gates, or None."""
    row = tx.one(
        "SELECT * FROM stages WHERE project = :project AND model = :model AND stage = :stage",
        project=key.project,
        model=key.model,
        stage=stage,
    )
    return None if row is None else to_stage(row, _gates(tx, key))


def list_stages(tx: Transaction, key: ModelKey) -> list[Stage]:
    """The ladder, lowest rung first."""
    rows = tx.all(
        "SELECT * FROM stages WHERE project = :project AND model = :model ORDER BY rung",
        project=key.project,
        model=key.model,
    )
    gates = _gates(tx, key)
    return [to_stage(row, gates) for row in rows]


def insert_promotion(tx: Transaction, record: Promotion) -> None:
    """Add to the history."""
    tx.execute(
        "INSERT INTO promotions (project, model, number, kind, stage, release, previous_release,"
        " base, reason,"
        " verdicts, actor, create_us)"
        " VALUES (:project, :model, :number, :kind, :stage, :release, :previous_release, :base,"
        " :reason, :verdicts, :actor, :create_us)",
        project=record.key.project,
        model=record.key.model,
        number=record.number,
        kind=record.kind,
        stage=record.stage,
        release=record.release,
        previous_release=record.previous_release,
        base=record.base,
        reason=record.reason,
        verdicts=encode_verdicts(record.verdicts),
        actor=record.actor,
        create_us=record.create_us,
    )


def find_promotion(tx: Transaction, key: ModelKey, number: int) -> Promotion | None:
    """A promotion by its number, or None."""
    row: Row | None = tx.one(
        "SELECT * FROM promotions WHERE project = :project AND model = :model AND number = :number",
        project=key.project,
        model=key.model,
        number=number,
    )
    return None if row is None else to_promotion(row)


def list_promotions(tx: Transaction, key: ModelKey, page: Page) -> tuple[list[Promotion], str]:
    """Newest first."""
    return _PROMOTIONS.read(tx, page, to_promotion, {"project": key.project, "model": key.model})
