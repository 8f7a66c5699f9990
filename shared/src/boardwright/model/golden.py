"""Golden samples: a few inputs with the outputs that the built artifact gave, checked by the device.

A device runs them in its real runtime before it switches slots. They catch what a digest cannot: a runtime
that computes something else on this machine than on the one that built the artifact.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from boardwright.content.canonical import read_json
from boardwright.model.errors import ModelError

MEDIA_TYPE = "application/vnd.boardwright.golden-samples.v1+npz"
MAX_BYTES = 64 * 1024 * 1024
REASON = "GOLDEN_SAMPLES_INVALID"

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison found.

    Attributes:
        passed: every sample was within tolerance.
        samples: how many were compared.
        failed: the indices of those that were not.
        worst_error: the largest |actual - expected| over the samples' outputs.
        reasons: one plain sentence per failed sample.
    """

    passed: bool
    samples: int
    failed: tuple[int, ...]
    worst_error: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GoldenSamples:
    """Inputs, expected outputs and the tolerance.

    Attributes:
        inputs: per graph input, an array whose first axis is the sample.
        outputs: per graph output, likewise.
        absolute, relative: an element passes if |actual - expected| <= absolute + relative * |expected|.
        outliers: the share of a sample's elements that may miss it (0 to 1). Integer kernels round
            differently from CPU to CPU; a detection head's near ties then move in a few places.
    """

    inputs: Arrays
    outputs: Arrays
    absolute: float = 1e-3
    relative: float = 1e-3
    outliers: float = 0.0

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise ModelError(REASON, "golden samples need at least one input and one output")
        lengths = {
            len(array) if array.ndim else -1 for array in [*self.inputs.values(), *self.outputs.values()]
        }
        if len(lengths) != 1 or min(lengths) < 1:
            raise ModelError(
                REASON, "golden samples: every array needs the same number of samples, at least 1"
            )
        if self.absolute < 0 or self.relative < 0 or not 0 <= self.outliers < 1:
            raise ModelError(REASON, "golden samples: tolerances must be 0 or more, outliers 0 to below 1")

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def check(self, run: Callable[[Arrays], Mapping[str, npt.NDArray[Any]]]) -> Verdict:
        """Run each sample, a batch of one at a time, and compare.

        Args:
            run: inputs by name (each with a leading axis of 1) to outputs by name.
        """
        actual: list[Mapping[str, npt.NDArray[Any]]] = []
        for index in range(len(self)):
            actual.append(run({name: array[index : index + 1] for name, array in self.inputs.items()}))
        return self.compare(actual)

    def compare(self, actual: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Verdict:
        """Judge the outputs of every sample (each with a leading axis of 1)."""
        if len(actual) != len(self):
            raise ModelError(REASON, f"golden samples: {len(actual)} outputs for {len(self)} samples")
        failed: list[int] = []
        reasons: list[str] = []
        worst = 0.0
        for index, outputs in enumerate(actual):
            error, reason = self._judge(index, outputs)
            worst = max(worst, error)
            if reason:
                failed.append(index)
                reasons.append(f"sample {index}: {reason}")
        return Verdict(not failed, len(self), tuple(failed), worst, tuple(reasons))

    def _judge(self, index: int, outputs: Mapping[str, npt.NDArray[Any]]) -> tuple[float, str]:
        worst, reason = 0.0, ""
        for name, expected_all in self.outputs.items():
            expected = expected_all[index].astype(np.float64)
            if name not in outputs:
                return float("inf"), f"output {name!r} is missing"
            found = np.asarray(outputs[name])
            if found.shape != (1, *expected.shape):
                return float("inf"), f"output {name!r} has shape {found.shape}, not {(1, *expected.shape)}"
            difference = np.abs(found[0].astype(np.float64) - expected)
            if not np.isfinite(difference).all():
                return float("inf"), f"output {name!r} holds values that are not finite"
            beyond = difference > self.absolute + self.relative * np.abs(expected)
            worst = max(worst, float(difference.max(initial=0.0)))
            if beyond.mean() > self.outliers:
                reason = (
                    f"output {name!r} differs by up to {difference.max():.4g} "
                    f"({int(beyond.sum())} of {beyond.size} elements beyond tolerance)"
                )
        return worst, reason

    def to_bytes(self) -> bytes:
        """A NumPy ``.npz`` with the same bytes for the same content."""
        settings = {
            "schema": "golden-samples/1",
            "absolute": self.absolute,
            "relative": self.relative,
            "outliers": self.outliers,
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_entry("settings.json"), json.dumps(settings, sort_keys=True))
            for kind, arrays in (("inputs", self.inputs), ("outputs", self.outputs)):
                for name in sorted(arrays):
                    content = io.BytesIO()
                    np.lib.format.write_array(content, np.ascontiguousarray(arrays[name]), allow_pickle=False)
                    archive.writestr(_entry(f"{kind}/{name}.npy"), content.getvalue())
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "GoldenSamples":
        """Read what ``to_bytes`` wrote. Nothing is unpickled, and the size is bounded before reading.

        Raises:
            ModelError: ``GOLDEN_SAMPLES_INVALID``.
        """
        arrays: dict[str, Arrays] = {"inputs": {}, "outputs": {}}
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > MAX_BYTES:
                    raise ModelError(
                        REASON, f"golden samples unpack to {size} bytes; the limit is {MAX_BYTES}"
                    )
                settings = read_json(archive.read("settings.json"))
                if settings.pop("schema") != "golden-samples/1":
                    raise ModelError(REASON, "golden samples: unknown schema; update this program")
                for entry in archive.namelist():
                    kind, _, name = entry.partition("/")
                    if kind in arrays and name.endswith(".npy"):
                        content = io.BytesIO(archive.read(entry))
                        array = np.lib.format.read_array(content, allow_pickle=False)
                        arrays[kind][name.removesuffix(".npy")] = array
            return cls(arrays["inputs"], arrays["outputs"], **settings)
        except ModelError:
            raise
        except (
            Exception
        ) as error:  # damaged archives and arrays end in zlib.error, tokenize.TokenError and more
            raise ModelError(REASON, f"golden samples cannot be read: {error}") from error


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
