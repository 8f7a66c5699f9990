"""Write the reference of recipes from their schema: `python docs/reference.py [--check]`.

`docs/recipes.md` lists every pass with its parameters and defaults, and every recipe that ships. With
`--check` nothing is written; exit status 1 says that the file is not current.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import sys
from pathlib import Path
from typing import Any

from boardwright.compiler.domain.passes import PASSES, PassKind
from boardwright.compiler.kinds import KINDS
from boardwright.compiler.recipes import read_shipped, recipe_schema, shipped_names

REFERENCE = Path(__file__).resolve().parent / "recipes.md"
_OF_EVERY_PASS = ("pass", "variant", "from")

HEAD = """# Recipes: passes and parameters

Written by `make reference` from the schema that recipes are checked with; what it does, and why, is told in
[compression.md](compression.md).

A recipe is YAML: a name and a list of passes. A pass that makes a Variant works on the one made last, or on
the one that `from` names, and calls its own by its default name or as `variant` says. A pass that makes none
judges or measures the Variant made last, or the one that `variant` names. Files that a pass gives (a
calibration record, say) reach the later passes on the same graph that take them.

```yaml
version: 1
name: my-int8
passes:
  - pass: import
  - pass: evaluate
  - pass: observe
    method: entropy
  - pass: quantize
    variant: entropy
  - pass: evaluate
  - pass: quantize-dynamic
    from: baseline
    variant: dynamic
  - pass: evaluate
```

`boardwright compile MODEL@V --recipe my-int8.yaml` runs it. A wrong name or value is told with its line and
the nearest name there is, before anything runs.
"""


def kind_of_value(schema: dict[str, Any]) -> str:
    """What a parameter holds, in a word."""
    if "enum" in schema:
        return " \\| ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in schema["enum"])
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return " or ".join(kind_of_value(part) for part in schema[choice])
    told = schema.get("type", "")
    names = told if isinstance(told, list) else [told]
    return " or ".join(
        {"array": "list", "object": "mapping", "null": "none"}.get(name, name) for name in names
    )


def default_of(kind: PassKind, name: str) -> str:
    """The default as YAML would have it, empty where the board or the pass decides."""
    defaults = KINDS[kind.step_kind].defaults
    if name not in defaults or name == "profile":
        return ""
    return f"`{json.dumps(defaults[name], ensure_ascii=False)}`"


def describe_pass(kind: PassKind, schema: dict[str, Any]) -> str:
    """One pass: what it does, reads, makes and gives, and its parameters."""
    lines = [f"## {kind.name}", "", schema["description"], ""]
    reads = [f"`{role}`" for role in kind.datasets] + [
        f"`{role}` (optional)" for role in kind.optional_datasets
    ]
    facts = {
        "Datasets": ", ".join(reads),
        "Makes the Variant": f"`{kind.makes_variant}`" if kind.makes_variant else "",
        "Gives": ", ".join(f"`{name}`" for name in kind.gives),
        "Takes": ", ".join(f"`{name}`" for name in kind.takes),
    }
    lines += [f"- {name}: {value}" for name, value in facts.items() if value]
    parameters = {name: found for name, found in schema["properties"].items() if name not in _OF_EVERY_PASS}
    if parameters:
        lines += ["", "| parameter | value | default | |", "|---|---|---|---|"]
        for name, found in parameters.items():
            told = found.get("description", "").replace("|", "\\|")
            lines.append(f"| `{name}` | {kind_of_value(found)} | {default_of(kind, name)} | {told} |")
    return "\n".join([*lines, ""])


def shipped() -> str:
    """The recipes that ship: name, what they make, the comment on top of their file."""
    lines = ["## Recipes that ship", "", "| recipe | passes | |", "|---|---|---|"]
    for name in shipped_names():
        text = (
            importlib.resources.files("boardwright.compiler.recipes")
            .joinpath(f"{name}.yaml")
            .read_text("utf-8")
        )
        comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        passes = " → ".join(step.name for step in read_shipped(name).passes)
        lines.append(f"| `{name}` | {passes} | {comment} |")
    return "\n".join([*lines, ""])


def reference() -> str:
    """The whole file."""
    definitions = recipe_schema()["$defs"]
    parts = [HEAD, shipped(), *(describe_pass(kind, definitions[name]) for name, kind in PASSES.items())]
    return "\n".join(parts)


def main() -> int:
    """Write the reference, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    text = reference()
    if parser.parse_args().check:
        if REFERENCE.read_text("utf-8") == text:
            return 0
        print("docs/recipes.md is not current: run `make reference`", file=sys.stderr)  # noqa: T201
        return 1
    REFERENCE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
