"""Which of several artifacts of one board goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from boardwright.delivery.domain.preference import Choice, Contender, MeasuredLatency, contested, prefer
from boardwright.delivery.domain.resources import BundleRecord, FleetKey, Rollout, RolloutState
from boardwright.delivery.domain.rollouts import index_of

HOST = '{"architecture": "x86_64"}'


def latency(p50_ms: float, *, threads: int = 1, host: str = HOST, at: int = 1) -> MeasuredLatency:
    return MeasuredLatency("x86-64", host, threads, p50_ms, at)


def contender(name: str, *latencies: MeasuredLatency, board: str = "x86-64") -> Contender:
    return Contender(name, {"board": board, "runtime": name, "runtime_version": "1.0"}, latencies)


def one(*contenders: Contender) -> Choice:
    (choice,) = prefer(contenders)
    return choice


def test_one_artifact_per_board_needs_no_choice() -> None:
    pins: list[Mapping[str, str]] = [{"board": "x86-64"}, {"board": "raspberry-pi-5"}]
    assert contested(pins) == frozenset()
    assert contested([*pins, {"board": "x86-64"}]) == {"x86-64"}
    assert prefer([contender("a"), contender("b", board="raspberry-pi-5")]) == ()


def test_the_fastest_goes_first_and_the_sentence_has_the_figures() -> None:
    choice = one(contender("onnxruntime", latency(0.129)), contender("openvino", latency(0.0678)))
    assert choice.artifacts == ("openvino", "onnxruntime")
    assert choice.because == (
        "openvino 1.0 takes 0.0678 ms against 0.129 ms (onnxruntime 1.0) (p50 with one thread, measured on "
        "x86-64)"
    )


def test_without_measurements_names_decide_and_it_says_what_to_do() -> None:
    choice = one(contender("openvino"), contender("onnxruntime"))
    assert choice.artifacts == ("onnxruntime", "openvino")
    assert "none of the 2 artifacts" in choice.because and "measure them" in choice.because


@pytest.mark.parametrize("reverse", [False, True])
def test_figures_of_other_hosts_boards_and_threads_are_not_compared(reverse: bool) -> None:
    fast_elsewhere = latency(0.01, host="another CPU")
    other_board = replace(latency(0.001), board="raspberry-pi-5")
    contenders = [
        contender("a", latency(3.0), latency(1.0, threads=0), fast_elsewhere),
        contender("b", latency(2.0), latency(5.0, threads=0), other_board),
    ]
    choice = one(*(reversed(contenders) if reverse else contenders))
    assert choice.artifacts == ("b", "a") and "one thread" in choice.because


def test_the_newer_of_two_figures_counts() -> None:
    choice = one(contender("a", latency(1.0, at=9), latency(4.0, at=2)), contender("b", latency(2.0)))
    assert choice.artifacts == ("a", "b")


def test_what_was_not_measured_goes_last_and_is_named() -> None:
    choice = one(contender("a"), contender("c", latency(2.0)), contender("b", latency(3.0)))
    assert choice.artifacts == ("c", "b", "a")
    assert choice.because.endswith("; not measured there: a 1.0")


def test_the_index_lists_bundles_in_the_settled_order() -> None:
    key = FleetKey("default", "line-1")
    bundles = [
        BundleRecord("default", f"sha256:{digit * 64}", "r", name, {"board": "x86-64"}, 1, (), "{}", 1)
        for name, digit in (("a", "1"), ("b", "2"))
    ]
    rollout = Rollout("default", "one", 1, key, "r", RolloutState.ACTIVE, "", "me", 1, 1, revision=1)
    for choices, expected in (((), "12"), ((Choice("x86-64", ("b", "a"), ""),), "21")):
        group = index_of(key, replace(rollout, choices=choices), bundles).groups[0]
        assert [bundle.path[8] for bundle in group.bundles] == list(expected)
