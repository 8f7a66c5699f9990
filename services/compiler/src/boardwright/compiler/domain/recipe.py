"""A recipe: a named list of passes with parameters, and the rules its order has to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boardwright.compiler.domain.passes import BASELINE, PASSES


class RecipeError(ValueError):
    """A recipe that cannot be used; ``message`` names the line and what to write instead.

    ``reason`` is stable (``RECIPE_UNKNOWN_PASS``); ``line`` counts from 1, 0 where no line is to blame.
    """

    def __init__(self, reason: str, message: str, line: int = 0) -> None:
        told = f"line {line}: {message}" if line else message
        super().__init__(told)
        self.reason = reason
        self.message = told
        self.line = line


@dataclass(frozen=True, slots=True)
class Pass:
    """One entry of a recipe. ``variant`` is what it makes, or what it judges. ``line`` is where it stands.

    ``source`` (``from`` in YAML) is the Variant that it starts from; empty for the one made last.
    """

    name: str
    variant: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0
    source: str = ""

    @property
    def makes_variant(self) -> bool:
        """Whether this pass makes its Variant (and does not only judge it)."""
        return bool(PASSES[self.name].makes_variant)


@dataclass(frozen=True, slots=True)
class Rung:
    """A recipe's place among those that ``optimize`` tries, from the lowest ``order`` to the highest.

    The others are names of recipes: those whose last Variant is at least as light (fast and small), or as
    accurate, as this one's. When one of them is too heavy, or too inaccurate, this recipe need not be tried.
    """

    order: int
    no_lighter_than: tuple[str, ...] = ()
    no_more_accurate_than: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A checked recipe. ``text`` is the YAML it was read from, kept with the job."""

    name: str
    description: str
    passes: tuple[Pass, ...]
    text: str = ""
    rung: Rung | None = None

    @property
    def datasets(self) -> frozenset[str]:
        """The datasets that the recipe's passes read, those they can do without included."""
        kinds = [PASSES[step.name] for step in self.passes]
        return frozenset(role for kind in kinds for role in kind.datasets + kind.optional_datasets)

    @property
    def needed_datasets(self) -> frozenset[str]:
        """The datasets that the recipe's passes cannot do without."""
        return frozenset(role for step in self.passes for role in PASSES[step.name].datasets)

    @property
    def teachers(self) -> frozenset[str]:
        """The other model versions that passes learn from, as the recipe names them (``resnet@3``)."""
        named = (step.parameters.get("teacher") for step in self.passes)
        return frozenset(str(teacher) for teacher in named if teacher and teacher != BASELINE)

    @property
    def variants(self) -> tuple[str, ...]:
        """The Variants the recipe makes, in order."""
        return tuple(step.variant for step in self.passes if step.makes_variant)


def check_order(passes: tuple[Pass, ...]) -> None:
    """Check that ``import`` comes first and once, and that every judged Variant has been made.

    Raises:
        RecipeError: RECIPE_ORDER or RECIPE_VARIANT_REPEATED.
    """
    if not passes or passes[0].name != "import":
        raise RecipeError(
            "RECIPE_ORDER",
            "the first pass must be import: it makes the baseline that every other pass starts from.",
            passes[0].line if passes else 0,
        )
    made: set[str] = set()
    for number, step in enumerate(passes):
        if step.name == "import" and number > 0:
            raise RecipeError("RECIPE_ORDER", "import can only be the first pass.", step.line)
        if step.makes_variant and step.variant in made:
            raise RecipeError(
                "RECIPE_VARIANT_REPEATED",
                f"the variant {step.variant!r} is made twice: give this pass a variant name of its own.",
                step.line,
            )
        if step.source and step.source not in made:
            raise RecipeError(
                "RECIPE_ORDER",
                f"{step.name} starts from the variant {step.source!r}, which no pass before it makes "
                f"(made so far: {', '.join(sorted(made))}).",
                step.line,
            )
        if step.makes_variant:
            made.add(step.variant)
        elif step.variant not in made:
            known = ", ".join(sorted(made))
            raise RecipeError(
                "RECIPE_ORDER",
                f"{step.name} judges the variant {step.variant!r}, which no pass before it makes "
                f"(made so far: {known}).",
                step.line,
            )
    if passes[0].variant != BASELINE:
        raise RecipeError("RECIPE_ORDER", "the variant that import makes is called baseline.", passes[0].line)
