"""A report as one HTML file that needs no network: style and plots are inside, nothing runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files

from boardwright.compiler.engine.report.content import Plot, Report, Section, Table

_CODE = re.compile(r"`([^`\n]+)`")
_ID = re.compile(r"[^a-z0-9]+")
_SHORT = 24
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def to_html(report: Report) -> str:
    """Return the whole file."""
    parts = [*_body(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(report.title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _style() -> str:
    return files("boardwright.compiler.engine.report").joinpath("style.css").read_text("utf-8")


def _body(report: Report) -> Iterator[str]:
    yield f'<h1>{escape(report.title)}</h1>\n<p class="sub">{escape(report.subtitle)}</p>'
    links = "".join(f'<a href="#{_id(held.title)}">{escape(held.title)}</a> ' for held in report.sections)
    yield f"<nav>{links}</nav>"
    for section in report.sections:
        yield from _section(section)
    if report.absent:
        yield '<section id="not-in-this-report">\n<h2>Not in this report</h2>\n<ul>'
        for title, command in report.absent:
            yield f"<li>{escape(title)}: <code>{escape(command)}</code></li>"
        yield "</ul>\n</section>"


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{_id(section.title)}">\n<h2>{escape(section.title)}</h2>'
    for paragraph in section.paragraphs:
        yield f"<p>{_CODE.sub(_code, escape(paragraph))}</p>"
    for table in section.tables:
        yield _table(table)
    for plot in section.plots:
        yield _figure(plot)
    yield "</section>"


def _table(table: Table) -> str:
    right = [column.startswith(">") for column in table.columns]

    def row(cells: Iterator[str], tag: str) -> str:
        marked = (
            f"<{tag}{_class(cell, number)}>{escape(cell)}</{tag}>"
            for cell, number in zip(cells, right, strict=True)
        )
        return f"<tr>{''.join(marked)}</tr>"

    head = row((column.removeprefix(">") for column in table.columns), "th")
    body = "\n".join(row(iter(cells), "td") for cells in table.rows)
    return f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _class(cell: str, number: bool) -> str:
    """Figures stand to the right; neither they nor short names are broken into lines."""
    return ' class="n"' if number else ' class="s"' if len(cell) <= _SHORT else ""


def _figure(plot: Plot) -> str:
    """The SVG is made here from escaped text; a screen reader is told what it shows."""
    described = plot.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(plot.description)}" ', 1)
    return f"<figure>{described}</figure>"


def _code(match: re.Match[str]) -> str:
    return f"<code>{match[1]}</code>"


def _id(title: str) -> str:
    return _ID.sub("-", title.lower()).strip("-")
