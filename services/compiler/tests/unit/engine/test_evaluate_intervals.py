"""Intervals beside published values, exact sums and plain resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boardwright.compiler.engine.evaluate.intervals import (
    corrected_percentiles,
    mcnemar,
    paired_difference,
    resample_weights,
    resampled_f1,
    resampled_map,
    wilson,
)
from boardwright.model import DetectionMeter, Detections


def test_wilson_as_published():
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                   (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip
        assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_paired_differences_as_published():
    """Newcombe 1998 (paired data), table III, method 10."""
    assert paired_difference(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=2e-4)
    assert paired_difference(0, 0, 0, 0) == (-1.0, 1.0)
    low, high = paired_difference(500, 0, 0, 100)
    assert low < 0 < high and high < 0.01


def test_mcnemar_is_the_exact_binomial_sum():
    for ours, theirs in ((5, 15), (3, 3), (0, 1), (10, 2)):
        total = ours + theirs
        tail = sum(math.comb(total, k) for k in range(min(ours, theirs) + 1)) / 2**total
        assert mcnemar(ours, theirs) == pytest.approx(min(1, 2 * tail))
    assert mcnemar(0, 0) == 1.0 and mcnemar(2000, 2500) < 1e-10


def test_resampled_map_is_the_map_of_the_resampled_images():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(12):
        corner = rng.uniform(0, 60, (4, 2))
        truths = np.concatenate([corner, corner + 20], axis=1)
        boxes = (np.repeat(truths, 2, axis=0) + rng.normal(0, 2, (8, 4))).astype(np.float32)
        classes = rng.integers(0, 2, 4)
        scores = rng.random(8).astype(np.float32)
        images.append((Detections(boxes, scores, np.repeat(classes, 2)), truths, classes))
    meter = DetectionMeter()
    for image in images:
        meter.update(*image)
    weights = resample_weights(12)
    figures = resampled_map(meter.curves(), weights)
    for row in range(0, len(weights), 40):
        again = DetectionMeter()
        for image, count in zip(images, weights[row], strict=True):
            for _ in range(int(count)):
                again.update(*image)
        # equal scores of a doubled image keep one order here and share one place there
        assert figures[row] == pytest.approx(again.scores().map50_95 / 100, abs=0.02)
    once = resampled_map(meter.curves(), np.ones((1, 12), np.float32))
    assert once[0] == pytest.approx(meter.scores().map50_95 / 100, abs=1e-6)


def test_resamples_that_lie_too_high_are_brought_back_to_the_figure():
    even = np.linspace(0, 1, 1001)
    assert corrected_percentiles(even, 0.5) == pytest.approx((0.025, 0.975), abs=2e-3)
    # A quarter lies below: z0 = -0.674, so the limits are Phi(2 z0 - 1.96) and Phi(2 z0 + 1.96).
    assert corrected_percentiles(even, 0.25) == pytest.approx((0.00047, 0.7294), abs=2e-3)
    assert corrected_percentiles(even, -0.5)[0] == -0.5 and corrected_percentiles(even, 1.5)[1] == 1.5
    assert corrected_percentiles(np.zeros(200), 0.0) == (0.0, 0.0)


def test_f1_of_images_that_all_agree_is_sure():
    assert resampled_f1(np.array([[3, 0, 0], [2, 0, 0]])) == (1.0, 1.0)
    low, high = resampled_f1(np.array([[3, 1, 0], [2, 0, 2], [0, 1, 1], [5, 0, 0]]))
    assert 0 < low < 20 / 25 < high <= 1
