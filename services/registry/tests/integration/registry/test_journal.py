"""Lineage, audit and events: every change leaves all its traces, or none."""

import asyncio
import json

import alembic.command
import grpc
import pytest
import sqlalchemy as sa

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.registry.v1 import registry_pb2_grpc
from boardwright.database.migrating import configuration
from boardwright.registry.recording import Recorder
from boardwright.registry.settings import MIGRATIONS
from boardwright.registry.storage.tables import METADATA
from boardwright.rpc.client import connect

from .conftest import PROJECT, digest_of, failure

MODEL = f"{PROJECT}/models/digits"


def lineage(client, start, direction=pb.GetLineageRequest.DIRECTION_UNSPECIFIED, depth=0):
    return client.registry.GetLineage(
        pb.GetLineageRequest(parent=PROJECT, id=start, direction=direction, depth=depth)
    )


async def whole_way(client):
    """A push, a step, a variant, an artifact, a release on a stage."""
    await client.model()
    version = await client.version(content="checkpoint")
    record = await client.file("in-toto record")
    graph = await client.file(f"graph of {version.name} int8")
    await client.registry.RecordStep(pb.RecordStepRequest(
        parent=PROJECT, record_digest=record.digest, kind="compile/quantize",
        inputs={"checkpoint": version.files[0].digest}, outputs={"graph": graph.digest},
    ))  # fmt: skip
    variant = await client.variant(version.name)
    artifact = await client.artifact(variant.name)
    release = await client.release(version.name, artifact.name)
    await client.promote(release.name, "production", reason="go")
    return version, record, variant, artifact, release


async def test_lineage_leads_from_the_release_to_the_checkpoint_and_back(client):
    version, record, variant, artifact, release = await whole_way(client)
    up = await lineage(client, release.name, pb.GetLineageRequest.DIRECTION_ANCESTORS)
    nodes = {n.id: n for n in up.nodes}
    for expected in (release, artifact, variant, version):
        assert expected.name in nodes
    step = nodes[record.digest]
    assert (step.kind, step.title) == ("step", "compile/quantize")
    assert nodes[version.files[0].digest].kind == "blob"
    assert (nodes[variant.name].kind, nodes[variant.name].title) == ("variants", "digits 1 int8")
    edges = {(e.from_id, e.to_id, e.role) for e in up.edges}
    assert (version.files[0].digest, record.digest, "checkpoint") in edges
    assert (record.digest, variant.graph.digest, "graph") in edges
    down = await lineage(client, version.files[0].digest, pb.GetLineageRequest.DIRECTION_DESCENDANTS)
    assert release.name in {n.id for n in down.nodes}
    near = await lineage(client, release.name, pb.GetLineageRequest.DIRECTION_ANCESTORS, depth=1)
    assert {n.id for n in near.nodes} == {release.name, artifact.name}
    assert near.truncated


async def test_variants_of_equal_graphs_have_the_lineage_of_their_own_steps(client):
    await client.model()
    graph = await client.file("the same graph")
    variants, records = [], []
    for name in ("one", "two"):
        version = await client.version(content=name)
        record = await client.file(f"record of {name}")
        await client.registry.RecordStep(pb.RecordStepRequest(
            parent=PROJECT, record_digest=record.digest, kind="compile/quantize",
            inputs={"checkpoint": version.files[0].digest}, outputs={"graph": graph.digest},
        ))  # fmt: skip
        variants.append(await client.registry.CreateVariant(pb.CreateVariantRequest(
            parent=version.name, variant_id="int8",
            variant=pb.Variant(graph=graph, record_digest=record.digest),
        )))  # fmt: skip
        records.append(record.digest)
    for variant, own, other in zip(variants, records, reversed(records), strict=True):
        up = await lineage(client, variant.name, pb.GetLineageRequest.DIRECTION_ANCESTORS)
        assert (own in {n.id for n in up.nodes}, other in {n.id for n in up.nodes}) == (True, False)
        down = await lineage(client, own, pb.GetLineageRequest.DIRECTION_DESCENDANTS)
        assert [n.id for n in down.nodes if n.kind == "variants"] == [variant.name]
    around = await lineage(client, graph.digest)
    assert set(records) <= {n.id for n in around.nodes}


async def test_what_was_made_before_gets_its_record_edge(database):
    alembic.command.downgrade(configuration(database.url, database.schema, MIGRATIONS), "0002_blobs")
    columns = {
        "variants": {"variant": "int8", "graph": "{}"},
        "measurements": {"variant": "int8", "artifact": "", "measurement": "m2"},
    }

    def fill(tx):
        for table, own in columns.items():
            held = METADATA.tables[table].columns
            values = {c.name: 1 if isinstance(c.type, sa.BigInteger) else "x" for c in held}
            values |= {"project": "p", "model": "digits", "number": 3, "record_digest": "sha256:r", **own}
            marks = ", ".join(f":{name}" for name in values)
            tx.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", **values)

    await database.write(fill)
    alembic.command.upgrade(configuration(database.url, database.schema, MIGRATIONS), "head")
    rows = await database.read(
        lambda tx: tx.all("SELECT from_id, to_id, role FROM lineage_edges ORDER BY to_id")
    )
    variant = "projects/p/models/digits/versions/3/variants/int8"
    assert [(row["from_id"], row["to_id"], row["role"]) for row in rows] == [
        ("sha256:r", variant, "record"),
        ("sha256:r", f"{variant}/measurements/m2", "record"),
    ]


async def test_a_step_is_recorded_once(client):
    record = await client.file("record")
    request = pb.RecordStepRequest(
        parent=PROJECT, record_digest=record.digest, kind="k", inputs={"a": digest_of("a")}
    )
    for _ in range(2):
        await client.registry.RecordStep(request)
    assert len((await lineage(client, record.digest)).edges) == 1
    request.record_digest = digest_of("never stored")
    assert (await failure(client.registry.RecordStep(request))).reason == "BLOB_NOT_FOUND"
    request.record_digest = "x"
    assert (await failure(client.registry.RecordStep(request))).reason == "FIELD_INVALID"


async def test_unknown_lineage_is_told_and_projects_are_apart(client):
    version, *_ = await whole_way(client)
    assert (await failure(lineage(client, digest_of("nothing")))).reason == "LINEAGE_NOT_FOUND"
    other = pb.GetLineageRequest(parent="projects/other", id=version.files[0].digest)
    assert (await failure(client.registry.GetLineage(other))).reason == "LINEAGE_NOT_FOUND"
    assert (await failure(lineage(client, version.name, depth=51))).metadata["field"] == "depth"


async def test_every_change_is_audited_and_every_read_is_not(client):
    await whole_way(client)
    await client.registry.ListModels(pb.ListModelsRequest(parent=PROJECT))
    page = await client.registry.ListAuditEvents(pb.ListAuditEventsRequest(parent=PROJECT))
    assert [e.method for e in page.events] == [
        "PromoteRelease", "CreateRelease", "CreateArtifact", "CreateVariant", "RecordStep",
        "CreateModelVersion", "CreateModel",
    ]  # fmt: skip
    assert {e.actor for e in page.events} == {"admin"}
    assert page.events[0].reason == "go"
    filtered = pb.ListAuditEventsRequest(
        parent=PROJECT, filter="method = CreateModel AND actor = admin", page_size=1
    )
    (event,) = (await client.registry.ListAuditEvents(filtered)).events
    assert event.resource == MODEL


async def test_a_forwarded_principal_and_its_service_are_both_audited(client):
    async with connect(client.endpoint, token=client.tokens["service"], principal="ann") as channel:
        await type(client)(client.endpoint, client.tokens, channel).model()
    page = await client.registry.ListAuditEvents(pb.ListAuditEventsRequest(parent=PROJECT))
    assert (page.events[0].actor, page.events[0].service) == ("ann", "service")


async def test_events_tell_every_change_in_order_with_the_resource(client):
    watch = client.registry.WatchEvents(pb.WatchEventsRequest(parent=PROJECT, cursor=""))
    await whole_way(client)
    events = [await asyncio.wait_for(watch.read(), 5) for _ in range(7)]
    watch.cancel()
    assert [e.type for e in events] == [
        "model.created", "version.created", "step.recorded", "variant.created", "artifact.created",
        "release.created", "stage.changed",
    ]  # fmt: skip
    assert json.loads(events[1].data_json)["number"] == 1
    assert json.loads(events[6].data_json)["promotion"]["reason"] == "go"
    assert events[6].subject == f"{MODEL}/stages/production"
    resumed = client.registry.WatchEvents(pb.WatchEventsRequest(parent=PROJECT, cursor=events[4].cursor))
    assert (await asyncio.wait_for(resumed.read(), 5)) == events[5]
    resumed.cancel()


async def test_a_watch_sees_its_project_alone(client):
    watch = client.registry.WatchEvents(pb.WatchEventsRequest(parent="projects/other"))
    await client.model()
    other = pb.CreateModelRequest(parent="projects/other", model_id="theirs", model=pb.Model(task="text"))
    await client.registry.CreateModel(other)
    assert (await asyncio.wait_for(watch.read(), 5)).subject == "projects/other/models/theirs"
    watch.cancel()


async def test_events_name_the_actor_to_those_who_may_read_the_audit_log(client):
    await client.model()

    async def actor(role):
        async with connect(client.endpoint, token=client.tokens[role]) as channel:
            watch = registry_pb2_grpc.RegistryStub(channel).WatchEvents(pb.WatchEventsRequest(parent=PROJECT))
            event = await asyncio.wait_for(watch.read(), 120)
            watch.cancel()
            return event.actor

    assert await actor("releaser")
    assert not await actor("viewer")


async def test_a_cursor_is_checked(client):
    watch = client.registry.WatchEvents(pb.WatchEventsRequest(parent=PROJECT, cursor="nonsense"))
    assert (await failure(watch.read())).reason == "FIELD_INVALID"


CHANGES = {
    "CreateModel": lambda c: c.model("fresh"),
    "CreateModelVersion": lambda c: c.version(),
    "SetAlias": lambda c: c.registry.SetAlias(
        pb.SetAliasRequest(alias=pb.Alias(name=f"{MODEL}/aliases/a", version=f"{MODEL}/versions/1"))
    ),
    "CreateVariant": lambda c: c.variant(f"{MODEL}/versions/1", "late"),
    "PromoteRelease": lambda c: c.promote(f"{MODEL}/releases/1", "canary"),
}


@pytest.mark.parametrize("method", CHANGES)
async def test_a_change_whose_record_fails_did_not_happen(client, database, monkeypatch, method):
    """Change, audit record and event are one transaction: break the last of them, and nothing is there."""
    await whole_way(client)

    def contents(tx):
        tables = ("models", "versions", "aliases", "variants", "promotions", "stages", "audit_events",
                  "events", "counters", "lineage_edges", "requests", "blob_references")  # fmt: skip
        return {
            t: sorted(tuple(map(str, dict(r).values())) for r in tx.all(f"SELECT * FROM {t}")) for t in tables
        }

    await client.file(f"graph of {MODEL}/versions/1 late")
    before = await database.read(contents)
    original = Recorder.record

    def broken(self, tx, *args, **kwargs):
        original(self, tx, *args, **kwargs)
        raise RuntimeError("the last statement fails")

    monkeypatch.setattr(Recorder, "record", broken)
    assert (await failure(CHANGES[method](client))).code == "INTERNAL"
    assert await database.read(contents) == before
    monkeypatch.undo()
    await CHANGES[method](client)
    assert await database.read(contents) != before


async def test_nobody_reads_without_a_role(client):
    for token in ("", "unknown"):
        async with connect(client.endpoint, token=token) as channel:
            stub = registry_pb2_grpc.RegistryStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                await stub.ListModels(pb.ListModelsRequest(parent=PROJECT))
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
