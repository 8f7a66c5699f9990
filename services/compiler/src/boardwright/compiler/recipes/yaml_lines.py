"""YAML to plain values, with the line of every key and item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boardwright.compiler.domain.recipe import RecipeError

Path = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
_MAX_DEPTH = 20


def load_with_lines(text: str) -> tuple[Any, dict[Path, int]]:
    """Return the document and the line (from 1) of each path in it.

    Aliases are not accepted: nested ones expand to gigabytes.

    Raises:
        RecipeError: RECIPE_TOO_LARGE or RECIPE_MALFORMED, with the line.
    """
    import yaml

    if len(text.encode()) > MAX_BYTES:
        raise RecipeError("RECIPE_TOO_LARGE", f"a recipe has at most {MAX_BYTES:,} bytes.")
    try:
        _check_events(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise RecipeError(
            "RECIPE_MALFORMED", f"this is no valid YAML: {problem}.", mark.line + 1 if mark else 0
        ) from error
    if root is None:
        raise RecipeError("RECIPE_MALFORMED", "the recipe is empty.", 1)
    lines: dict[Path, int] = {(): root.start_mark.line + 1}
    return _construct(root, (), lines), lines


def _check_events(text: str) -> None:
    """Refuse aliases and deep nesting before anything is built of them."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(
                "RECIPE_MALFORMED", "aliases (*name) are not accepted: write the value out.", line
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise RecipeError("RECIPE_MALFORMED", f"nested deeper than {_MAX_DEPTH} levels.", line)


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """Return the line of ``path``, or of the nearest part of it that is in the text."""
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def _construct(node: Any, path: Path, lines: dict[Path, int]) -> Any:
    import yaml

    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise RecipeError(
            "RECIPE_MALFORMED", f"the tag {node.tag!r} is not accepted.", node.start_mark.line + 1
        )
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = str(key_node.value)
            if key in values:
                raise RecipeError("RECIPE_MALFORMED", f"{key!r} is written twice.", line)
            lines[(*path, key)] = line
            values[key] = _construct(value_node, (*path, key), lines)
        return values
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            items.append(_construct(item, (*path, index), lines))
        return items
    try:
        return yaml.SafeLoader("").construct_object(node)
    except Exception as error:  # what a written tag does not fit ends in nearly anything
        raise RecipeError(
            "RECIPE_MALFORMED", f"{node.value!r} cannot be read: {error}.", node.start_mark.line + 1
        ) from error
