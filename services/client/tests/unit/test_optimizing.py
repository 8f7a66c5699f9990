"""What is tried, which variant is meant, which figures count, and which failures are known."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.api.registry.v1 import registry_pb2 as pb
from boardwright.api.types.v1 import types_pb2
from boardwright.client.board_figures import BoardFigures, costs_of, size_to_load
from boardwright.client.jobs import JobFailed, Jobs
from boardwright.client.optimizing import Optimizer, made_by, plan_candidates, wished_toolchains
from boardwright.client.progress import silent
from boardwright.content.oci import ENGINE_MEDIA_TYPE, WEIGHTS_MEDIA_TYPE
from boardwright.rpc.errors import (
    BoardwrightError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from boardwright.selection import Constraints

VERSION = "projects/p/models/digits/versions/3"


def recipe(name: str, order: int = 0, **fields: Any) -> compiler_pb2.Recipe:
    held = {"datasets": ["evaluation"], "variants": ["baseline", "int8"], **fields}
    rung = compiler_pb2.Rung(order=order) if order else None
    return compiler_pb2.Recipe(name=f"recipes/{name}", rung=rung, **held)


SHIPPED = [
    recipe("baseline", 10, variants=["baseline"]),
    recipe("trained", 60, datasets=["calibration", "evaluation", "training"]),
    recipe("comparison"),
    recipe("default", 20, datasets=["calibration", "evaluation"]),
]


def test_recipes_with_a_rung_are_tried_in_order_where_their_datasets_are_given() -> None:
    plans = plan_candidates(SHIPPED, [], ["calibration", "evaluation"])
    assert [plan.candidate.name for plan in plans] == ["baseline", "default", "trained"]
    assert [plan.candidate.not_possible for plan in plans] == ["", "", "needs a training dataset"]
    assert [plan.candidate.is_baseline for plan in plans] == [True, False, False]


SHIPPED_RECIPES = Path(__file__).parents[3] / "compiler/src/boardwright/compiler/recipes"
MIXED = """version: 1
name: mixed
passes:
  - pass: protect
    budget:
      max_drop: 0.5
  - pass: quantize
"""


def test_a_budget_of_loss_is_what_was_asked_for() -> None:
    mixed = recipe("mixed", 40, yaml=MIXED)
    roles = ["calibration", "evaluation"]

    def planned(points: float | None, own: list[Any] | None = None) -> list[str]:
        return [plan.recipe for plan in plan_candidates([SHIPPED[3], mixed], own or [], roles, points)]

    assert "mixed" in planned(None) and "mixed" in planned(0.5)
    (text,) = [text for text in planned(2.0) if "\n" in text]
    assert text == MIXED.replace("max_drop: 0.5", "max_drop: 2")
    shipped = SHIPPED_RECIPES / "mixed.yaml"
    mixed = recipe("mixed", 40, yaml=shipped.read_text(encoding="utf-8"))
    assert any("max_drop: 2\n" in text for text in planned(2.0))
    assert "mine.yaml" in planned(2.0, [("mine", "mine.yaml", recipe("mine", yaml=MIXED))])


def test_a_caller_s_recipes_are_tried_instead_beside_the_baseline() -> None:
    own = [("mine", "version: 1\n", recipe("", 0)), ("trained", "trained", SHIPPED[1])]
    plans = plan_candidates(SHIPPED, own, ["calibration", "evaluation", "training"])
    assert [plan.candidate.name for plan in plans] == ["baseline", "trained", "mine"]
    assert plans[-1].recipe == "version: 1\n"


def test_variants_of_a_job_are_told_with_their_profiles() -> None:
    plan = [
        {"makes_variant": True, "profile": ""},
        {"makes_variant": False, "profile": ""},
        {"makes_variant": True, "profile": "x86"},
        {"makes_variant": True, "profile": "arm"},
    ]
    names = [f"{VERSION}/variants/{name}" for name in ("baseline", "int8-x86", "int8-arm")]
    job = jobs_pb2.Job(
        spec_json=json.dumps({"plan": plan}),
        results=[names[0], f"{names[0]}/measurements/1", *names[1:], f"{names[1]}/measurements/2"],
    )
    assert made_by(job) == list(zip(names, ("", "x86", "arm"), strict=True))


def measurement(
    kind: str, origin: Any, board: str = "pi", warnings: Sequence[str] = (), **values: float
) -> pb.Measurement:
    details = json.dumps({"warnings": warnings}) if warnings else ""
    return pb.Measurement(
        kind=kind, origin=origin, board=board, threads=1, values=values, details_json=details
    )


def test_only_figures_that_were_measured_on_the_board_count() -> None:
    artifact = pb.Artifact(name="a", files=[types_pb2.File(size_bytes=7)], size_bytes=9)
    found = costs_of(
        artifact,
        "pi",
        [
            measurement("latency", types_pb2.ORIGIN_EMULATED, p95_ms=1.0),
            measurement("latency", types_pb2.ORIGIN_MEASURED, "x86-64", p95_ms=2.0),
            measurement("latency", types_pb2.ORIGIN_MEASURED, p95_ms=3.0, warnings=["The host was busy."]),
            measurement("latency", types_pb2.ORIGIN_MEASURED, p95_ms=4.0, warnings=["Long ago."]),
            measurement("memory", types_pb2.ORIGIN_EMULATED, peak_rss_bytes=5.0),
        ],
    )
    assert found.latencies_ms == {1: {"p95_ms": 3.0}}, "the newest measured on that board"
    assert (found.size_bytes, found.memory_bytes) == (7, None)
    assert found.warnings == ("The host was busy.",), "what that run said, not an earlier one"


class _Boards:
    def __init__(self) -> None:
        self.boards = self

    def toolchains(self) -> list[builder_pb2.Toolchain]:
        told = {"onnxruntime": True, "openvino": True, "tensorrt": False}
        return [builder_pb2.Toolchain(name=f"toolchains/{n}", available=here) for n, here in told.items()]


def test_toolchains_are_those_of_the_board_that_run_here() -> None:
    client: Any = _Boards()
    boards = [
        builder_pb2.Board(name="boards/pc", toolchains=["onnxruntime", "openvino"]),
        builder_pb2.Board(name="boards/jetson", toolchains=["tensorrt", "onnxruntime"]),
    ]
    assert wished_toolchains(client, boards, []) == {}
    found = wished_toolchains(client, boards, ["all"])
    assert found == {"pc": ["onnxruntime", "openvino"], "jetson": ["onnxruntime"]}
    assert wished_toolchains(client, boards[:1], ["openvino"]) == {"pc": ["openvino"]}
    with pytest.raises(InvalidArgument, match="jetson is built for by tensorrt, onnxruntime"):
        wished_toolchains(client, boards, ["openvino"])


class _Builds:
    """A client whose artifacts are as fast as their toolchain."""

    def __init__(self, latencies: dict[str, float]) -> None:
        self.models = self.jobs = self
        self._latencies = latencies
        self.measured: list[list[str]] = []

    def build(self, variant: str, board: str, *, toolchain: str, **_: Any) -> jobs_pb2.Job:
        if toolchain not in self._latencies:
            raise FailedPrecondition("OPERATOR_UNSUPPORTED", f"{toolchain} cannot")
        return jobs_pb2.Job(name="b", results=[f"{variant}/artifacts/{toolchain}"])

    def wait(self, job: str, **_: Any) -> jobs_pb2.Job:
        return self._job

    def measure(self, artifacts: list[str], **_: Any) -> jobs_pb2.Job:
        self.measured.append(artifacts)
        return jobs_pb2.Job(name="m")

    def artifact(self, name: str) -> pb.Artifact:
        return pb.Artifact(name=name, toolchain=name.rpartition("/")[2])

    def measurements(self, artifact: str) -> list[pb.Measurement]:
        if not any(artifact in names for names in self.measured):
            return []
        p50 = self._latencies[artifact.rpartition("/")[2]]
        return [measurement("latency", types_pb2.ORIGIN_MEASURED, p50_ms=p50)]


def test_of_several_toolchains_the_fastest_counts_and_each_is_measured_beside_its_own_baseline() -> None:
    client: Any = _Builds({"onnxruntime": 5.0, "openvino": 4.0})
    real_build = client.build

    def build(variant: str, board: str, **options: Any) -> jobs_pb2.Job:
        client._job = real_build(variant, board, **options)
        return client._job

    client.build = build
    costs = BoardFigures(client, "", toolchains={"pi": ["onnxruntime", "litert", "openvino"]})
    costs.of("v/baseline", "pi", is_baseline=True, progress=silent)
    found = costs.of("v/int8", "pi", is_baseline=False, progress=silent)
    assert (found.toolchain, found.latencies_ms[1]["p50_ms"]) == ("openvino", 4.0)
    assert ["v/baseline/artifacts/openvino", "v/int8/artifacts/openvino"] in client.measured
    with pytest.raises(FailedPrecondition, match="litert cannot"):
        BoardFigures(client, "", toolchains={"pi": ["litert"]}).of(
            "v/int8", "pi", is_baseline=False, progress=silent
        )


class _Client:
    """A client whose compiler remembers one job that crashed, and plans the same or another step."""

    def __init__(self, planned_key: str) -> None:
        self.jobs = self
        self._planned_key = planned_key
        self.asked: list[str] = []
        self.compiled: list[bool] = []

    def list(self, *, kind: str, where: str, limit: int) -> Iterator[jobs_pb2.Job]:
        self.asked.append(where)
        failure = jobs_pb2.StepFailure(reason="STEP_CRASHED", message="it ended by signal 11.")
        crashed = jobs_pb2.Step(
            step="quantize-int8", state=jobs_pb2.Step.STATE_FAILED, cache_key="k1", failure=failure
        )
        yield jobs_pb2.Job(steps=[crashed])

    def compile(self, version: str, recipe: str, **options: Any) -> jobs_pb2.Job:
        self.compiled.append(options.get("validate_only", False))
        if not options.get("validate_only"):
            raise Unavailable("SERVICE_AWAY", "nothing runs in this test")
        step = jobs_pb2.Step(step="quantize-int8", cache_key=self._planned_key)
        return jobs_pb2.Job(steps=[step])


def optimizer(client: _Client, *, retry: bool = False) -> Optimizer:
    board = builder_pb2.Board(name="boards/pi")
    return Optimizer(client, pb.ModelVersion(name=VERSION), [board], {}, retry=retry)  # type: ignore[arg-type]


PLANS = plan_candidates([SHIPPED[3]], [], ["calibration", "evaluation"])


def test_a_step_that_crashed_before_is_not_run_again() -> None:
    client = _Client("k1")
    found = optimizer(client).run(PLANS, [Constraints(max_drop_points=1)])
    failure = found.attempts[0].failure
    assert failure is not None and (failure.reason, failure.known) == ("STEP_CRASHED", True)
    assert client.compiled == [True]
    assert client.asked == ['state = "STATE_FAILED" AND title = "digits@3 by default"']


@pytest.mark.parametrize(("key", "retry"), [("k2", False), ("k1", True)])
def test_another_step_or_retry_runs(key: str, retry: bool) -> None:
    client = _Client(key)
    with pytest.raises(Unavailable):
        optimizer(client, retry=retry).run(PLANS, [Constraints(max_drop_points=1)])
    assert client.compiled[-1] is False


def test_when_the_time_is_up_nothing_new_begins() -> None:
    client = _Client("k2")
    board = builder_pb2.Board(name="boards/pi")
    search = Optimizer(
        client,  # type: ignore[arg-type]
        pb.ModelVersion(name=VERSION),
        [board],
        {},
        time_limit_seconds=-1,
    )
    found = search.run(PLANS, [Constraints(max_drop_points=1)])
    assert found.attempts[0].skipped.endswith("minutes are used up")
    assert client.compiled == []


class _Slow(_Client):
    """Runs a job that tells of no progress until it is cancelled."""

    def __init__(self) -> None:
        super().__init__("k2")
        self.cancelled: list[tuple[str, str]] = []
        self.ended = threading.Event()

    def compile(self, version: str, recipe: str, **options: Any) -> jobs_pb2.Job:
        return jobs_pb2.Job(name="projects/p/compileJobs/1")

    def wait(self, job: str, *, progress: Any) -> jobs_pb2.Job:
        self.ended.wait(60)
        raise JobFailed(jobs_pb2.Job(name=job, state=jobs_pb2.Job.STATE_CANCELLED))

    def cancel(self, job: str, reason: str) -> None:
        self.cancelled.append((job, reason))
        self.ended.set()


def test_a_candidate_that_takes_too_long_is_cancelled() -> None:
    client = _Slow()
    board = builder_pb2.Board(name="boards/pi")
    search = Optimizer(
        client,  # type: ignore[arg-type]
        pb.ModelVersion(name=VERSION),
        [board],
        {},
        time_limit_seconds=0.05,
    )
    found = search.run(PLANS, [Constraints(max_drop_points=1)])
    assert found.attempts[0].skipped.startswith("stopped after")
    assert client.cancelled and client.cancelled[0][1].startswith("optimize was given")


class _Refusing(_Client):
    def __init__(self, refusal: BoardwrightError) -> None:
        super().__init__("k2")
        self._refusal = refusal

    def list(self, **_: Any) -> Iterator[jobs_pb2.Job]:
        yield from ()

    def compile(self, version: str, recipe: str, **options: Any) -> jobs_pb2.Job:
        raise self._refusal


@pytest.mark.parametrize(
    "refusal",
    [
        FailedPrecondition("DATASET_MISSING", "the recipe default, line 3: distill needs a dataset"),
        NotFound("VERSION_NOT_FOUND", "there is no version resnet@7"),
    ],
)
def test_a_recipe_that_is_refused_is_its_own_failure_and_not_the_searchs_end(
    refusal: BoardwrightError,
) -> None:
    failure = optimizer(_Refusing(refusal)).run(PLANS, [Constraints(max_drop_points=1)]).attempts[0].failure
    assert failure is not None
    assert (failure.step, failure.reason, failure.message) == ("recipe", refusal.reason, refusal.message)
    baseline = plan_candidates([SHIPPED[0]], [], ["evaluation"])
    with pytest.raises(type(refusal)):
        optimizer(_Refusing(refusal)).run(baseline, [Constraints(max_drop_points=1)])


class _Stub:
    def __init__(self, job: jobs_pb2.Job) -> None:
        self.compiler = self
        self._job = job

    def GetCompileJob(self, request: Any) -> jobs_pb2.Job:
        return self._job


class _Content:
    def download(self, digest: str, path: Path, **_: Any) -> Path:
        path.write_text(digest)
        return path


def jobs(**outputs: str) -> Jobs:
    blobs = {name.replace("__", "/"): jobs_pb2.Blob(digest=digest) for name, digest in outputs.items()}
    job = jobs_pb2.Job(name="projects/p/compileJobs/1", steps=[jobs_pb2.Step(step="evaluate", outputs=blobs)])
    return Jobs(_Stub(job), _Content(), "p")  # type: ignore[arg-type]


def test_outputs_go_to_a_folder_for_each_step(tmp_path: Path) -> None:
    paths = jobs(b="2", a="1").download("compileJobs/1", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["evaluate/a", "evaluate/b"]
    assert paths[0].read_text() == "1"


def test_an_output_never_leaves_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no name for a file"):
        jobs(**{"..__..__x": "1"}).download("compileJobs/1", tmp_path / "inner")
    assert not list(tmp_path.rglob("x"))


def test_the_size_is_of_all_that_the_runtime_loads() -> None:
    files = [
        types_pb2.File(path="model.xml", size_bytes=100, media_type=ENGINE_MEDIA_TYPE),
        types_pb2.File(path="model.bin", size_bytes=900, media_type=WEIGHTS_MEDIA_TYPE),
        types_pb2.File(path="golden.npz", size_bytes=50),
    ]
    assert size_to_load(pb.Artifact(files=files, size_bytes=1050)) == 1000
    assert size_to_load(pb.Artifact(size_bytes=7)) == 7
