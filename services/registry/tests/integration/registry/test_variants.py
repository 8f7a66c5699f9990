import pytest

from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2 as types
from boardwright.rpc.client import connect

from .conftest import BOARD, PIN, PROJECT, digest_of, failure

OTHER = types.HardwarePin(board="jetson-orin-nx", architecture="aarch64", runtime="tensorrt")


@pytest.fixture
async def version(client):
    await client.model()
    return (await client.version()).name


async def test_a_variant_needs_the_specs(client):
    await client.model()
    bare = await client.version(input_spec_json="")
    error = await failure(client.variant(bare.name))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "SPEC_NOT_FIXED")
    error = await failure(client.variant(f"{PROJECT}/models/digits/versions/9"))
    assert error.reason == "VERSION_NOT_FOUND"


async def test_a_variant_never_changes(client, version):
    variant = await client.variant(version, "int8")
    assert await client.variant(version, "int8") == variant
    other = pb.CreateVariantRequest(
        parent=version, variant_id="int8", variant=pb.Variant(graph=await client.file("another graph"))
    )
    error = await failure(client.registry.CreateVariant(other))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "VARIANT_EXISTS")
    assert await client.registry.GetVariant(pb.GetVariantRequest(name=variant.name)) == variant


async def test_variants_are_listed_newest_first(client, version):
    for variant_id in ("baseline", "int8", "int4"):
        await client.variant(version, variant_id)
    page = await client.registry.ListVariants(pb.ListVariantsRequest(parent=version, page_size=2))
    assert [v.name.rsplit("/", 1)[1] for v in page.variants] == ["int4", "int8"]
    request = pb.ListVariantsRequest(parent=version, page_size=2, page_token=page.next_page_token)
    assert [v.name.rsplit("/", 1)[1] for v in (await client.registry.ListVariants(request)).variants] == [
        "baseline"
    ]
    filtered = pb.ListVariantsRequest(parent=version, filter="variant = int8")
    assert len((await client.registry.ListVariants(filtered)).variants) == 1


async def test_the_same_build_is_the_same_artifact(client, version):
    variant = (await client.variant(version)).name
    artifact = await client.artifact(variant)
    assert await client.artifact(variant) == artifact
    assert artifact.pin == PIN
    assert artifact.size_bytes == artifact.files[0].size_bytes
    assert (await client.artifact(variant, toolchain="other")).name != artifact.name
    assert await client.registry.GetArtifact(pb.GetArtifactRequest(name=artifact.name)) == artifact


@pytest.mark.parametrize("field", ["board", "architecture", "runtime"])
async def test_an_artifact_needs_an_exact_pin(client, version, field):
    pin = types.HardwarePin()
    pin.CopyFrom(PIN)
    setattr(pin, field, "")
    error = await failure(client.artifact((await client.variant(version)).name, pin))
    assert error.metadata["field"] == f"artifact.pin.{field}"


async def test_artifacts_are_listed_of_one_variant_or_all(client, version):
    first, second = (await client.variant(version, "a")).name, (await client.variant(version, "b")).name
    one, two, three = (
        await client.artifact(first), await client.artifact(second), await client.artifact(second, OTHER)
    )  # fmt: skip

    async def names(parent, filter_=""):
        request = pb.ListArtifactsRequest(parent=parent, filter=filter_)
        return [a.name for a in (await client.registry.ListArtifacts(request)).artifacts]

    assert await names(first) == [one.name]
    assert await names(f"{version}/variants/-") == [three.name, two.name, one.name]
    assert await names(f"{version}/variants/-", "board = jetson-orin-nx") == [three.name]
    assert await names(second, "runtime = onnxruntime AND architecture = aarch64") == [two.name]


async def test_what_is_missing_is_told(client, version):
    gone = f"{version}/variants/none"
    assert (await failure(client.artifact(gone))).reason == "VARIANT_NOT_FOUND"
    variant = (await client.variant(version)).name
    for call, reason in (
        (client.registry.GetVariant(pb.GetVariantRequest(name=gone)), "VARIANT_NOT_FOUND"),
        (
            client.registry.GetArtifact(pb.GetArtifactRequest(name=f"{variant}/artifacts/a1")),
            "ARTIFACT_NOT_FOUND",
        ),
        (client.measure(f"{variant}/artifacts/a1", "size", {"size_bytes": 1}), "ARTIFACT_NOT_FOUND"),
        (client.measure(gone, "size", {"size_bytes": 1}), "VARIANT_NOT_FOUND"),
        (
            client.registry.GetMeasurement(pb.GetMeasurementRequest(name=f"{variant}/measurements/m9")),
            "MEASUREMENT_NOT_FOUND",
        ),
        (client.measure(variant, "size", {"a": 1}, record_digest=digest_of("no")), "BLOB_NOT_FOUND"),
    ):
        assert (await failure(call)).reason == reason


async def test_measurements_come_back_with_their_origin(client, version):
    variant = (await client.variant(version)).name
    artifact = (await client.artifact(variant)).name
    accuracy = await client.measure(
        variant, "accuracy", {"top1": 0.9}, dataset="projects/default/datasets/d/versions/1"
    )
    latency = await client.measure(
        artifact, "latency", {"p95_ms": 12.5, "runs": 100}, board=BOARD, host=PIN, threads=1
    )
    emulated = await client.measure(
        artifact, "latency", {"p95_ms": 2}, board=BOARD, origin=types.ORIGIN_EMULATED,
        host=types.HardwarePin(board="x86-64"),
    )  # fmt: skip
    assert latency.values["p95_ms"] == 12.5
    assert (latency.origin, emulated.origin) == (types.ORIGIN_MEASURED, types.ORIGIN_EMULATED)
    for figure in (accuracy, latency):
        assert await client.registry.GetMeasurement(pb.GetMeasurementRequest(name=figure.name)) == figure

    async def names(parent, filter_=""):
        request = pb.ListMeasurementsRequest(parent=parent, filter=filter_)
        return [m.name for m in (await client.registry.ListMeasurements(request)).measurements]

    assert await names(version) == [emulated.name, latency.name, accuracy.name]
    assert await names(variant) == [emulated.name, latency.name, accuracy.name]
    assert await names(artifact, "origin = measured") == [latency.name]
    assert await names(version, "kind = accuracy") == [accuracy.name]


@pytest.mark.parametrize(
    ("kind", "values", "fields", "field"),
    [
        ("speed", {"a": 1}, {}, "measurement.kind"),
        ("size", {}, {}, "measurement.values"),
        ("size", {"a": float("inf")}, {}, "measurement.values.a"),
        ("size", {"a": 1}, {"origin": types.ORIGIN_UNSPECIFIED}, "measurement.origin"),
        ("accuracy", {"top1": 1}, {}, "measurement.dataset"),
        ("latency", {"p95_ms": 1}, {}, "measurement.board"),
        (
            "latency",
            {"p95_ms": 1},
            {"board": BOARD, "host": types.HardwarePin(board="x86-64")},
            "measurement.origin",
        ),
        ("latency", {"p95_ms": 1}, {"board": BOARD}, "measurement.origin"),
        ("size", {"a": 1}, {"details_json": "{"}, "measurement.details_json"),
    ],
)
async def test_a_wrong_measurement_is_refused(client, version, kind, values, fields, field):
    """Among them: a figure of a board that did not run on it can never be recorded as measured."""
    variant = (await client.variant(version)).name
    error = await failure(client.measure(variant, kind, values, **fields))
    assert error.metadata["field"] == field


@pytest.mark.parametrize("role", ["developer", "releaser", "worker"])
async def test_results_of_steps_are_registered_by_services_alone(client, version, role):
    """Gates and reports rest on them: who may push or promote cannot write down a figure."""
    variant = await client.variant(version)
    async with connect(client.endpoint, token=client.tokens[role]) as channel:
        other = type(client)(client.endpoint, client.tokens, channel, client.contents)
        await client.file(f"graph of {version} forged")
        record = pb.RecordStepRequest(parent=PROJECT, record_digest=variant.graph.digest, kind="compile/x")
        figure = pb.Measurement(kind="size", values={"size_bytes": 1}, origin=types.ORIGIN_MEASURED)
        artifact = pb.Artifact(pin=PIN, toolchain="ort", files=[variant.graph])
        for call in (
            other.variant(version, "forged"),
            other.registry.CreateArtifact(pb.CreateArtifactRequest(parent=variant.name, artifact=artifact)),
            other.registry.CreateMeasurement(
                pb.CreateMeasurementRequest(parent=variant.name, measurement=figure)
            ),
            other.registry.RecordStep(record),
        ):
            error = await failure(call)
            assert (error.code, error.reason) == ("PERMISSION_DENIED", "PERMISSION_MISSING")


async def test_a_service_registers_them(client, version):
    async with connect(client.endpoint, token=client.tokens["service"], principal="dev") as channel:
        service = type(client)(client.endpoint, client.tokens, channel)
        variant = await service.variant(version)
        figure = await service.measure(variant.name, "size", {"size_bytes": 1})
    assert figure.creator == "dev"
