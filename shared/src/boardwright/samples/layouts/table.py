"""Images with a CSV of labels: one row per image, with columns for file, label and (optionally) split."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boardwright.samples.errors import SampleError
from boardwright.samples.found import BadSample, FoundSample, SampleSource
from boardwright.samples.labels import MAX_CLASSES, Label
from boardwright.samples.layouts.files import (
    choose_split,
    inside,
    is_present,
    media_type,
    read_lines,
    relative_name,
)

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name")
_INDEX_COLUMNS = ("class_index", "class_id", "target")
_NAME_COLUMNS = ("label", "class", "class_name", "category")
_SPLIT_COLUMNS = ("split", "subset")


@dataclass(frozen=True, slots=True)
class _Columns:
    file: str
    label: str
    split: str


def recognise(root: Path) -> bool:
    """Whether the folder holds a CSV with a column for files."""
    return _find_table(root) is not None


def read(root: Path, split: str) -> SampleSource:
    """Open a table of labels; see ``read_layout``."""
    table = root if root.is_file() else _find_table(root)
    if table is None:
        raise SampleError(
            "LAYOUT_INVALID", f"{root} holds no .csv with a column {' or '.join(_FILE_COLUMNS)}"
        )
    columns = _columns(table)
    values: set[str] = set()
    found_splits: set[str] = set()
    for _, row in _rows(table):
        values.add((row.get(columns.label) or "").strip() if columns.label else "")
        found_splits.add((row.get(columns.split) or "").strip() if columns.split else "")
    values.discard("")
    found_splits.discard("")
    splits = tuple(sorted(found_splits))
    wanted = choose_split(split, splits) if split else ()
    names = _class_names(table, columns, values)
    classes, by_value = names

    def samples() -> Iterator[FoundSample | BadSample]:
        yield from _samples(table, columns, wanted, by_value)

    return SampleSource("csv", "classification" if values else "", classes, splits, samples)


def _find_table(root: Path) -> Path | None:
    tables = sorted(root.glob("*.csv"), key=lambda path: (path.name != "labels.csv", path.name))
    for table in tables:
        try:
            _columns(table)
        except SampleError:
            continue
        return table
    return None


def _columns(table: Path) -> _Columns:
    with _open(table) as file:
        try:
            header = next(csv.reader(file), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise SampleError("LAYOUT_INVALID", f"{table}:1: not a CSV in UTF-8: {error}") from error
    by_name = {name.strip().lower(): name for name in header}

    def first(choices: tuple[str, ...]) -> str:
        return next((by_name[name] for name in choices if name in by_name), "")

    file_column = first(_FILE_COLUMNS)
    if not file_column:
        wanted = ", ".join(_FILE_COLUMNS)
        raise SampleError(
            "LAYOUT_INVALID",
            f"{table}:1: no column for the image's file (one of {wanted}); columns: {header}",
        )
    return _Columns(file_column, first(_INDEX_COLUMNS + _NAME_COLUMNS), first(_SPLIT_COLUMNS))


def _open(table: Path):  # type: ignore[no-untyped-def]
    return table.open(newline="", encoding="utf-8-sig")


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    with _open(table) as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise SampleError("LAYOUT_INVALID", f"{table}:{reader.line_num + 1}: {error}") from error


def _class_names(table: Path, columns: _Columns, values: set[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes' names, and the index of each value the label column has."""
    indices = {
        value: int(value) for value in values if value.isascii() and value.isdigit() and len(value) < 7
    }
    indices = {value: index for value, index in indices.items() if index < MAX_CLASSES}
    numeric = columns.label.strip().lower() in _INDEX_COLUMNS or len(indices) == len(values)
    if not numeric:
        names = tuple(sorted(values))
        return names, {name: index for index, name in enumerate(names)}
    listing = table.parent / "classes.txt"
    if listing.is_file():
        names = tuple(read_lines(listing))
        return names, {value: index for value, index in indices.items() if index < len(names)}
    return tuple(str(index) for index in range(max(indices.values(), default=-1) + 1)), indices


def _samples(
    table: Path, columns: _Columns, wanted: tuple[str, ...], by_value: dict[str, int]
) -> Iterator[FoundSample | BadSample]:
    seen: dict[str, int] = {}
    folders = [folder for folder in (table.parent, table.parent / "images") if folder.is_dir()]
    for line, row in _rows(table):
        if wanted and (row.get(columns.split) or "").strip() not in wanted:
            continue
        name = (row.get(columns.file) or "").strip()
        sample = _sample(table, folders, name, columns, row, by_value)
        if isinstance(sample, str):
            yield BadSample(name, str(table), line, sample)
        elif sample.name in seen:
            yield BadSample(name, str(table), line, f"{name} was named before, in line {seen[sample.name]}")
        else:
            seen[sample.name] = line
            yield sample


def _sample(
    table: Path,
    folders: list[Path],
    name: str,
    columns: _Columns,
    row: dict[str, str | None],
    by_value: dict[str, int],
) -> FoundSample | str:
    """The row's sample, or what is wrong with it."""
    if not name:
        return f"column {columns.file!r} is empty"
    places = [inside(folder, name) for folder in folders]
    if None in places:
        return f"{name} leads out of the dataset's folder"
    path = next((place for place in places if place and is_present(place)), None)
    if path is None:
        return f"the image {name} is missing"
    value = (row.get(columns.label) or "").strip() if columns.label else ""
    label: Label = None
    if value:
        if value not in by_value:
            return f"{columns.label} {value!r} is no class index (0, 1, 2…) that is known"
        label = by_value[value]
    return FoundSample(relative_name(path, table.parent), path, media_type(path), label)
