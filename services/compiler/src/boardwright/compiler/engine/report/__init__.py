"""Pass ``report``: what was tried on a model, as one page to read: tables, plots, and what is missing.

Its input is what other passes left (``data``): evaluations, quantization records, calibration records,
protection with sensitivity, ablations, profiles, and the Measurements of boards. A section without data is
left out, with a line that says which command makes it. Nothing is told that was not measured.

- ``data``: the input, as values that survive a trip through JSON.
- ``content``: sections of paragraphs, tables and plots, without any format.
- ``comparisons``: precision, dynamic and static, granularity, calibration size, pruning, deployment.
- ``findings``: sensitivity, activation ranges, ablation, costly layers, what stayed in floating point.
- ``composing``: all of it in order. ``plots``: SVG by matplotlib. ``markdown``, ``html``: the two formats.
"""

from boardwright.compiler.engine.report.composing import compose
from boardwright.compiler.engine.report.content import Plot, Report, Section, Table
from boardwright.compiler.engine.report.data import Cost, MadeVariant, ReportData
from boardwright.compiler.engine.report.html import to_html
from boardwright.compiler.engine.report.markdown import to_markdown

__all__ = [
    "Cost",
    "MadeVariant",
    "Plot",
    "Report",
    "ReportData",
    "Section",
    "Table",
    "compose",
    "to_html",
    "to_markdown",
]
