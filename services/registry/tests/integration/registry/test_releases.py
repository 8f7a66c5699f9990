import asyncio
import json

import pytest

from boardwright.api.registry.v1 import blobs_pb2
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.rpc.client import connect

from .conftest import BOARD, PIN, PROJECT, failure

MODEL = f"{PROJECT}/models/digits"
PRODUCTION = f"{MODEL}/stages/production"
DATASET = "projects/default/datasets/digits/versions/1"
JETSON = types.HardwarePin(board="jetson-orin-nx", architecture="aarch64", runtime="tensorrt")
GATES = [
    pb.Gate(stage="production", accuracy_drop=pb.AccuracyDrop(metric="top1", max_drop_points=1)),
    pb.Gate(
        stage="production",
        latency_ceiling=pb.LatencyCeiling(board=BOARD, statistic="p95", max_ms=33, threads=1),
    ),
]


def stage(client, name="production"):
    return client.registry.GetStage(pb.GetStageRequest(name=f"{MODEL}/stages/{name}"))


def roll_back(client, etag, **fields):
    return client.registry.RollBackStage(pb.RollBackStageRequest(name=PRODUCTION, etag=etag, **fields))


async def releases(client, count):
    """A model without gates, and releases of one version each."""
    await client.model()
    return [await client.release((await client.version()).name) for _ in range(count)]


async def gated(client):
    """A model whose production is guarded; a release, its variants and its artifact."""
    await client.model(gates=GATES)
    version = (await client.version()).name
    baseline, int8 = await client.variant(version, "baseline"), await client.variant(version, "int8")
    artifact = await client.artifact(int8.name)
    return await client.release(version, artifact.name), baseline.name, int8.name, artifact.name


async def measure_all(client, baseline, int8, artifact, top1=0.975, p95=20.0):
    await client.measure(baseline, "accuracy", {"top1": 0.98}, dataset=DATASET)
    await client.measure(int8, "accuracy", {"top1": top1}, dataset=DATASET)
    await client.measure(artifact, "latency", {"p95_ms": p95}, board=BOARD, host=PIN, threads=1)


async def test_a_release_is_an_oci_index_over_manifests(client):
    await client.model()
    version = (await client.version()).name
    variant = (await client.variant(version)).name
    one, two = await client.artifact(variant), await client.artifact(variant, JETSON)
    release = await client.release(version, one.name, two.name)
    assert release.number == 1
    assert release.version == version
    assert {(e.artifact, e.manifest_digest) for e in release.entries} == {
        (one.name, one.manifest_digest), (two.name, two.manifest_digest),
    }  # fmt: skip
    name = f"{PROJECT}/blobs/{release.index_digest}"
    index = json.loads((await client.blobs.ReadBlob(blobs_pb2.ReadBlobRequest(name=name))).data)
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert {m["digest"] for m in index["manifests"]} == {one.manifest_digest, two.manifest_digest}
    assert {m["annotations"]["dev.boardwright.pin.board"] for m in index["manifests"]} == {
        BOARD,
        "jetson-orin-nx",
    }


async def test_one_artifact_for_each_pin_and_all_of_one_version(client):
    await client.model()
    first, second = (await client.version()).name, (await client.version()).name
    variant = (await client.variant(first)).name
    one, again = await client.artifact(variant), await client.artifact(variant, toolchain="other")
    error = await failure(client.release(first, one.name, again.name))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "PIN_TWICE")
    other = await client.artifact((await client.variant(second)).name, JETSON)
    assert (await failure(client.release(first, one.name, other.name))).reason == "ARTIFACT_OF_OTHER_VERSION"
    assert (await failure(client.release(first, f"{variant}/artifacts/a0"))).reason == "ARTIFACT_NOT_FOUND"
    foreign = f"{PROJECT}/models/other/versions/1/variants/int8/artifacts/a1"
    assert (await failure(client.release(first, foreign))).reason == "FIELD_INVALID"
    empty = pb.CreateReleaseRequest(parent=MODEL)
    assert (await failure(client.registry.CreateRelease(empty))).metadata["field"] == "artifacts"


async def test_a_release_is_found_by_number_latest_and_stage(client):
    one, two = await releases(client, 2)
    await client.promote(one.name, "production")

    def get(reference):
        return client.registry.GetRelease(pb.GetReleaseRequest(name=f"{MODEL}/releases/{reference}"))

    assert (await get("1")) == one
    assert (await get("latest")) == two
    assert (await get("production")) == one
    assert (await failure(get("staging"))).reason == "STAGE_EMPTY"
    for missing in ("9", "nowhere"):
        assert (await failure(get(missing))).reason == "RELEASE_NOT_FOUND"
    listed = await client.registry.ListReleases(pb.ListReleasesRequest(parent=MODEL, filter="version = 2"))
    assert [r.number for r in listed.releases] == [2]


async def test_gates_without_measurements_refuse(client):
    release, baseline, int8, artifact = await gated(client)
    error = await failure(client.promote(release.name, "production"))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "GATE_REFUSED")
    assert error.metadata["gate"] == "AccuracyDrop"
    assert "top1 of variant" in error.message
    assert "p95 latency of artifact" in error.message, "one look tells all that is missing"
    await client.measure(baseline, "accuracy", {"top1": 0.98}, dataset=DATASET)
    await client.measure(int8, "accuracy", {"top1": 0.975}, dataset=DATASET)
    error = await failure(client.promote(release.name, "production"))
    assert error.metadata["gate"] == "LatencyCeiling"
    assert "boardwright measure" in error.message
    await client.measure(
        artifact, "latency", {"p95_ms": 1}, board=BOARD, host=types.HardwarePin(board="x86-64"), threads=1,
        origin=types.ORIGIN_EMULATED,
    )  # fmt: skip
    assert "emulated" in (await failure(client.promote(release.name, "production"))).message
    assert (await stage(client)).release == ""


@pytest.mark.parametrize(
    ("top1", "p95", "gate", "figure", "bound"),
    [(0.96, 20, "AccuracyDrop", "2", "1"), (0.975, 33.5, "LatencyCeiling", "33.5", "33")],
)
async def test_a_failing_gate_names_figure_and_bound(client, top1, p95, gate, figure, bound):
    release, *resources = await gated(client)
    await measure_all(client, *resources, top1=top1, p95=p95)
    error = await failure(client.promote(release.name, "production"))
    assert (error.metadata["gate"], error.metadata["figure"], error.metadata["bound"]) == (
        gate,
        figure,
        bound,
    )
    assert error.metadata["measurement"].startswith(MODEL)


async def test_passing_gates_promote_and_the_history_keeps_the_verdicts(client):
    release, *resources = await gated(client)
    await measure_all(client, *resources)
    answer = await client.promote(release.name, "production", reason="week 47")
    assert answer.passed
    assert answer.stage.release == release.name
    assert [v.passed for v in answer.verdicts] == [True, True]
    (record,) = (await client.registry.ListPromotions(pb.ListPromotionsRequest(parent=MODEL))).promotions
    assert record == answer.promotion
    assert (record.reason, record.actor, record.kind) == ("week 47", "admin", pb.Promotion.KIND_PROMOTE)
    assert [v.gate for v in record.verdicts] == GATES
    assert all(v.measurement for v in record.verdicts)


async def test_a_dry_run_gives_the_verdicts_and_changes_nothing(client):
    release, *resources = await gated(client)
    before = await stage(client)
    dry = await client.promote(release.name, "production", etag="", validate_only=True)
    assert not dry.passed
    assert [v.passed for v in dry.verdicts] == [False, False]
    assert not dry.HasField("promotion")
    await measure_all(client, *resources)
    assert (await client.promote(release.name, "production", validate_only=True)).passed
    assert await stage(client) == before
    assert not (await client.registry.ListPromotions(pb.ListPromotionsRequest(parent=MODEL))).promotions
    events = await client.registry.ListAuditEvents(
        pb.ListAuditEventsRequest(parent=PROJECT, filter="method = PromoteRelease")
    )
    assert not events.events


async def test_other_stages_are_not_guarded_by_these_gates(client):
    release, *_ = await gated(client)
    assert (await client.promote(release.name, "staging")).passed


async def test_a_promotion_needs_the_current_etag(client):
    one, two = await releases(client, 2)
    etag = (await stage(client)).etag
    await client.promote(one.name, "production", etag=etag)
    error = await failure(client.promote(two.name, "production", etag=etag))
    assert (error.code, error.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert (await failure(client.promote(two.name, "production", etag=""))).metadata["field"] == "etag"
    assert (await stage(client)).release == one.name


async def test_of_simultaneous_promotions_one_wins(client):
    made = await releases(client, 4)
    etag = (await stage(client)).etag
    results = await asyncio.gather(
        *(client.promote(r.name, "production", etag=etag) for r in made), return_exceptions=True
    )
    winners = [r for r in results if isinstance(r, pb.PromoteReleaseResponse)]
    assert len(winners) == 1
    assert (await stage(client)) == winners[0].stage


async def test_a_repeated_request_promotes_once(client):
    one, _ = await releases(client, 2)
    etag = (await stage(client)).etag
    first = await client.promote(one.name, "production", etag=etag, request_id="r")
    assert await client.promote(one.name, "production", etag=etag, request_id="r") == first
    history = await client.registry.ListPromotions(pb.ListPromotionsRequest(parent=MODEL))
    assert len(history.promotions) == 1


async def test_roll_back_returns_release_by_release(client):
    one, two, three = await releases(client, 3)
    for release in (one, two, three):
        await client.promote(release.name, "production")
    back = await roll_back(client, (await stage(client)).etag, reason="drift in the field")
    assert back.stage.release == two.name
    assert (back.promotion.kind, back.promotion.previous_release) == (pb.Promotion.KIND_ROLL_BACK, three.name)
    assert back.promotion.reason == "drift in the field"
    back = await roll_back(client, back.stage.etag)
    assert back.stage.release == one.name
    error = await failure(roll_back(client, back.stage.etag))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "NOTHING_TO_ROLL_BACK")
    await client.promote(three.name, "production")
    back = await roll_back(client, (await stage(client)).etag)
    assert back.stage.release == one.name
    history = await client.registry.ListPromotions(
        pb.ListPromotionsRequest(parent=MODEL, filter="stage = production AND kind = roll_back")
    )
    assert len(history.promotions) == 3


async def test_a_release_promoted_twice_is_left_by_one_roll_back(client):
    one, two = await releases(client, 2)
    for release in (one, two, two):
        await client.promote(release.name, "production")
    assert (await roll_back(client, (await stage(client)).etag)).stage.release == one.name


async def test_an_unknown_stage_is_told_which_there_are(client):
    (one,) = await releases(client, 1)
    error = await failure(client.promote(one.name, "prodction", etag="1"))
    assert error.reason == "STAGE_NOT_FOUND"
    assert "production" in error.message


async def test_a_roll_back_can_be_tried_and_needs_the_etag(client):
    one, two = await releases(client, 2)
    await client.promote(one.name, "production")
    await client.promote(two.name, "production")
    dry = await roll_back(client, "", validate_only=True)
    assert dry.stage.release == one.name
    assert not dry.HasField("promotion")
    assert (await stage(client)).release == two.name
    assert (await failure(roll_back(client, ""))).metadata["field"] == "etag"
    assert (await failure(roll_back(client, "999"))).reason == "ETAG_MISMATCH"


async def test_only_a_releaser_promotes(client):
    (one,) = await releases(client, 1)
    async with connect(client.endpoint, token=client.tokens["developer"]) as channel:
        developer = type(client)(client.endpoint, client.tokens, channel)
        assert (await failure(developer.promote(one.name, "production"))).reason == "PERMISSION_MISSING"


async def test_what_is_missing_is_told(client):
    (one,) = await releases(client, 1)
    for name, where, reason in (
        (f"{MODEL}/releases/9", PRODUCTION, "RELEASE_NOT_FOUND"),
        (one.name, f"{MODEL}/stages/nowhere", "STAGE_NOT_FOUND"),
        (one.name, f"{PROJECT}/models/other/stages/production", "FIELD_INVALID"),
    ):
        request = pb.PromoteReleaseRequest(name=name, stage=where, etag="1")
        assert (await failure(client.registry.PromoteRelease(request))).reason == reason
