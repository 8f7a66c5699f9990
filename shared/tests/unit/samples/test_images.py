import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boardwright.samples import FoundSample, SampleError, check_found, decode_image

Picture = Callable[..., bytes]


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few kilobytes that claims 3.6 gigapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_modes_become_grey_or_rgb() -> None:
    for mode, wanted in [("L", "L"), ("1", "L"), ("RGBA", "RGB"), ("P", "RGB"), ("RGB", "RGB")]:
        buffer = io.BytesIO()
        Image.new(mode, (4, 3)).save(buffer, "PNG")
        assert decode_image(buffer.getvalue()).mode == wanted


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    png = io.BytesIO()
    Image.fromarray(values).save(png, "PNG")
    pgm = b"P5\n4 1\n65535\n" + values.astype(">u2").tobytes()
    for data in (png.getvalue(), pgm):
        decoded = decode_image(data)
        assert decoded.mode == "L"
        np.testing.assert_allclose(np.asarray(decoded), [[0, 1, 128, 255]], atol=1)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(SampleError, match="no fixed range"):
        decode_image(b"Pf\n2 2\n-1.0\n" + b"\0" * 16)


def test_the_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert decode_image(buffer.getvalue()).size == (4, 8)


def test_a_bomb_is_refused_by_its_header() -> None:
    for data, message in [
        (bomb(9_000, 9_000), "9000x9000 px are more than the 64000000 allowed"),
        (bomb(), "claims far more pixels than the 64000000 allowed"),
    ]:
        with pytest.raises(SampleError, match=message) as caught:
            decode_image(data)
        assert caught.value.reason == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM"])
def test_truncation_and_noise_are_corrupt(kind: str, picture: Picture) -> None:
    data = picture(3, (64, 64), kind)
    assert decode_image(data).size == (64, 64)
    for broken in (data[: len(data) // 2], data[:10], b"\0" * 100):
        with pytest.raises(SampleError) as caught:
            decode_image(broken)
        assert caught.value.reason == "IMAGE_CORRUPT"


def test_no_bytes_at_all() -> None:
    with pytest.raises(SampleError, match="the file is empty"):
        decode_image(b"")


def test_checking_names_the_file(tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    sample = FoundSample("a.png", path, "image/png", None)
    assert check_found(sample) is None
    path.write_bytes(b"text")
    assert str(check_found(sample)).startswith(f"{path}: not an image of a known format")
    path.unlink()
    assert "cannot be read: No such file" in str(check_found(sample))
