"""Read recipes: YAML that a person wrote, with an answer for every way it can be wrong."""

from __future__ import annotations

import difflib
import importlib.resources
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from boardwright.compiler.domain.passes import BASELINE, PASSES
from boardwright.compiler.domain.recipe import Pass, Recipe, RecipeError, Rung, check_order
from boardwright.compiler.kinds import KINDS
from boardwright.compiler.recipes.yaml_lines import Path, line_of, load_with_lines

_PACKAGE = "boardwright.compiler.recipes"
_LEFT_OPEN = frozenset({"profile"})
_OF_EVERY_PASS = frozenset({"pass", "variant", "from"})


def shipped_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship with the compiler."""
    files = importlib.resources.files(_PACKAGE).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def read_shipped(name: str) -> Recipe:
    """Return a shipped recipe.

    Raises:
        RecipeError: RECIPE_UNKNOWN, with the nearest name there is.
    """
    if name not in shipped_names():
        raise RecipeError(
            "RECIPE_UNKNOWN",
            f"there is no recipe {name!r}{_nearest(name, shipped_names())}. "
            f"The recipes are {', '.join(shipped_names())}.",
        )
    return parse_recipe(importlib.resources.files(_PACKAGE).joinpath(f"{name}.yaml").read_text("utf-8"))


@cache
def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of recipes (draft 2020-12): the frame, and one definition per pass."""
    package = importlib.resources.files(_PACKAGE)
    schema: dict[str, Any] = json.loads(package.joinpath("schema.json").read_text("utf-8"))
    names = sorted(PASSES)
    schema["properties"]["passes"]["items"] |= {
        "properties": {"pass": {"enum": names}},
        "allOf": [
            {"if": {"properties": {"pass": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}"}}
            for name in names
        ],
    }
    for name in names:
        declared = json.loads(package.joinpath("passes", f"{name}.json").read_text("utf-8"))
        variant = {"const": BASELINE} if name == "import" else {"$ref": "#/$defs/variant"}
        properties = {"pass": True, "variant": variant}
        if PASSES[name].makes_variant and name != "import":
            properties["from"] = {"$ref": "#/$defs/source"}
        properties |= declared["properties"]
        schema["$defs"][name] = {**declared, "additionalProperties": False, "properties": properties}
    return schema


def parse_recipe(text: str) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: the text is no YAML, names an unknown pass or parameter (the nearest known name is told),
            holds a value of the wrong kind, or its passes are in an order that cannot work.
    """
    document, lines = load_with_lines(text)
    if not isinstance(document, dict):
        raise RecipeError("RECIPE_MALFORMED", "a recipe is a mapping with version, name and passes.", 1)
    _check_names(document, lines)
    _check_schema(document, lines)
    passes = _passes(document["passes"], lines)
    check_order(passes)
    rung = _rung(document["optimize"]) if "optimize" in document else None
    return Recipe(document["name"], str(document.get("description", "")), passes, text, rung)


def spell_out(recipe: Recipe) -> str:
    """Return the recipe as YAML with every default written out.

    The quantization profile stays open where the recipe leaves it open: it follows from the boards.
    """
    import yaml

    definitions = recipe_schema()["$defs"]
    passes = []
    for step in recipe.passes:
        known = definitions[step.name]["properties"]
        defaults = KINDS[PASSES[step.name].step_kind].defaults
        written = {
            name: deepcopy(value)  # one list in two passes would be written as an alias
            for name, value in defaults.items()
            if name in known and name not in _LEFT_OPEN
        }
        source = {"from": step.source} if step.source else {}
        passes.append({"pass": step.name, "variant": step.variant, **source, **written, **step.parameters})
    document: dict[str, Any] = {"version": 1, "name": recipe.name, "description": recipe.description}
    if recipe.rung is not None:
        rung = {
            "order": recipe.rung.order,
            "no_lighter_than": list(recipe.rung.no_lighter_than),
            "no_more_accurate_than": list(recipe.rung.no_more_accurate_than),
        }
        document["optimize"] = {name: value for name, value in rung.items() if value}
    document["passes"] = passes
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return text


def _rung(written: Mapping[str, Any]) -> Rung:
    return Rung(
        int(written["order"]),
        tuple(written.get("no_lighter_than", ())),
        tuple(written.get("no_more_accurate_than", ())),
    )


def _passes(entries: list[dict[str, Any]], lines: Mapping[Path, int]) -> tuple[Pass, ...]:
    passes: list[Pass] = []
    latest = BASELINE
    for number, entry in enumerate(entries):
        kind = PASSES[entry["pass"]]
        variant = str(entry.get("variant") or kind.makes_variant or latest)
        if kind.makes_variant:
            latest = variant
        parameters = {key: value for key, value in entry.items() if key not in _OF_EVERY_PASS}
        line = line_of(("passes", number), lines)
        passes.append(Pass(kind.name, variant, parameters, line, str(entry.get("from", ""))))
    return tuple(passes)


def _check_names(document: dict[str, Any], lines: Mapping[Path, int]) -> None:
    """Find unknown passes and parameters before the schema does: it cannot tell the nearest name."""
    schema = recipe_schema()
    _check_keys(document, schema["properties"], (), lines, "a recipe")
    entries = document.get("passes")
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        place: Path = ("passes", number)
        if isinstance(entry, str):
            raise RecipeError("RECIPE_MALFORMED", f"write '- pass: {entry}'.", line_of(place, lines))
        if not isinstance(entry, dict) or "pass" not in entry:
            raise RecipeError(
                "RECIPE_MALFORMED",
                "every entry of passes is a mapping with 'pass: NAME' and its parameters.",
                line_of(place, lines),
            )
        name = entry["pass"]
        if not isinstance(name, str) or name not in PASSES:
            raise RecipeError(
                "RECIPE_UNKNOWN_PASS",
                f"there is no pass {name!r}{_nearest(str(name), PASSES)}. "
                f"The passes are {', '.join(sorted(PASSES))}.",
                line_of((*place, "pass"), lines),
            )
        _check_keys(entry, schema["$defs"][name]["properties"], place, lines, f"the pass {name}")


def _check_keys(
    mapping: Mapping[Any, Any], known: Iterable[str], place: Path, lines: Mapping[Path, int], owner: str
) -> None:
    names = [name for name in known if name != "pass"]
    for key in mapping:
        if key != "pass" and key not in names:
            raise RecipeError(
                "RECIPE_UNKNOWN_PARAMETER",
                f"{owner} has no parameter {key!r}{_nearest(str(key), names)}. It takes "
                f"{', '.join(sorted(names))}.",
                line_of((*place, key), lines),
            )


def _check_schema(document: dict[str, Any], lines: Mapping[Path, int]) -> None:
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(document))
    if error is None:
        return
    place: Path = tuple(error.absolute_path)
    where = ".".join(str(part) for part in place if not isinstance(part, int)) or "the recipe"
    raise RecipeError("RECIPE_INVALID", f"{where}: {error.message}.", line_of(place, lines))


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(recipe_schema())


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
