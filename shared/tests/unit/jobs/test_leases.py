"""Which worker may take a step, and how long a failed step waits."""

import pytest

from boardwright.jobs.domain.leases import LeasePolicy, Offer, waiting_reason
from boardwright.jobs.step_api import Requirements


@pytest.mark.parametrize(
    ("offer", "requires", "fits"),
    [
        (Offer("w"), Requirements(), True),
        (Offer("w", kinds=frozenset({"build/build"})), Requirements(), False),
        (Offer("w", kinds=frozenset({"compile/import"})), Requirements(), True),
        (Offer("w"), Requirements(board="jetson-orin-nx"), False),
        (Offer("w", boards=frozenset({"jetson-orin-nx"})), Requirements(board="jetson-orin-nx"), True),
        (Offer("w"), Requirements(toolchain="tensorrt"), False),
        (Offer("w", toolchains=frozenset({"tensorrt"})), Requirements(toolchain="tensorrt"), True),
        (Offer("w"), Requirements(accelerator="dla"), False),
        (Offer("w", memory_bytes=1 << 30), Requirements(memory_bytes=2 << 30), False),
    ],
)
def test_an_offer_fits_what_is_required(offer: Offer, requires: Requirements, fits: bool) -> None:
    assert offer.fits("compile/import", requires) is fits


def test_a_waiting_step_says_what_no_worker_has() -> None:
    requires = Requirements(board="jetson-orin-nx", toolchain="tensorrt")
    assert "none has asked" in waiting_reason([], "build/build", requires)
    near = Offer("near", boards=frozenset({"jetson-orin-nx"}))
    told = waiting_reason([Offer("far"), near], "build/build", requires)
    assert told == "waiting for a worker that has the toolchain tensorrt"
    fitting = Offer("fits", boards=frozenset({"jetson-orin-nx"}), toolchains=frozenset({"tensorrt"}))
    assert waiting_reason([near, fitting], "build/build", requires) == "waiting for a worker"
    small = waiting_reason([Offer("w", memory_bytes=7 << 30)], "a/b", Requirements(memory_bytes=8 << 30))
    assert "8192 MiB of memory (w offers 7168, as its BOARDWRIGHT_WORKER_MEMORY_MIB says" in small


def test_backoff_doubles_up_to_its_bound() -> None:
    policy = LeasePolicy(first_backoff_seconds=1, max_backoff_seconds=5)
    assert [policy.backoff_seconds(attempts) for attempts in (1, 2, 3, 4, 9)] == [1, 2, 4, 5, 5]
