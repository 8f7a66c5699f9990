import numpy as np
import pytest
from PIL import Image

from boardwright.calibration.inspection.figures import measure


def test_figures_of_a_colour_image() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    figures = measure(Image.fromarray(pixels))
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert (figures.width, figures.height) == (30, 40)
    assert figures.brightness == pytest.approx(luma.mean() / 255, abs=0.003)
    assert figures.contrast == pytest.approx(luma.std() / 255, abs=0.003)
    for channel in range(3):
        expected = np.bincount(pixels[:, :, channel].ravel() >> 2, minlength=64)
        assert figures.channels[channel] == tuple(expected)


def test_figures_of_a_grey_image() -> None:
    figures = measure(Image.new("L", (3, 2), 128))
    assert figures.channels == (tuple(6 if n == 32 else 0 for n in range(64)),)
    assert figures.brightness == pytest.approx(128 / 255) and figures.contrast == 0
