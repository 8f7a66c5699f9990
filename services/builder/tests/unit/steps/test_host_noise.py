"""What else the machine did stands beside the figures."""

from boardwright.builder.steps.host_noise import busy_warning, noise_between, read_noise


def test_a_quiet_host_needs_no_warning() -> None:
    quiet = {"load_average_1m": 2.4, "stolen_share": 0.001, "preemptions": 3.0}
    assert busy_warning(quiet, 2) == ""


def test_a_busy_or_robbed_host_is_told() -> None:
    busy = {"load_average_1m": 12.3, "stolen_share": 0.001, "preemptions": 3.0}
    assert "load average 12.3 on 2 CPUs" in busy_warning(busy, 2)
    robbed = {"load_average_1m": 1.0, "stolen_share": 0.08, "preemptions": 3.0}
    assert "8.0% of its time stolen" in busy_warning(robbed, 2)


def test_counters_are_differences() -> None:
    first = read_noise()
    sum(range(200_000))
    noise = noise_between(first, read_noise())
    assert noise["preemptions"] >= 0 and 0 <= noise["stolen_share"] <= 1
