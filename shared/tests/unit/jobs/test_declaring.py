"""A declared step carries its kind's version, defaults, environment and requirements."""

from boardwright.jobs.domain.blobs import Blob
from boardwright.jobs.domain.declaring import declare_step
from boardwright.jobs.step_api import Determinism, Requirements, StepKind

_KIND = StepKind(
    "build/measure",
    "4",
    Determinism.OBSERVED,
    defaults={"runs": 100, "threads": 1},
    requires=Requirements(memory_bytes=1 << 30),
    environment=lambda: {"onnxruntime": "1.31.1"},
)


def test_everything_comes_from_the_kind_unless_said_otherwise() -> None:
    inputs = {"model": Blob("sha256:" + "a" * 64, 1)}
    spec = declare_step(_KIND, "measure", parameters={"threads": 2}, inputs=inputs)
    assert (spec.kind, spec.version, spec.determinism) == ("build/measure", "4", Determinism.OBSERVED)
    assert spec.parameters == {"runs": 100, "threads": 2}
    assert (spec.environment, spec.requires) == ({"onnxruntime": "1.31.1"}, _KIND.requires)
    on_board = Requirements(board="jetson-orin-nx")
    again = declare_step(_KIND, "measure", parameters={}, inputs=inputs, requires=on_board, again=True)
    assert again.requires == on_board and again.again
