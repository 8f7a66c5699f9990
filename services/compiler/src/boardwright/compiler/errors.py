"""What the compiler refuses, as the errors its callers are told about."""

from __future__ import annotations

from boardwright.compiler.domain.recipe import RecipeError
from boardwright.rpc.errors import BoardwrightError, FailedPrecondition, InvalidArgument, NotFound

_UNKNOWN_RECIPE = "RECIPE_UNKNOWN"
_MISSING_DATASET = "DATASET_MISSING"


def recipe_refused(error: RecipeError, recipe: str = "") -> BoardwrightError:
    """Return the error for a recipe: RECIPE_INVALID with its line, RECIPE_NOT_FOUND or DATASET_MISSING.

    ``recipe`` is its name, where it could be read.
    """
    if error.reason == _UNKNOWN_RECIPE:
        return NotFound("RECIPE_NOT_FOUND", error.message)
    told = f"the recipe {recipe}, {error.message}" if recipe else error.message
    named = {"recipe": recipe} if recipe else {}
    if error.reason == _MISSING_DATASET:
        return FailedPrecondition(_MISSING_DATASET, told, **named)
    return InvalidArgument("RECIPE_INVALID", told, line=str(error.line), kind=error.reason, **named)


def dataset_not_sealed(name: str) -> FailedPrecondition:
    """Return the error for a dataset version that may still change."""
    return FailedPrecondition(
        "DATASET_NOT_SEALED",
        f"{name} is not sealed: seal it first, so that what was measured on it stays true.",
        dataset=name,
    )


def unknown_role(role: str, known: tuple[str, ...]) -> InvalidArgument:
    """Return the error for a dataset role that no pass reads."""
    return InvalidArgument(
        "FIELD_INVALID",
        f"datasets has the role {role!r}; the roles are {', '.join(known)}.",
        field="datasets",
    )
