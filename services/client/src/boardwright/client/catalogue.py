"""What there is to choose from: boards, toolchains, recipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.client.connection import Connection, every_page
from boardwright.rpc.errors import FailedPrecondition


class Boards:
    """`client.boards`: the board catalogue and the toolchains."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, board: str) -> builder_pb2.Board:
        """A board by its catalogue name. Raises: NotFound BOARD_NOT_FOUND, with the nearest names."""
        name = board if board.startswith("boards/") else f"boards/{board}"
        found: builder_pb2.Board = self._connection.builder.GetBoard(builder_pb2.GetBoardRequest(name=name))
        return found

    def list(self, *, where: str = "") -> Iterator[builder_pb2.Board]:
        """All boards by name."""
        request = builder_pb2.ListBoardsRequest(filter=where)
        return every_page(self._connection.builder.ListBoards, request, "boards")

    def here(self) -> builder_pb2.Board | None:
        """The entry of the machine that the workers run on, if the catalogue has one."""
        return next((board for board in self.list() if board.here), None)

    def toolchains(self) -> Iterator[builder_pb2.Toolchain]:
        """All toolchains, and what those that cannot run here wait for."""
        request = builder_pb2.ListToolchainsRequest()
        return every_page(self._connection.builder.ListToolchains, request, "toolchains")


class Recipes:
    """`client.recipes`: those that ship, and a check for your own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self) -> list[compiler_pb2.Recipe]:
        """The recipes that ship with the compiler."""
        answer: compiler_pb2.ListRecipesResponse = self._connection.compiler.ListRecipes(
            compiler_pb2.ListRecipesRequest()
        )
        return [*answer.recipes]

    def validate(self, yaml: str) -> compiler_pb2.Recipe:
        """Check a recipe; returns it with all defaults. Raises: InvalidArgument RECIPE_INVALID."""
        answer: compiler_pb2.ValidateRecipeResponse = self._connection.compiler.ValidateRecipe(
            compiler_pb2.ValidateRecipeRequest(yaml=yaml)
        )
        return answer.recipe


IMPORT_RECIPE = """\
version: 1
name: import
description: The checkpoint as ONNX, not judged yet.
passes:
  - pass: import
"""
"""What `push(wait=True)` runs: it tells whether the checkpoint can be used."""


def read_recipe(recipe: str | Path) -> tuple[str, str]:
    """The name of a recipe that ships, or the YAML text of another.

    Raises:
        FailedPrecondition: RECIPE_UNREADABLE.
    """
    text = str(recipe)
    if "\n" in text:
        return "", text
    if text.endswith((".yaml", ".yml")):
        try:
            return "", Path(text).read_text(encoding="utf-8")
        except OSError as error:
            raise FailedPrecondition("RECIPE_UNREADABLE", f"cannot read {text}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise FailedPrecondition("RECIPE_UNREADABLE", f"{text} is no text in UTF-8") from error
    return text.removeprefix("recipes/"), ""
