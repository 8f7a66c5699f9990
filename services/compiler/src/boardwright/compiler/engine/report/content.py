"""A report without a format: sections of paragraphs, tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Table:
    """Columns whose name begins with ">" hold figures and are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing. ``svg`` is a whole ``<svg>`` element that needs nothing else; ``name`` is a file's."""

    name: str
    description: str
    svg: str


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part. ``paragraphs`` are plain text."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Sections in order; ``absent`` names what could not be told and the command that would change that."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    absent: Sequence[tuple[str, str]] = field(default=())
