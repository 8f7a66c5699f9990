"""The board catalogue: YAML files beside this module, checked by their schemas when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from boardwright.builder.domain.boards import (
    Accelerator,
    Board,
    OperatorSupport,
    PowerMode,
    QuantizationProfile,
    Runtime,
    Soc,
    Source,
)

BOARDS_FOLDER = "boards"


class CatalogueError(Exception):
    """A file of the catalogue is wrong; the message names the file, the place in it, and what is wrong."""


class BoardUnknown(Exception):
    """No board has this name; ``nearest`` are the closest that do."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.nearest = tuple(get_close_matches(name, list(known), 3, cutoff=0.4))
        hint = f" Did you mean {' or '.join(self.nearest)}?" if self.nearest else ""
        super().__init__(f"There is no board {name!r} in the catalogue.{hint}")


class Catalogue:
    """The boards and the quantization profiles, by name."""

    def __init__(
        self, boards: Iterable[Board], profiles: Mapping[str, QuantizationProfile] | None = None
    ) -> None:
        self._boards = {board.name: board for board in sorted(boards, key=lambda board: board.name)}
        self._profiles = dict(profiles or {})

    def profile(self, name: str) -> QuantizationProfile | None:
        """Return the profile called ``name``; None for one that people made up in a recipe."""
        return self._profiles.get(name)

    def boards(self) -> tuple[Board, ...]:
        """Return every board, by name."""
        return tuple(self._boards.values())

    def board(self, name: str) -> Board:
        """Return the board called ``name``.

        Raises:
            BoardUnknown: with the nearest names.
        """
        try:
            return self._boards[name]
        except KeyError:
            raise BoardUnknown(name, self._boards) from None


@lru_cache(maxsize=1)
def shipped_catalogue() -> Catalogue:
    """Return the catalogue that ships with this distribution.

    Raises:
        CatalogueError: naming the file and the place in it.
    """
    return load_catalogue(files("boardwright.builder") / BOARDS_FOLDER)


def load_catalogue(folder: Traversable) -> Catalogue:
    """Read a catalogue: ``profiles.yaml``, ``operators/*.yaml`` and one file a board.

    Raises:
        CatalogueError: naming the file and the place in it.
    """
    schemas = files("boardwright.builder") / BOARDS_FOLDER / "schemas"
    profiles = _profiles(_read(folder / "profiles.yaml", schemas / "profiles.yaml"))
    support = {
        table.name: table
        for file in _yaml_files(folder / "operators")
        for table in (_operator_support(_read(file, schemas / "operators.yaml")),)
    }
    boards = (
        _board(file.name, _read(file, schemas / "board.yaml"), profiles, support)
        for file in _yaml_files(folder)
        if file.name != "profiles.yaml"
    )
    return Catalogue(boards, profiles)


def _yaml_files(folder: Traversable) -> list[Traversable]:
    found = [file for file in folder.iterdir() if file.name.endswith(".yaml") and file.is_file()]
    return sorted(found, key=lambda file: file.name)


def _read(file: Traversable, schema: Traversable) -> dict[str, Any]:
    import jsonschema
    import yaml

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        rules = yaml.safe_load(schema.read_text(encoding="utf-8"))
        jsonschema.validate(document, rules, jsonschema.Draft202012Validator)
    except yaml.YAMLError as error:
        raise CatalogueError(f"{file.name}: not YAML: {error}") from error
    except jsonschema.ValidationError as error:
        raise CatalogueError(f"{file.name}: {error.json_path}: {error.message}") from error
    return dict(document)


def _profiles(document: Mapping[str, Any]) -> dict[str, QuantizationProfile]:
    found = {}
    for name, values in document["profiles"].items():
        for source in values["sources"]:
            if source not in document["sources"]:
                raise CatalogueError(f"profiles.yaml: {name}: source {source!r} is not among the sources")
        fields = {key: value for key, value in values.items() if key not in ("sources", "operators")}
        found[name] = QuantizationProfile(name=name, operators=tuple(values["operators"]), **fields)
    return found


def _operator_support(document: Mapping[str, Any]) -> OperatorSupport:
    opsets = document.get("opsets", {})
    return OperatorSupport(
        name=document["name"],
        title=document["title"],
        fallback=document["else_where"] == "cpu",
        operators=frozenset(document.get("operators", ())),
        restrictions=document.get("restrictions", {}),
        ask_runtime=document.get("ask_runtime", ""),
        lowest_opset=opsets.get("lowest", 0),
        highest_opset=opsets.get("highest", 0),
    )


def _board(
    file: str,
    document: Mapping[str, Any],
    profiles: Mapping[str, QuantizationProfile],
    support: Mapping[str, OperatorSupport],
) -> Board:
    if file != f"{document['board']}.yaml":
        raise CatalogueError(f"{file}: the file of board {document['board']!r} must carry its name")
    accelerators = tuple(
        Accelerator(**{**entry, "precisions": tuple(entry["precisions"])})
        for entry in document["accelerators"]
    )
    processors = {"cpu", *(accelerator.name for accelerator in accelerators)}
    runtimes = []
    for entry in document["runtimes"]:
        if entry["runs_on"] not in processors:
            raise CatalogueError(f"{file}: runtime {entry['name']} runs on unknown {entry['runs_on']!r}")
        if entry["operator_support"] not in support:
            raise CatalogueError(f"{file}: there is no operators/{entry['operator_support']}.yaml")
        without = entry.get("profiles_without", {})
        for profile in (entry["quantization_profile"], *without.values()):
            if profile not in profiles:
                raise CatalogueError(f"{file}: there is no profile {profile!r}")
        runtimes.append(
            Runtime(
                entry["name"],
                entry["title"],
                entry["runs_on"],
                support[entry["operator_support"]],
                profiles[entry["quantization_profile"]],
                {feature: profiles[profile] for feature, profile in without.items()},
            )
        )
    soc = document["soc"]
    return Board(
        name=document["board"],
        title=document["title"],
        description=document["description"],
        soc=Soc(**{**soc, "features": tuple(soc["features"])}),
        accelerators=accelerators,
        memory_bytes=document["memory"]["bytes"],
        memory_kind=document["memory"]["kind"],
        power_modes=tuple(
            PowerMode(entry["name"], entry["description"], entry.get("watts", 0.0))
            for entry in document["power_modes"]
        ),
        runtimes=tuple(runtimes),
        toolchains=tuple(document["toolchains"]),
        sources=tuple(Source(id=key, **value) for key, value in document["sources"].items()),
        entry=document,
    )
