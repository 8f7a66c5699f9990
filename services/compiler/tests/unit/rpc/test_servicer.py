"""What the Compiler API answers without any job: recipes, and requests that are wrong."""

from __future__ import annotations

from typing import Any, cast

import pytest

from boardwright.api.compiler.v1 import compiler_pb2 as pb
from boardwright.compiler.recipes import shipped_names
from boardwright.compiler.rpc.servicer import CompilerServicer
from boardwright.rpc.errors import InvalidArgument


@pytest.fixture
def servicer() -> CompilerServicer:
    """A servicer whose jobs nobody asks for."""
    return CompilerServicer(cast(Any, None), cast(Any, None))


async def test_the_shipped_recipes_are_listed_with_their_text_and_digest(servicer):
    answer = await servicer.ListRecipes(pb.ListRecipesRequest(), None)
    assert [recipe.name for recipe in answer.recipes] == [f"recipes/{name}" for name in shipped_names()]
    for recipe in answer.recipes:
        assert recipe.digest.startswith("sha256:")
        checked = await servicer.ValidateRecipe(pb.ValidateRecipeRequest(yaml=recipe.yaml), None)
        assert checked.recipe.digest == recipe.digest
        assert checked.recipe.rung == recipe.rung and checked.recipe.variants[0] == "baseline"
    default = next(recipe for recipe in answer.recipes if recipe.name == "recipes/default")
    assert (default.datasets, default.variants) == (["calibration", "evaluation"], ["baseline", "int8"])
    assert default.rung.no_more_accurate_than == ["baseline"]


async def test_a_wrong_recipe_is_refused_with_its_line(servicer):
    with pytest.raises(InvalidArgument) as caught:
        await servicer.ValidateRecipe(
            pb.ValidateRecipeRequest(yaml="version: 1\nname: x\npasses:\n  - pass: quant\n"), None
        )
    assert (caught.value.reason, caught.value.metadata["line"]) == ("RECIPE_INVALID", "4")
    assert "did you mean 'quantize'" in caught.value.message


async def test_a_version_of_another_project_is_refused(servicer):
    with pytest.raises(InvalidArgument, match="is not in projects/default"):
        await servicer.CreateCompileJob(
            pb.CreateCompileJobRequest(
                parent="projects/default", version="projects/other/models/digits/versions/1"
            ),
            None,
        )
