"""What the services knew of the digits model after a small recipe, gathered from a real run and kept as JSON.

The calibration record's statistics and means were left out, which a report does not read.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boardwright.compiler.engine.report import Report, ReportData, compose


@pytest.fixture(scope="session")
def gathered() -> ReportData:
    """Five variants with their evaluations, costs and documents."""
    text = Path(__file__).with_name("digits.json").read_text(encoding="utf-8")
    return ReportData.from_json(json.loads(text))


@pytest.fixture(scope="session")
def composed(gathered: ReportData) -> Report:
    """The report of it; drawing takes a while."""
    return compose(gathered)
