"""What a layout reader yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from boardwright.samples.errors import SampleError
from boardwright.samples.labels import Label

MAX_SAMPLE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FoundSample:
    """A sample as the layout describes it; nothing has been decoded yet.

    Attributes:
        name: unique in the dataset: the path relative to its root, with forward slashes.
        source: the image's file, or its encoded bytes (arrays).
        media_type: "image/jpeg" and so on.
        label: see ``Label``.
    """

    name: str
    source: Path | bytes
    media_type: str
    label: Label

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            SampleError: ``SAMPLE_TOO_LARGE`` over 64 MiB.
            OSError: the file cannot be read.
        """
        if isinstance(self.source, bytes):
            return self.source
        size = self.source.stat().st_size
        if size > MAX_SAMPLE_BYTES:
            raise SampleError(
                "SAMPLE_TOO_LARGE", f"{self.name} has {size} bytes; a sample has at most {MAX_SAMPLE_BYTES}"
            )
        return self.source.read_bytes()


@dataclass(frozen=True, slots=True)
class BadSample:
    """Something that cannot be used, named so that a person finds it.

    Attributes:
        name: the sample's name.
        file: the file that holds the mistake (the image, or its label).
        line: the line in it, from 1; 0 when the file has no lines.
        reason: plain words.
    """

    name: str
    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.reason}"


@dataclass(frozen=True)
class SampleSource:
    """A dataset found on disk. Iterate over it, as often as needed, for its samples in a stable order.

    Attributes:
        layout: one of ``LAYOUTS``.
        task: "classification", "detection", or empty when unlabelled.
        classes: names by index; empty when unlabelled.
        splits: the splits there are; empty when the layout has none.
    """

    layout: str
    task: str
    classes: tuple[str, ...]
    splits: tuple[str, ...] = ()
    samples: Callable[[], Iterator[FoundSample | BadSample]] = field(default=lambda: iter(()), repr=False)

    def __iter__(self) -> Iterator[FoundSample | BadSample]:
        return map(_with_a_name, self.samples())


def _with_a_name(sample: FoundSample | BadSample) -> FoundSample | BadSample:
    """The sample, bad where its name is no text: file systems and JSON take any half of a character."""
    if in_text(sample.name) == sample.name:
        return sample
    name = in_text(sample.name)
    return BadSample(name, name, 0, "the name is not text in UTF-8: rename the file")


def in_text(name: str) -> str:
    """The name, what is no text in it written out."""
    return name.encode(errors="backslashreplace").decode()
