import numpy as np
import pytest
from PIL import Image

from boardwright.model import InputSpec, ModelError, preprocess, preprocess_batch
from boardwright.model.preprocessing import scale_image

RANDOM = np.random.default_rng(7)


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, channels), np.uint8)


def test_normalisation_is_scale_then_mean_then_std_in_colour_order() -> None:
    pixels = picture(4, 4)
    spec = InputSpec(height=4, width=4, resize="none", color="BGR", mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2))
    tensor, _ = preprocess(pixels, spec)
    assert tensor.shape == (1, 3, 4, 4) and tensor.dtype == np.float32
    expected = (pixels[:, :, ::-1] / 255 - [0.1, 0.2, 0.3]) / [0.5, 1, 2]
    np.testing.assert_allclose(tensor[0].transpose(1, 2, 0), expected, rtol=1e-6)


def test_layouts_hold_the_same_pixels() -> None:
    pixels = picture(6, 5)
    first, _ = preprocess(pixels, InputSpec(height=6, width=5, resize="none"))
    last, _ = preprocess(pixels, InputSpec(height=6, width=5, resize="none", layout="NHWC"))
    np.testing.assert_array_equal(first[0].transpose(1, 2, 0), last[0])


def test_integer_inputs_are_rounded_and_cut() -> None:
    pixels = np.array([[[0], [127], [255]]], np.uint8)
    spec = InputSpec(
        height=1, width=3, channels=1, color="GRAY", resize="none", scale=1.0, mean=(128.0,), dtype="int8"
    )
    tensor, _ = preprocess(pixels, spec)
    assert tensor.dtype == np.int8
    assert tensor.ravel().tolist() == [-128, -1, 127]


def test_gray_from_colour_is_pillows_gray() -> None:
    pixels = picture(9, 9)
    spec = InputSpec(height=9, width=9, channels=1, color="GRAY", resize="none", scale=1.0)
    mine, _ = preprocess(pixels, spec)
    pillows, _ = preprocess(Image.fromarray(pixels), spec)
    np.testing.assert_array_equal(mine, pillows)


def test_pillow_modes_become_rgb() -> None:
    spec = InputSpec(height=5, width=5, resize="none")
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
        tensor, _ = preprocess(Image.new(mode, (5, 5)), spec)
        assert tensor.shape == (1, 3, 5, 5)


def test_letterbox_pads_evenly_and_boxes_come_back() -> None:
    pixels = picture(100, 200)
    spec = InputSpec(height=64, width=64, resize="letterbox", scale=1.0, layout="NHWC")
    tensor, placement = preprocess(pixels, spec)
    assert (tensor[0, :16] == 114).all() and (tensor[0, 48:] == 114).all()
    assert placement.offset_y == 16 and placement.offset_x == 0 and placement.scale_x == pytest.approx(0.32)
    box = np.array([[20.0, 10.0, 120.0, 90.0]])
    in_tensor = box * 0.32 + [0, 16, 0, 16]
    np.testing.assert_allclose(placement.to_image(in_tensor), box, atol=1e-4)
    np.testing.assert_allclose(placement.to_image(np.array([[-9.0, 0, 99, 99]])), [[0, 0, 200, 100]])


def test_letterbox_of_an_extreme_aspect_keeps_a_pixel() -> None:
    tensor, _ = preprocess(picture(1, 4000), InputSpec(height=64, width=64, resize="letterbox"))
    assert tensor.shape == (1, 3, 64, 64)


def test_center_crop_takes_the_centre() -> None:
    pixels = picture(256, 300)
    spec = InputSpec(
        height=224, width=224, resize="center-crop", resize_shorter=256, scale=1.0, layout="NHWC"
    )
    tensor, placement = preprocess(pixels, spec)
    np.testing.assert_array_equal(tensor[0], pixels[16:240, 38:262])
    assert (placement.offset_x, placement.offset_y) == (-38, -16)


def test_size_mismatch_without_resize_is_an_error() -> None:
    with pytest.raises(ModelError, match="5x4 px, the input spec demands 8x8") as caught:
        preprocess(picture(4, 5), InputSpec(height=8, width=8, resize="none"))
    assert caught.value.reason == "IMAGE_DOES_NOT_FIT"


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ModelError, match="an image is uint8"):
        preprocess(bad, InputSpec(height=4, width=4))


@pytest.mark.parametrize("size", [(640, 427), (31, 17), (512, 512)])
def test_bilinear_agrees_with_opencv(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = picture(333, 500)
    mine = scale_image(pixels, *size, "bilinear").astype(int)
    theirs = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(mine - theirs).max() <= 2  # OpenCV computes with 11-bit weights
    assert np.abs(mine - theirs).mean() < 0.3


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_interpolation_keeps_a_flat_colour(interpolation: str, channels: int) -> None:
    flat = np.full((30, 40, channels), 77, np.uint8)
    scaled = scale_image(flat, 13, 55, interpolation)
    assert scaled.shape == (55, 13, channels) and (scaled == 77).all()


def test_batches_are_the_single_tensors() -> None:
    spec = InputSpec(height=16, width=16, resize="letterbox")
    images = [picture(20, 30), picture(40, 10)]
    batch, placements = preprocess_batch(images, spec)
    assert batch.shape == (2, 3, 16, 16)
    for row, placement, image in zip(batch, placements, images, strict=True):
        single, own = preprocess(image, spec)
        np.testing.assert_array_equal(row, single[0])
        assert placement == own
