import asyncio

import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types

from .conftest import PROJECT, digest_of, failure

MODEL = f"{PROJECT}/models/digits"


def get(client, reference):
    return client.registry.GetModelVersion(pb.GetModelVersionRequest(name=f"{MODEL}/versions/{reference}"))


async def listed(client, **fields):
    seen, token = [], ""
    while True:
        request = pb.ListModelVersionsRequest(parent=MODEL, page_token=token, **fields)
        page = await client.registry.ListModelVersions(request)
        seen += [v.number for v in page.versions]
        token = page.next_page_token
        if not token:
            return seen


async def test_a_version_keeps_what_was_pushed(client):
    await client.model()
    pushed = await client.version(
        labels={"team": "edge"}, metrics={"top1": 0.98}, commit="3f2a", run="ci/7", description="first",
        output_spec_json='{ "task": "classification" }',
    )  # fmt: skip
    assert pushed.number == 1
    assert pushed.creator == "admin"
    assert pushed.output_spec_json == '{"task":"classification"}'
    assert pushed.traceparent.startswith("00-")
    assert await get(client, "1") == pushed
    assert await get(client, "latest") == pushed


async def test_numbers_come_without_gaps_from_32_pushers_and_their_retries(client):
    """Every request is sent twice at once with its request_id, and some fail in between."""
    await client.model()
    file = await client.file("weights")

    def push(request_id, digest=""):
        version = pb.ModelVersion(format="onnx", files=[file])
        if digest:
            version.files[0].digest = digest
        return client.registry.CreateModelVersion(
            pb.CreateModelVersionRequest(parent=MODEL, version=version, request_id=request_id)
        )

    async def pusher(i):
        numbers = []
        for n in range(3):
            twice = await asyncio.gather(push(f"{i}-{n}"), push(f"{i}-{n}"))
            assert twice[0] == twice[1]
            numbers.append(twice[0].number)
            assert (
                await failure(push(f"bad-{i}-{n}", digest_of("never uploaded")))
            ).reason == "BLOB_NOT_FOUND"
        assert numbers == sorted(numbers)
        return numbers

    taken = [n for numbers in await asyncio.gather(*(pusher(i) for i in range(32))) for n in numbers]
    assert sorted(taken) == list(range(1, 97))
    assert await listed(client, page_size=10) == list(range(96, 0, -1))


async def test_a_request_id_for_another_push_is_refused(client):
    await client.model()
    request = pb.CreateModelVersionRequest(
        parent=MODEL, version=pb.ModelVersion(format="onnx", files=[await client.file("a")]), request_id="r"
    )
    await client.registry.CreateModelVersion(request)
    request.version.description = "changed"
    error = await failure(client.registry.CreateModelVersion(request))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert await listed(client) == [1]


async def test_a_push_needs_its_model_and_its_content(client):
    assert (await failure(client.version())).reason == "MODEL_NOT_FOUND"
    await client.model()
    missing = types.File(path="m.onnx", digest=digest_of("not there"), size_bytes=3)
    request = pb.CreateModelVersionRequest(
        parent=MODEL, version=pb.ModelVersion(format="onnx", files=[missing])
    )
    error = await failure(client.registry.CreateModelVersion(request))
    assert (error.reason, error.metadata["digests"]) == ("BLOB_NOT_FOUND", missing.digest)


async def test_a_claimed_size_must_be_the_blobs(client):
    await client.model()
    file = await client.file("four")
    file.size_bytes = 10 << 30
    request = pb.CreateModelVersionRequest(parent=MODEL, version=pb.ModelVersion(format="onnx", files=[file]))
    error = await failure(client.registry.CreateModelVersion(request))
    assert (error.reason, error.metadata["field"]) == ("FIELD_INVALID", "size_bytes")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"format": "pickle"}, "version.format"),
        ({"labels": {"bad key": "x"}}, "version.labels"),
        ({"metrics": {"x": float("nan")}}, "version.metrics.x"),
        ({"input_spec_json": "[]"}, "version.input_spec_json"),
        ({"description": "a\x00b"}, "version.description"),
    ],
)
async def test_a_wrong_field_is_named(client, fields, field):
    await client.model()
    version = pb.ModelVersion(**({"format": "onnx", "files": [await client.file("a")]} | fields))
    request = pb.CreateModelVersionRequest(parent=MODEL, version=version)
    assert (await failure(client.registry.CreateModelVersion(request))).metadata["field"] == field


async def test_lists_filter(client):
    await client.model()
    for n in range(1, 7):
        await client.version(labels={"team": "edge" if n % 2 else "cloud"}, commit=f"c{n}")
    assert await listed(client, filter="labels.team = edge") == [5, 3, 1]
    assert await listed(client, filter='number > 2 AND commit = "c4"') == [4]
    assert await listed(client, filter="creator = admin AND NOT number >= 3", page_size=1) == [2, 1]
    assert await listed(client, filter='create_time > "2100-01-01T00:00:00Z"') == []
    assert await listed(client, filter="format = torchscript") == []


@pytest.mark.parametrize("reference", ["2", "999999999999", "latest"])
async def test_a_missing_version_is_told(client, reference):
    await client.model()
    if reference != "latest":
        await client.version()
    error = await failure(get(client, reference))
    assert (error.code, error.reason) == ("NOT_FOUND", "VERSION_NOT_FOUND")


async def test_specs_are_fixed_once(client):
    await client.model()
    version = await client.version(input_spec_json="")

    def fix(layout, output=""):
        return client.registry.FixSpecs(pb.FixSpecsRequest(
            name=version.name, input_spec_json=f'{{"layout": "{layout}"}}', output_spec_json=output
        ))  # fmt: skip

    assert (await fix("NCHW")).input_spec_json == '{"layout":"NCHW"}'
    assert (await fix("NCHW", '{"head":"logits"}')).output_spec_json == '{"head":"logits"}'
    assert (await fix("NCHW")).output_spec_json == '{"head":"logits"}'
    for again in (fix("NHWC"), fix("NCHW", '{"head":"yolov8"}')):
        error = await failure(again)
        assert (error.code, error.reason) == ("FAILED_PRECONDITION", "SPEC_FIXED")
    version.name = f"{MODEL}/versions/9"
    assert (await failure(fix("NCHW"))).reason == "VERSION_NOT_FOUND"


async def test_aliases_move_and_versions_are_found_by_them(client):
    await client.model()
    for _ in range(2):
        await client.version()
    name = f"{MODEL}/aliases/champion"

    def point(number, etag=""):
        alias = pb.Alias(name=name, version=f"{MODEL}/versions/{number}", etag=etag)
        return client.registry.SetAlias(pb.SetAliasRequest(alias=alias))

    first = await point(1)
    assert (await get(client, "champion")).number == 1
    second = await point(2, first.etag)
    assert (await get(client, "champion")).number == 2
    error = await failure(point(1, first.etag))
    assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert error.metadata["current_etag"] == second.etag
    assert (await point(1)).version == f"{MODEL}/versions/1"
    assert (await failure(point(3))).reason == "VERSION_NOT_FOUND"


async def test_an_alias_that_was_made_again_has_another_etag(client):
    await client.model()
    await client.version()
    alias = pb.Alias(name=f"{MODEL}/aliases/a", version=f"{MODEL}/versions/1")
    first = await client.registry.SetAlias(pb.SetAliasRequest(alias=alias))
    await client.registry.DeleteAlias(pb.DeleteAliasRequest(name=alias.name, etag=first.etag))
    await client.registry.SetAlias(pb.SetAliasRequest(alias=alias))
    again = pb.DeleteAliasRequest(name=alias.name, etag=first.etag)
    assert (await failure(client.registry.DeleteAlias(again))).reason == "ETAG_MISMATCH"


async def test_aliases_are_listed_and_deleted(client):
    await client.model()
    await client.version()
    for alias in ("b", "a"):
        await client.registry.SetAlias(pb.SetAliasRequest(
            alias=pb.Alias(name=f"{MODEL}/aliases/{alias}", version=f"{MODEL}/versions/1")))  # fmt: skip
    page = await client.registry.ListAliases(pb.ListAliasesRequest(parent=MODEL, page_size=1))
    assert page.aliases[0].name.endswith("/a")
    request = pb.ListAliasesRequest(parent=MODEL, page_token=page.next_page_token)
    assert (await client.registry.ListAliases(request)).aliases[0].name.endswith("/b")
    name = f"{MODEL}/aliases/a"
    await client.registry.DeleteAlias(pb.DeleteAliasRequest(name=name))
    for call in (
        client.registry.GetAlias(pb.GetAliasRequest(name=name)),
        client.registry.DeleteAlias(pb.DeleteAliasRequest(name=name)),
        get(client, "a"),
    ):
        assert (await failure(call)).reason == "ALIAS_NOT_FOUND"


@pytest.mark.parametrize(
    ("alias", "version"),
    [("latest", f"{MODEL}/versions/1"), ("1x", f"{MODEL}/versions/1"),
     ("a", f"{PROJECT}/models/other/versions/1"),
     ("a", f"{MODEL}/versions/latest")],
)  # fmt: skip
async def test_an_odd_alias_is_refused(client, alias, version):
    await client.model()
    await client.version()
    request = pb.SetAliasRequest(alias=pb.Alias(name=f"{MODEL}/aliases/{alias}", version=version))
    assert (await failure(client.registry.SetAlias(request))).reason == "FIELD_INVALID"


async def test_concurrent_moves_with_one_etag_let_one_through(client):
    await client.model()
    await client.version()
    alias = pb.Alias(name=f"{MODEL}/aliases/a", version=f"{MODEL}/versions/1")
    alias.etag = (await client.registry.SetAlias(pb.SetAliasRequest(alias=alias))).etag
    results = await asyncio.gather(
        *(client.registry.SetAlias(pb.SetAliasRequest(alias=alias)) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(r, pb.Alias) for r in results) == 1
