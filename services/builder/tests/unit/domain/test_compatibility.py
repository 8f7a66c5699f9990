"""Where each operator runs, and whether the precision suits the board."""

from dataclasses import replace

from boardwright.builder.catalogue import shipped_catalogue
from boardwright.builder.domain.compatibility import (
    Placement,
    check_compatibility,
    judge_precision,
    profiles_clash,
)
from boardwright.toolchains.graph import OperatorUse
from boardwright.toolchains.precision import Precision

U8S8 = Precision(("uint8",), ("int8",), True, False, True, True, 2, 2)
S8S8 = Precision(("int8",), ("int8",), True, False, True, True, 2, 2)
SYMMETRIC = Precision(("int8",), ("int8",), False, False, True, True, 2, 2)
FLOAT = Precision()


def _uses(*operators: str, version: int = 17, domain: str = "") -> tuple[OperatorUse, ...]:
    return tuple(OperatorUse(domain, name, version, 7, ("a", "b", "c", "d", "e")) for name in operators)


def _check(board: str, runtime: str, uses, precision=FLOAT, kernels=None):  # type: ignore[no-untyped-def]
    entry = shipped_catalogue().board(board)
    return check_compatibility(entry, entry.runtime(runtime), uses, precision, kernels)


def test_an_operator_that_tensorrt_does_not_parse_refuses_and_is_named() -> None:
    report = _check("jetson-orin-nx", "tensorrt", _uses("Conv", "NonZero"))
    assert not report.supported
    assert [r.operator for r in report.placed(Placement.UNSUPPORTED)] == ["NonZero"]
    assert "NonZero (a, b, c, d, e and 2 more)" in report.refusals[0]
    assert [r.operator for r in report.placed(Placement.ACCELERATOR)] == ["Conv"]


def test_the_npu_leaves_what_it_cannot_to_the_cpu_and_says_so() -> None:
    report = _check("imx8m-plus", "litert", _uses("Conv", "TopK"))
    assert report.supported
    assert [r.operator for r in report.placed(Placement.CPU_FALLBACK)] == ["TopK"]
    assert "TopK" in report.warnings[0] and "not run on the npu but on the CPU" in report.warnings[0]


def test_an_opset_that_the_parser_does_not_read_is_refused() -> None:
    report = _check("jetson-orin-nx", "tensorrt", _uses("Conv", version=23))
    assert "opset 23 is beyond the 20" in report.refusals[0]


def test_a_foreign_domain_is_refused() -> None:
    report = _check("jetson-orin-nx", "tensorrt", _uses("QLinearConv", domain="com.microsoft"))
    assert "com.microsoft" in report.refusals[0]


def test_the_runtime_is_asked_where_it_can_be() -> None:
    kernels = {("", "Conv"): ((1, 10), (11, 21)), ("", "Einsum"): ((12, 12),)}
    report = _check("raspberry-pi-5", "onnxruntime", _uses("Conv", "Einsum", "HardSwish"), kernels=kernels)
    placements = {r.operator: r.placement for r in report.operators}
    assert placements == {
        "Conv": Placement.CPU,
        "Einsum": Placement.UNSUPPORTED,
        "HardSwish": Placement.CPU,  # a function of others: the load decides
    }
    assert "up to opset 12, the graph asks for opset 17" in report.refusals[0]


def test_restrictions_stand_beside_the_operator() -> None:
    report = _check("jetson-orin-nx", "tensorrt", _uses("QuantizeLinear"))
    assert report.operators[0].note == "zero points must be 0"


def test_the_installed_runtimes_own_kernels_cover_a_real_graph() -> None:
    from boardwright.toolchains.ort_session import registered_kernels

    uses = _uses("Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "QuantizeLinear", version=19)
    assert _check("x86-64", "onnxruntime", uses, kernels=registered_kernels()).supported


def test_tensorrt_refuses_other_zero_points() -> None:
    profile = shipped_catalogue().board("jetson-orin-nx").quantization_profile
    refusals, warnings = judge_precision(U8S8, profile)
    assert "zero point 0 only" in refusals[0] and "U8S8" in refusals[0] and "uint8" in warnings[0]
    assert judge_precision(SYMMETRIC, profile) == ((), ())


def test_what_shifts_refuses_other_scales_than_powers_of_two() -> None:
    profile = shipped_catalogue().board("sk-tda4vm").quantization_profile
    per_tensor = replace(SYMMETRIC, per_channel=False)
    assert judge_precision(per_tensor, profile) == ((), ())
    refusals, _ = judge_precision(replace(per_tensor, other_scales=True), profile)
    assert "powers of two as scales" in refusals[0] and "tidl-mma1" in refusals[0]
    tensorrt = shipped_catalogue().board("jetson-orin-nx").quantization_profile
    assert "powers of two" in profiles_clash(tensorrt, profile)
    assert profiles_clash(profile, profile) == "" and profiles_clash(profile, tensorrt) == ""


def test_float16_is_for_boards_that_compute_in_it() -> None:
    half = Precision(float16=True)
    assert half.short == "FP16"
    boards = shipped_catalogue()
    assert judge_precision(half, boards.board("jetson-orin-nx").quantization_profile) == ((), ())
    refusals, warnings = judge_precision(half, boards.board("x86-64").quantization_profile)
    assert refusals == () and "gets faster by that" in warnings[0]


def test_each_cpu_prefers_its_own_pair() -> None:
    boards = shipped_catalogue()
    x86, arm = (boards.board(name).quantization_profile for name in ("x86-64", "raspberry-pi-5"))
    assert judge_precision(U8S8, x86) == ((), ()) and judge_precision(S8S8, arm) == ((), ())
    assert "made for U8S8" in judge_precision(S8S8, x86)[1][0]
    assert "made for S8S8" in judge_precision(U8S8, arm)[1][0]


def test_the_npu_quantizes_from_float_itself() -> None:
    profile = shipped_catalogue().board("imx8m-plus").quantization_profile
    assert "build the baseline variant" in judge_precision(S8S8, profile)[0][0]
    assert judge_precision(FLOAT, profile) == ((), ())


def test_dynamic_quantization_is_warned_of() -> None:
    profile = shipped_catalogue().board("x86-64").quantization_profile
    precision = Precision(("uint8",), ("int8",), True, False, True, True, 2, 2, dynamic=True)
    assert "dynamic quantization" in judge_precision(precision, profile)[1][0]


def test_the_report_is_json() -> None:
    document = _check("imx8m-plus", "litert", _uses("Conv", "TopK")).to_json()
    assert document["operators"][1] == {
        "operator": "TopK",
        "domain": "",
        "count": 7,
        "nodes": ["a", "b", "c", "d", "e"],
        "placement": "cpu-fallback",
        "note": "it is not among the operators of LiteRT with the VX delegate",
    }
