"""Recipes as YAML: reading with lines, checking against the schema, and those that ship.

- ``schema.json``: the frame of the JSON schema; ``passes/*.json``: the parameters of each pass.
- ``reading``: YAML to ``domain.recipe.Recipe``; errors name the line and the nearest known name.
- ``*.yaml``: the recipes that ship with the compiler.
"""

from boardwright.compiler.recipes.reading import (
    parse_recipe,
    read_shipped,
    recipe_schema,
    shipped_names,
    spell_out,
)

__all__ = ["parse_recipe", "read_shipped", "recipe_schema", "shipped_names", "spell_out"]
