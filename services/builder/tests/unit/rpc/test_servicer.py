"""Requests are read strictly, before anything else is asked."""

from collections.abc import Callable
from typing import Any

import pytest

from boardwright.api.builder.v1 import builder_pb2 as pb
from boardwright.api.types.v1 import types_pb2
from boardwright.builder.catalogue import shipped_catalogue
from boardwright.builder.rpc.convert import from_pin, pin_overrides, to_pin
from boardwright.builder.rpc.servicer import BUILD_JOB, BuilderServicer
from boardwright.builder.service import BuilderService
from boardwright.builder.settings import MIGRATIONS
from boardwright.builder.storage.journal import add_audit_event
from boardwright.builder.workers import WorkersSeen
from boardwright.database import Database
from boardwright.database.outbox import Outbox
from boardwright.jobs.rpc.collection import JobCollection
from boardwright.jobs.service import JobService
from boardwright.model.pins import HardwarePin
from boardwright.rpc.errors import BoardwrightError
from boardwright.testing.database import database_fixture
from boardwright.testing.jobs import SimulatedKeeper

database = database_fixture("builder", MIGRATIONS)
PARENT = "projects/default"
VARIANT = f"{PARENT}/models/digits/versions/3/variants/int8"


@pytest.fixture
def servicer(database: Database, make_registry: Callable[[], Any], datasets: Any) -> BuilderServicer:
    """Return the servicer over simulated neighbours, on a host without VNNI."""
    registry = make_registry()
    registry.add_variant()
    workers = WorkersSeen("x86-64", frozenset({"avx2"}))
    builder = BuilderService(
        database, Outbox(database), add_audit_event, registry, datasets, shipped_catalogue, workers
    )
    jobs = JobService(database, builder, SimulatedKeeper())
    builder.attach(jobs)
    return BuilderServicer(builder, JobCollection(jobs, database, BUILD_JOB))


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({"parent": "default"}, "projects/{project}"),
        ({"variant": "digits@3/int8"}, "variants/{variant}"),
        ({"variant": VARIANT.replace("default", "other")}, "variant is in project other"),
        ({"board": ""}, "catalogue, or host"),
        ({"pin": types_pb2.HardwarePin(bsp="L4T 36.4.3"), "toolchain": "nvcc"}, "onnxruntime, ort-format"),
    ],
)
async def test_a_wrong_build_order_is_told_by_its_field(
    servicer: BuilderServicer, order: dict[str, Any], told: str
) -> None:
    given = {"parent": PARENT, "variant": VARIANT, "board": "host", **order}
    with pytest.raises(BoardwrightError) as caught:
        await servicer.CreateBuildJob(pb.CreateBuildJobRequest(**given), None)
    assert caught.value.reason == "FIELD_INVALID" and told in caught.value.message


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ({}, "1 to 8 artifacts"),
        ({"artifacts": ["digits@3/int8/1"]}, "artifacts/{artifact}"),
        ({"artifacts": [f"{VARIANT}/artifacts/a1"], "runs": -1}, "runs must be 0 to"),
    ],
)
async def test_a_wrong_measure_order_is_told_by_its_field(
    servicer: BuilderServicer, order: dict[str, Any], told: str
) -> None:
    with pytest.raises(BoardwrightError) as caught:
        await servicer.CreateMeasureJob(pb.CreateMeasureJobRequest(parent=PARENT, **order), None)
    assert caught.value.reason == "FIELD_INVALID" and told in caught.value.message


async def test_a_dry_run_has_no_name(servicer: BuilderServicer) -> None:
    request = pb.CreateBuildJobRequest(
        parent=PARENT, variant=VARIANT, board="boards/host", validate_only=True
    )
    job = await servicer.CreateBuildJob(request, None)
    assert job.name == "" and job.steps[0].kind == "build/build"


async def test_this_hosts_profile_is_its_own(servicer: BuilderServicer) -> None:
    """Without VNNI weights keep below what saturates; other boards stay as the catalogue has them."""
    boards = (await servicer.ListBoards(pb.ListBoardsRequest(), None)).boards
    profiles = {board.name: board.quantization_profile.name for board in boards}
    assert profiles["boards/x86-64"] == "x86" and profiles["boards/raspberry-pi-5"] == "arm"


async def test_pages_and_filters_of_boards(servicer: BuilderServicer) -> None:
    first = await servicer.ListBoards(pb.ListBoardsRequest(page_size=3), None)
    second = await servicer.ListBoards(pb.ListBoardsRequest(page_token=first.next_page_token), None)
    assert len(first.boards) == 3 and len(second.boards) == 2 and not second.next_page_token
    with pytest.raises(BoardwrightError) as caught:
        await servicer.ListBoards(
            pb.ListBoardsRequest(page_token=first.next_page_token, filter='name = "x"'), None
        )
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"
    with pytest.raises(BoardwrightError) as caught:
        await servicer.ListBoards(pb.ListBoardsRequest(filter="colour = 1"), None)
    assert caught.value.reason == "FILTER_INVALID"


def test_pins_survive_the_wire() -> None:
    pin = HardwarePin(architecture="aarch64", board="b", cpu_features=("vnni",), runtime="r", bsp="L4T 36.4")
    assert from_pin(to_pin(pin)) == pin
    assert pin_overrides(types_pb2.HardwarePin(bsp="x", cpu_features=["a", "b"])) == {
        "bsp": "x",
        "cpu_features": "a,b",
    }
