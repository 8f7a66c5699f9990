import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.rpc.client import connect

from .conftest import PROJECT, failure

DROP = pb.Gate(stage="production", accuracy_drop=pb.AccuracyDrop(metric="top1", max_drop_points=1))


async def test_a_model_has_the_default_ladder(client):
    model = await client.model(description="handwritten digits")
    assert list(model.stages) == ["development", "staging", "canary", "production"]
    assert await client.registry.GetModel(pb.GetModelRequest(name=model.name)) == model
    stages = (await client.registry.ListStages(pb.ListStagesRequest(parent=model.name))).stages
    assert [(s.name.rsplit("/", 1)[1], s.rung, s.release) for s in stages] == [
        ("development", 0, ""), ("staging", 1, ""), ("canary", 2, ""), ("production", 3, ""),
    ]  # fmt: skip


async def test_an_id_is_taken_once(client):
    await client.model()
    error = await failure(client.model())
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "MODEL_EXISTS")


async def test_the_same_request_again_gives_the_same_model(client):
    request = pb.CreateModelRequest(
        parent=PROJECT, model_id="digits", model=pb.Model(task="text"), request_id="r1"
    )
    first = await client.registry.CreateModel(request)
    assert await client.registry.CreateModel(request) == first
    request.model_id = "other"
    assert (await failure(client.registry.CreateModel(request))).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("model_id", "fields", "field"),
    [
        ("Digits", {}, "model_id"),
        ("", {}, "model_id"),
        ("a" * 64, {}, "model_id"),
        ("d", {"description": "x" * 5000}, "model.description"),
        ("d", {"stages": ["a", "a"]}, "model.stages"),
        ("d", {"stages": ["latest"]}, "model.stages"),
        ("d", {"stages": ["A"]}, "model.stages"),
        ("d", {"gates": [pb.Gate(stage="production")]}, "model.gates"),
        ("d", {"gates": [pb.Gate(stage="nowhere", accuracy_drop=DROP.accuracy_drop)]}, "model.gates"),
    ],
)
async def test_a_wrong_field_is_named(client, model_id, fields, field):
    error = await failure(client.model(model_id, **fields))
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", field)


async def test_an_unknown_task_is_refused(client):
    request = pb.CreateModelRequest(parent=PROJECT, model_id="d", model=pb.Model(task="magic"))
    error = await failure(client.registry.CreateModel(request))
    assert error.metadata["field"] == "model.task"
    assert "classification" in error.message


async def test_models_are_listed_by_id_in_pages_with_a_filter(client):
    for model_id in ("c", "a", "e", "b", "d"):
        await client.model(model_id)
    seen, token = [], ""
    while True:
        request = pb.ListModelsRequest(
            parent=PROJECT, page_size=2, page_token=token, filter="task = classification"
        )
        page = await client.registry.ListModels(request)
        seen += [m.name.rsplit("/", 1)[1] for m in page.models]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["a", "b", "c", "d", "e"]
    empty = await client.registry.ListModels(pb.ListModelsRequest(parent=PROJECT, filter="task = text"))
    assert not empty.models
    other = pb.ListModelsRequest(parent="projects/other")
    assert not (await client.registry.ListModels(other)).models


async def test_a_page_token_of_another_list_is_refused(client):
    await client.model("a")
    await client.model("b")
    page = await client.registry.ListModels(pb.ListModelsRequest(parent=PROJECT, page_size=1))
    for change in ({"filter": "task = text"}, {"parent": "projects/other"}):
        request = pb.ListModelsRequest(**({"parent": PROJECT, "page_token": page.next_page_token} | change))
        assert (await failure(client.registry.ListModels(request))).reason == "PAGE_TOKEN_MISMATCH"
    wrong = pb.ListModelsRequest(parent=PROJECT, filter="tusk = text")
    error = await failure(client.registry.ListModels(wrong))
    assert error.reason == "FILTER_INVALID"
    assert "did you mean task?" in error.message


async def test_an_update_changes_only_the_named_fields(client):
    model = await client.model(description="old")
    model.description = "new"
    model.gates.append(DROP)
    updated = await client.registry.UpdateModel(pb.UpdateModelRequest(model=model, update_fields=["gates"]))
    assert updated.description == "old"
    assert list(updated.gates) == [DROP]
    stage = await client.registry.GetStage(pb.GetStageRequest(name=f"{model.name}/stages/production"))
    assert list(stage.gates) == [DROP]


async def test_an_update_needs_the_current_etag(client):
    model = await client.model()
    first = pb.UpdateModelRequest(
        model=pb.Model(name=model.name, description="one", etag=model.etag), update_fields=["description"]
    )
    await client.registry.UpdateModel(first)
    error = await failure(client.registry.UpdateModel(first))
    assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
    first.model.etag = ""
    assert (await failure(client.registry.UpdateModel(first))).metadata["field"] == "model.etag"
    for fields in ([], ["task"]):
        wrong = pb.UpdateModelRequest(model=model, update_fields=fields)
        assert (await failure(client.registry.UpdateModel(wrong))).metadata["field"] == "update_fields"


async def test_the_ladder_can_change_but_not_below_a_release(client):
    model = await client.model()
    version = await client.version()
    release = await client.release(version.name)
    await client.promote(release.name, "staging")
    renewed = pb.Model(name=model.name, etag=model.etag, stages=["production", "staging", "lab"])
    updated = await client.registry.UpdateModel(
        pb.UpdateModelRequest(model=renewed, update_fields=["stages"])
    )
    stages = (await client.registry.ListStages(pb.ListStagesRequest(parent=model.name))).stages
    assert [s.name.rsplit("/", 1)[1] for s in stages] == ["production", "staging", "lab"]
    assert stages[1].release == release.name
    without = pb.Model(name=model.name, etag=updated.etag, stages=["production"])
    error = await failure(
        client.registry.UpdateModel(pb.UpdateModelRequest(model=without, update_fields=["stages"]))
    )
    assert (error.code, error.reason, error.metadata["stage"]) == (
        "FAILED_PRECONDITION",
        "STAGE_IN_USE",
        "staging",
    )


async def test_a_missing_model_is_told(client):
    name = f"{PROJECT}/models/none"
    for call in (
        client.registry.GetModel(pb.GetModelRequest(name=name)),
        client.registry.ListStages(pb.ListStagesRequest(parent=name)),
        client.registry.UpdateModel(
            pb.UpdateModelRequest(model=pb.Model(name=name, etag="1"), update_fields=["description"])
        ),
    ):
        assert (await failure(call)).reason == "MODEL_NOT_FOUND"
    error = await failure(client.registry.GetStage(pb.GetStageRequest(name=f"{name}/stages/x")))
    assert error.reason == "STAGE_NOT_FOUND"


@pytest.mark.parametrize(
    ("role", "may_create", "may_update"),
    [
        ("viewer", False, False),
        ("developer", True, False),
        ("releaser", True, True),
        ("worker", False, False),
    ],
)
async def test_roles(client, role, may_create, may_update):
    model = await client.model("theirs")
    async with connect(client.endpoint, token=client.tokens[role]) as channel:
        other = type(client)(client.endpoint, client.tokens, channel)
        if may_create:
            await other.model("mine")
        else:
            assert (await failure(other.model("mine"))).reason == "PERMISSION_MISSING"
        update = pb.UpdateModelRequest(model=model, update_fields=["description"])
        if may_update:
            await other.registry.UpdateModel(update)
        else:
            assert (await failure(other.registry.UpdateModel(update))).reason == "PERMISSION_MISSING"
