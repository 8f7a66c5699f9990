"""NumPy arrays: images of one size in one array, labels in another.

A ``.npz`` with ``images`` and ``labels`` (or x and y, data and target), a ``.npy`` of images alone, or a
folder with ``images.npy`` and ``labels.npy``. Images become binary PGM or PPM files: lossless, with the
same bytes from every library version, which a PNG would not have.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample, SampleSource
from boardwright.samples.labels import MAX_CLASSES

if TYPE_CHECKING:
    import numpy.typing as npt

_IMAGE_NAMES = ("images", "x", "data", "X")
_LABEL_NAMES = ("labels", "y", "target", "Y")
_NAME_NAMES = ("classes", "class_names", "target_names", "names")


def recognise(root: Path) -> bool:
    """Whether the folder holds ``images.npy`` or a single ``.npz``."""
    return _file(root) is not None


def read(root: Path, split: str) -> SampleSource:
    """Open arrays; see ``read_layout``."""
    if split:
        raise SampleError("SPLIT_UNKNOWN", f"arrays have no splits; leave out the split {split!r}")
    path = root if root.is_file() else _file(root)
    if path is None:
        raise SampleError("LAYOUT_INVALID", f"{root} holds neither images.npy nor one .npz")
    arrays = _load(path)
    images = _pick(arrays, _IMAGE_NAMES)
    labels = _pick(arrays, _LABEL_NAMES)
    if images is None:
        raise SampleError(
            "LAYOUT_INVALID", f"{path}: no array called {', '.join(_IMAGE_NAMES)}; has {list(arrays)}"
        )
    _check_images(path, images)
    classes = _classes(path, images, labels, _pick(arrays, _NAME_NAMES))

    def samples() -> Iterator[FoundSample | BadSample]:
        digits = max(5, len(str(len(images) - 1)))
        for index in range(len(images)):
            name = f"{index:0{digits}d}"
            label = None if labels is None else int(labels[index])
            if label is not None and not 0 <= label < len(classes):
                reason = f"labels[{index}] is {label}, outside of 0 to {len(classes) - 1}"
                yield BadSample(name, str(path), 0, reason)
                continue
            encoded = _encode(images[index])
            if isinstance(encoded, str):
                yield BadSample(name, str(path), 0, f"images[{index}]: {encoded}")
            else:
                kind = "graymap" if encoded.startswith(b"P5") else "pixmap"
                suffix = "pgm" if kind == "graymap" else "ppm"
                yield FoundSample(f"{name}.{suffix}", encoded, f"image/x-portable-{kind}", label)

    return SampleSource("numpy", "" if labels is None else "classification", classes, (), samples)


def _file(root: Path) -> Path | None:
    if (root / "images.npy").is_file():
        return root / "images.npy"
    archives = sorted(root.glob("*.npz"))
    return archives[0] if len(archives) == 1 else None


def _load(path: Path) -> Mapping[str, "npt.NDArray[Any]"]:
    import numpy as np

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        arrays = {"images": np.load(path, mmap_mode="r", allow_pickle=False)}
        for name in ("labels", "classes"):
            beside = path.with_name(f"{name}.npy")
            if path.name == "images.npy" and beside.is_file():
                arrays[name] = np.load(beside, allow_pickle=False)
        return arrays
    except Exception as error:  # damaged headers and streams end in tokenize.TokenError, zlib.error and more
        pickled = "object" in str(error).lower()
        advice = (
            "save plain arrays, without Python objects"
            if pickled
            else "it is cut off or damaged: copy or save it again"
        )
        raise SampleError("LAYOUT_INVALID", f"{path}: cannot be read ({error}); {advice}") from error


def _pick(arrays: Mapping[str, "npt.NDArray[Any]"], names: tuple[str, ...]) -> "npt.NDArray[Any] | None":
    return next((arrays[name] for name in names if name in arrays), None)


def _check_images(path: Path, images: "npt.NDArray[Any]") -> None:
    good = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if not good or 0 in images.shape[1:]:
        raise SampleError(
            "LAYOUT_INVALID",
            f"{path}: images must have shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), not {images.shape}",
        )
    if images.dtype.kind not in "uif":
        raise SampleError("LAYOUT_INVALID", f"{path}: images must hold numbers 0 to 255, not {images.dtype}")


def _classes(
    path: Path,
    images: "npt.NDArray[Any]",
    labels: "npt.NDArray[Any] | None",
    names: "npt.NDArray[Any] | None",
) -> tuple[str, ...]:
    if labels is None:
        return ()
    if labels.ndim != 1 or labels.dtype.kind not in "ui" or len(labels) != len(images):
        raise SampleError(
            "LAYOUT_INVALID",
            f"{path}: labels must be {len(images)} whole numbers, not {labels.dtype} of shape {labels.shape}",
        )
    if int(labels.max(initial=0)) >= MAX_CLASSES:
        raise SampleError(
            "LAYOUT_INVALID", f"{path}: label {labels.max()} is too large; classes are 0 to {MAX_CLASSES - 1}"
        )
    if names is not None:
        return tuple(str(name) for name in names)
    return tuple(str(index) for index in range(max(0, int(labels.max(initial=-1)) + 1)))


def _encode(image: "npt.NDArray[Any]") -> bytes | str:
    """The image as PGM or PPM, or what is wrong with it."""
    import numpy as np

    if image.dtype != np.uint8:
        if not (np.isfinite(image).all() and (image >= 0).all() and (image <= 255).all()):
            return "a value is outside of 0 to 255"
        whole = image.astype(np.uint8)
        if (whole != image).any():
            return "values between whole numbers; scale the images to 0 to 255 and round them"
        image = whole
    height, width = image.shape[:2]
    gray = image.ndim == 2 or image.shape[2] == 1
    return f"P{5 if gray else 6}\n{width} {height}\n255\n".encode() + np.ascontiguousarray(image).tobytes()
