"""The cache key changes with everything a result depends on, and with nothing else."""

import hashlib
from typing import Any

import pytest

from boardwright.content import InvalidContent
from boardwright.jobs.domain.cache_key import cache_key, with_defaults
from boardwright.jobs.step_api import Determinism, StepKind

_BASE: dict[str, Any] = {
    "kind": "compile/quantize",
    "version": "1",
    "determinism": Determinism.PURE,
    "parameters": {"bits": 8, "method": "minmax"},
    "inputs": {"model": "sha256:" + "a" * 64},
    "environment": {"onnxruntime": "1.31.1", "cpu": "avx512_vnni"},
    "seed": 0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "compile/evaluate"},
        {"version": "2"},
        {"parameters": {"bits": 4, "method": "minmax"}},
        {"inputs": {"model": "sha256:" + "b" * 64}},
        {"inputs": {"graph": "sha256:" + "a" * 64}},
        {"environment": {"onnxruntime": "1.31.2", "cpu": "avx512_vnni"}},
    ],
)
def test_everything_a_result_depends_on_changes_the_key(change: dict[str, Any]) -> None:
    assert cache_key(**_BASE) != cache_key(**{**_BASE, **change})


def test_the_key_is_stable() -> None:
    """A key is stored for ever: the hashed document must never change its form."""
    document = (
        '{"environment":{"cpu":"avx512_vnni","onnxruntime":"1.31.1"},'
        '"inputs":{"model":"sha256:' + "a" * 64 + '"},'
        '"kind":"compile/quantize",'
        '"parameters":{"bits":8,"method":"minmax"},'
        '"version":"1"}'
    )
    assert cache_key(**_BASE) == "sha256:" + hashlib.sha256(document.encode()).hexdigest()


def test_order_does_not_matter() -> None:
    turned = {**_BASE, "parameters": {"method": "minmax", "bits": 8}}
    assert cache_key(**_BASE) == cache_key(**turned)


def test_the_seed_counts_for_seeded_kinds_only() -> None:
    assert cache_key(**_BASE) == cache_key(**{**_BASE, "seed": 7})
    seeded = {**_BASE, "determinism": Determinism.SEEDED}
    assert cache_key(**seeded) != cache_key(**{**seeded, "seed": 7})


def test_a_default_written_out_changes_nothing() -> None:
    kind = StepKind("compile/quantize", "1", defaults={"bits": 8, "method": "minmax"})
    assert with_defaults(kind, {"bits": 8}) == with_defaults(kind, {}) == _BASE["parameters"]


def test_a_parameter_without_canonical_json_is_refused() -> None:
    with pytest.raises(InvalidContent):
        cache_key(**{**_BASE, "parameters": {"threshold": float("nan")}})
