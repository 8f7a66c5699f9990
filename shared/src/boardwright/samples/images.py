"""Decoding images that nobody vouches for: few formats, bounded pixels, plain reasons."""

import io
import warnings
from typing import TYPE_CHECKING

from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
"""Largest image: 64 megapixels, which is 192 MB decoded."""

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "PPM")


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> "Image.Image":
    """Decode an image completely, the way a person sees it (its EXIF orientation applied).

    The size is read from the header and bounded before any pixel is decoded. Of an animation the first
    frame counts.

    Returns:
        A Pillow image of mode "L" for grey ones and "RGB" for all others; 16 bits are scaled to 8.

    Raises:
        SampleError: ``IMAGE_CORRUPT`` (not an image of a known format, or truncated), ``IMAGE_TOO_LARGE``.
        MemoryError: decoding needs more than there is.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                pixels = opened.width * opened.height
                if pixels > max_pixels:
                    raise SampleError(
                        "IMAGE_TOO_LARGE",
                        f"{opened.width}x{opened.height} px are more than the {max_pixels} allowed",
                    )
                if pixels == 0:
                    raise SampleError("IMAGE_CORRUPT", "the image has no pixel")
                opened.load()
                return _eight_bits(ImageOps.exif_transpose(opened))
    except (SampleError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise SampleError(
            "IMAGE_TOO_LARGE", f"its header claims far more pixels than the {max_pixels} allowed"
        ) from error
    except Exception as error:
        # Pillow's decoders raise nearly everything on hostile bytes (struct.error, IndexError, SyntaxError…).
        raise SampleError("IMAGE_CORRUPT", _plain(error, data)) from error


def _eight_bits(image: "Image.Image") -> "Image.Image":
    """The image as 8-bit grey or RGB.

    16-bit grey is scaled: Pillow's own conversion would cut it off at 255.
    """
    if image.mode == "F":
        raise SampleError(
            "IMAGE_CORRUPT", "floating-point pixels have no fixed range: save it with 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    return image.convert("L" if image.mode in ("L", "1", "LA") else "RGB")


def _plain(error: Exception, data: bytes) -> str:
    if not data:
        return "the file is empty"
    if type(error).__name__ == "UnidentifiedImageError":
        return f"not an image of a known format ({', '.join(_FORMATS)})"
    return f"the image cannot be decoded: {str(error) or type(error).__name__}"


def check_found(sample: FoundSample, max_pixels: int = MAX_PIXELS) -> BadSample | None:
    """Read and decode a found sample; what is wrong with it, or None."""
    file = sample.name if isinstance(sample.source, bytes) else str(sample.source)
    try:
        decode_image(sample.read(), max_pixels)
    except SampleError as error:
        return BadSample(sample.name, file, 0, error.message)
    except OSError as error:
        return BadSample(sample.name, file, 0, f"cannot be read: {error.strerror}")
    return None
