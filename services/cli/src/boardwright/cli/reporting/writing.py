"""A report as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boardwright.rpc.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from boardwright.compiler.engine.report import ReportData


def require_engine() -> None:
    """Raises: FailedPrecondition DEPENDENCY_MISSING, where the engine or its plots are not installed."""
    from importlib.util import find_spec

    for module in ("boardwright.compiler", "matplotlib"):
        if find_spec(module) is None:
            raise FailedPrecondition(
                "DEPENDENCY_MISSING", "a written report needs more: pip install 'boardwright-cli[report]'"
            )


def write(data: ReportData, html: Path | None, markdown: Path | None) -> list[Path]:
    """Write the files that are asked for; Markdown's plots go to NAME-plots/ beside it. Returns all paths.

    Raises:
        InvalidArgument: FILE_UNWRITABLE.
    """
    from boardwright.compiler.engine.report import compose, to_html, to_markdown

    report = compose(data)
    written = []
    try:
        if html is not None:
            html.parent.mkdir(parents=True, exist_ok=True)
            html.write_text(to_html(report), encoding="utf-8")
            written.append(html)
        if markdown is not None:
            folder = markdown.parent / f"{markdown.stem}-plots"
            folder.mkdir(parents=True, exist_ok=True)
            markdown.write_text(to_markdown(report, folder.name), encoding="utf-8")
            written.append(markdown)
            for section in report.sections:
                for plot in section.plots:
                    path = folder / f"{plot.name}.svg"
                    path.write_text(plot.svg, encoding="utf-8")
                    written.append(path)
    except OSError as error:
        raise InvalidArgument(
            "FILE_UNWRITABLE", f"cannot write {error.filename}: {error.strerror}"
        ) from error
    return written
