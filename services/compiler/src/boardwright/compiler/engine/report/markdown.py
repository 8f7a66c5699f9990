"""A report as Markdown (GitHub's tables); plots are files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from boardwright.compiler.engine.report.content import Report, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~])")
_ESCAPED = r"\\\1"
_CODE = re.compile(r"(`[^`\n]+`)")


def to_markdown(report: Report, plots_folder: str = "") -> str:
    """Return the text; ``plots_folder`` is where ``NAME.svg`` lie, as seen from the text. Plots are left out
    without it.
    """
    lines = [f"# {escape(report.title)}", "", escape(report.subtitle), ""]
    for section in report.sections:
        lines += [f"## {escape(section.title)}", ""]
        for paragraph in section.paragraphs:
            lines += [_prose(paragraph), ""]
        for table in section.tables:
            lines += [*_table(table), ""]
        for plot in section.plots if plots_folder else ():
            lines += [f"![{escape(plot.description)}]({plots_folder}/{plot.name}.svg)", ""]
    if report.absent:
        lines += ["## Not in this report", ""]
        lines += [f"- {escape(title)}: `{_code(command)}`" for title, command in report.absent]
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    """Text inside one pair of backticks, where everything but a backtick means itself."""
    return " ".join(text.replace("`", "'").split())


def _table(table: Table) -> Sequence[str]:
    head = [escape(column.removeprefix(">")) for column in table.columns]
    rule = ["---:" if column.startswith(">") else "---" for column in table.columns]
    rows = [[escape(cell) for cell in row] for row in table.rows]
    return [f"| {' | '.join(cells)} |" for cells in [head, rule, *rows]]


def _prose(text: str) -> str:
    """A paragraph; commands in backticks stay code."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if _CODE.fullmatch(part) else _SPECIAL.sub(_ESCAPED, part) for part in parts)


def escape(text: str) -> str:
    """Text that means itself: no markup, no line breaks."""
    return _SPECIAL.sub(_ESCAPED, " ".join(text.split()))
