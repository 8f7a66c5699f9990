import json
import math
import random

import pytest

from boardwright.calibration.domain.statistics import BINS, ImageFigures, Statistics, Summary


def image(seed: int, gray: bool = False) -> ImageFigures:
    chance = random.Random(seed)
    channels = tuple(tuple(chance.randrange(9) for _ in range(BINS)) for _ in range(1 if gray else 3))
    return ImageFigures(
        chance.randrange(1, 900), chance.randrange(1, 900), chance.random(), chance.random(), channels
    )


def test_a_summary_has_the_mean_and_deviation_of_its_values() -> None:
    values = [1e9 + x for x in (1.0, 4.0, 4.0, 7.0)]
    summary = Summary()
    for value in values:
        summary = summary.merge(Summary.of(value))
    assert summary.mean == pytest.approx(1e9 + 4)
    assert summary.deviation == pytest.approx(math.sqrt(4.5))
    assert (summary.minimum, summary.maximum, summary.count) == (1e9 + 1, 1e9 + 7, 4)


def test_merging_in_any_grouping_gives_the_same() -> None:
    singles = [Statistics.of(image(n, gray=n % 3 == 0), n, [n % 4, n % 4]) for n in range(30)]
    one_by_one, halves = Statistics(), [Statistics(), Statistics()]
    for number, single in enumerate(singles):
        one_by_one = one_by_one.merge(single)
        halves[number % 2] = halves[number % 2].merge(single)
    merged = halves[1].merge(halves[0])
    assert merged.count == one_by_one.count == 30
    assert merged.channels() == one_by_one.channels() and merged.class_counts == one_by_one.class_counts
    assert merged.size_bytes == one_by_one.size_bytes == sum(range(30))
    for name in ("width", "height", "brightness", "contrast"):
        mine, theirs = getattr(merged, name), getattr(one_by_one, name)
        assert mine.mean == pytest.approx(theirs.mean) and mine.deviation == pytest.approx(theirs.deviation)
        assert (mine.minimum, mine.maximum) == (theirs.minimum, theirs.maximum)


def test_gray_images_have_one_channel_and_count_in_all_three_of_colour() -> None:
    gray = Statistics.of(image(1, gray=True), 1, [])
    color = Statistics.of(image(2), 1, [])
    assert gray.channels() == (gray.gray,)
    both = gray.merge(color).channels()
    assert len(both) == 3
    assert [sum(channel) for channel in both] == [sum(gray.gray) + sum(channel) for channel in color.color]


def test_json_round_trip() -> None:
    statistics = Statistics.of(image(5), 77, [1, 1, 2])
    for value in (statistics, Statistics()):
        assert Statistics.from_json(json.loads(json.dumps(value.to_json()))) == value
