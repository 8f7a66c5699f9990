"""Recipes: what ships is valid, and every mistake is answered with its line and the nearest name."""

from __future__ import annotations

import textwrap

import pytest
from jsonschema import Draft202012Validator

from boardwright.compiler.domain.passes import PASSES
from boardwright.compiler.domain.recipe import RecipeError
from boardwright.compiler.recipes import parse_recipe, read_shipped, recipe_schema, shipped_names, spell_out


def recipe(text: str) -> str:
    return "version: 1\nname: mine\npasses:\n" + textwrap.indent(textwrap.dedent(text), "  ")


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_recipe_is_valid_and_named_like_its_file(name):
    assert read_shipped(name).name == name


def test_what_optimize_tries_begins_with_the_baseline_and_names_recipes_before_it():
    rungs = {name: read_shipped(name).rung for name in shipped_names()}
    tried = sorted((rung.order, name) for name, rung in rungs.items() if rung is not None)
    assert len({order for order, _ in tried}) == len(tried)
    assert tried[0][1] == "baseline"
    place = {name: number for number, (_, name) in enumerate(tried)}
    for _, name in tried:
        rung = rungs[name]
        assert all(place[other] < place[name] for other in rung.no_lighter_than + rung.no_more_accurate_than)
        assert read_shipped(name).passes[-1].name == "evaluate"


def test_the_schema_is_a_schema_and_knows_every_pass():
    schema = recipe_schema()
    Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]["passes"]["items"]["properties"]["pass"]["enum"]) == set(PASSES)
    assert set(PASSES) <= set(schema["$defs"])


def test_the_default_recipe_judges_before_and_after():
    found = read_shipped("default")
    assert [(step.name, step.variant) for step in found.passes] == [
        ("import", "baseline"),
        ("evaluate", "baseline"),
        ("observe", "baseline"),
        ("recover", "baseline"),
        ("quantize", "int8"),
        ("evaluate", "int8"),
    ]
    assert found.datasets == {"calibration", "evaluation"}


def test_an_unknown_pass_is_told_with_its_line_and_the_nearest_name():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe("- pass: import\n- pass: quantise\n"))
    assert caught.value.reason == "RECIPE_UNKNOWN_PASS"
    assert caught.value.line == 5
    assert (
        "line 5: there is no pass 'quantise' (did you mean 'quantize'?). The passes are"
        in caught.value.message
    )


def test_an_unknown_parameter_is_told_with_its_line_and_the_nearest_name():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe("- pass: import\n- pass: quantize\n  sample: 5\n"))
    assert caught.value.reason == "RECIPE_UNKNOWN_PARAMETER"
    assert caught.value.line == 6
    assert "did you mean 'samples'?" in caught.value.message
    with pytest.raises(
        RecipeError, match=r"line 2: a recipe has no parameter 'pases' \(did you mean 'passes'\?\)\."
    ):
        parse_recipe("version: 1\npases: []\n")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (recipe("- pass: import\n- pass: quantize\n  samples: many\n"), 6, "'many' is not of type 'integer'"),
        (recipe("- pass: import\n- pass: quantize\n  samples: 0\n"), 6, "less than the minimum"),
        (recipe("- import\n"), 4, "write '- pass: import'"),
        (recipe("- pass: quantize\n"), 4, "the first pass must be import"),
        (recipe("- pass: import\n- pass: import\n"), 5, "only be the first"),
        (recipe("- pass: import\n- pass: evaluate\n  variant: int8\n"), 5, "no pass before it makes"),
        (recipe("- pass: import\n- pass: quantize\n- pass: quantize\n"), 6, "made twice"),
        ("version: 2\nname: mine\npasses:\n  - pass: import\n", 1, "1 was expected"),
        ("version: 1\nname: Mine!\npasses:\n  - pass: import\n", 2, "does not match"),
        ("version: 1\npasses:\n  - pass: import\n", 1, "'name' is a required property"),
        ("version: 1\nname: [\n", 3, "no valid YAML"),
        ("version: 1\nversion: 1\n", 2, "written twice"),
        ("a: &a [x]\nb: *a\n", 2, "aliases"),
        ("version: !!bool x\n", 1, "'x' cannot be read"),
        ("version: 1\nname: !!int ''\n", 2, "cannot be read"),
        ("version: !!timestamp x\n", 1, "cannot be read"),
        (recipe("- pass: {}\n"), 4, "there is no pass {}"),
        ("- pass: import\n", 1, "a recipe is a mapping"),
        ("", 1, "empty"),
    ],
)
def test_every_mistake_is_told_with_its_line(text, line, words):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text)
    assert words in caught.value.message
    assert caught.value.line == line


@pytest.mark.parametrize("name", shipped_names())
def test_a_recipe_spelled_out_is_the_same_recipe_with_its_defaults(name):
    found = parse_recipe(spell_out(read_shipped(name)))
    assert [(step.name, step.variant) for step in found.passes] == [
        (step.name, step.variant) for step in read_shipped(name).passes
    ]
    for step, written in zip(found.passes, read_shipped(name).passes, strict=True):
        if step.name == "quantize":
            defaults = {"samples": 300, "protect": True, **written.parameters}
            assert {key: step.parameters[key] for key in defaults} == defaults
            assert ("profile" in step.parameters) == ("profile" in written.parameters)
    assert found.rung == read_shipped(name).rung


def test_yaml_that_would_build_objects_builds_nothing():
    with pytest.raises(RecipeError, match="line 2"):
        parse_recipe("version: 1\nname: !!python/object/apply:os.system ['true']\n")


def test_a_recipe_nested_without_end_or_too_large_is_refused():
    with pytest.raises(RecipeError, match="nested deeper"):
        parse_recipe("[" * 100_000)
    with pytest.raises(RecipeError, match="at most"):
        parse_recipe("#" * 300_000)


def test_an_unknown_shipped_recipe_is_told_with_the_nearest_name():
    with pytest.raises(RecipeError, match="did you mean 'default'"):
        read_shipped("defualt")
