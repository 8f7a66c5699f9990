"""`boardwright lineage` and `history`: what something was made of, and what was done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli.output import Format, OutputOption, document, print_json, print_messages, say
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.client import Client


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(lineage)
    app.command()(history)


def lineage(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(help="digits@3/int8, digits@r2, or a digest.")],
    direction: Annotated[str, typer.Option(help="ancestors, descendants or both.")] = "ancestors",
    depth: Annotated[int, typer.Option(help="How many edges away at most.")] = 10,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what something was made of, or went into.

    \b
    Example:
      boardwright lineage digits@production
    """
    from boardwright.cli.tree import print_tree

    if direction not in ("ancestors", "descendants", "both"):
        raise typer.BadParameter("use ancestors, descendants or both", param_hint="--direction")
    with client_of(context) as client:
        graph = client.models.lineage(reference, direction=direction, depth=depth)
        root = client.models.resolve(reference)
    if output is Format.JSON:
        print_json(document(graph))
        return
    print_tree(graph, root, up=direction != "descendants")
    if graph.truncated:
        say("There is more: raise --depth.")


def history(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Id of the model; may be missing with --audit.")] = "",
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Every call that changed something, with who made it: of the model, or of all."
        ),
    ] = False,
    where: Annotated[str, typer.Option("--filter", help='For example: stage = "production".')] = "",
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.")] = 50,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show every change of a model's stages, with who, when and why.

    \b
    Example:
      boardwright history digits
      boardwright history --audit --filter 'method = "RevokeDevice"'
    """
    if not model and not audit:
        raise typer.BadParameter("name the model, or ask for --audit", param_hint="MODEL")
    with client_of(context) as client:
        if model:
            client.models.get(model)  # an unknown model is refused, not an empty history
        if audit:
            _print_audit(client, model, where, limit, output)
        else:
            _print_promotions(client, model, where, limit, output)


def _print_audit(client: Client, model: str, where: str, limit: int, output: Format) -> None:
    from boardwright.cli.output import moment
    from boardwright.client.references import shorten

    print_messages(
        client.audit(model, where=where, limit=limit),
        output,
        ("when", "who", "through", "did", "on", "why"),
        lambda e: (
            moment(e.create_time),
            e.actor,
            e.service,
            e.method,
            shorten(e.resource),
            getattr(e, "reason", ""),  # the log of datasets knows none
        ),
        empty="Nothing has happened yet.",
        where=where,
        limit=limit,
    )


def _print_promotions(client: Client, model: str, where: str, limit: int, output: Format) -> None:
    from boardwright.cli.output import moment, state
    from boardwright.client.references import shorten

    print_messages(
        client.models.history(model, where=where, limit=limit),
        output,
        ("when", "stage", "what", "release", "before", "who", "why"),
        lambda p: (
            moment(p.create_time),
            p.stage.rpartition("/")[2],
            state(p, "kind"),
            shorten(p.release),
            shorten(p.previous_release) if p.previous_release else "",
            p.actor,
            p.reason,
        ),
        empty=f"No release of {model} was promoted yet: boardwright promote {model} development",
        where=where,
        limit=limit,
    )
