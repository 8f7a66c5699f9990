"""A report tells what was measured, says what is missing, and lets no name become markup."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boardwright.compiler.engine.report import (
    Cost,
    MadeVariant,
    Plot,
    Report,
    ReportData,
    Section,
    Table,
    comparisons,
    compose,
    findings,
    to_html,
    to_markdown,
    wording,
)

HOSTILE = "<script>alert(1)</script>\"'&|`x`$\\frac{1}{2}$ ]] --> \u202e\x00 \n# h"


def section(report: Report, title: str) -> Section:
    return next(held for held in report.sections if held.title == title)


def cells(held: Section, table: int = 0) -> dict[str, dict[str, str]]:
    """Rows by their first cell, cells by column."""
    columns = [column.lstrip(">") for column in held.tables[table].columns]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in held.tables[table].rows}


class _Strict(HTMLParser):
    """Collects elements and text, and whether every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "path", "use"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "use"):
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> _Strict:
    reader = _Strict()
    reader.feed(page)
    return reader


def test_the_data_survives_a_trip_through_json(gathered: ReportData) -> None:
    assert ReportData.from_json(json.loads(json.dumps(gathered.to_json()))) == gathered


def test_every_table_of_the_comparisons_is_there(composed: Report) -> None:
    report = composed
    titles = [held.title for held in report.sections]
    assert titles == [
        "All variants", "Precisions", "Dynamic and static quantization", "Per tensor and per channel",
        "Calibration size", "Deployment", "Sensitivity of layers", "Activation ranges", "Diagnosis",
        "Ablation", "Costliest layers", *titles[11:],
    ]  # fmt: skip
    absent = dict(report.absent)
    assert (
        set(absent) == {"pruning ratio and accuracy"}
        and "pruning-ratios" in absent["pruning ratio and accuracy"]
    )
    plots = {plot.name for held in report.sections for plot in held.plots}
    assert plots == {
        "pareto", "calibration-size", "sensitivity", "activation-ranges", "costly-layers",
    }  # fmt: skip


def test_fp16_stands_between_fp32_and_int8_and_says_where_it_gains_nothing(gathered: ReportData) -> None:
    static = next(held for held in gathered.variants if held.name == "static")
    for faster in (True, False):
        half = replace(
            static, name="fp16", kind="compile/convert-float16", profile="", digest="sha256:" + "1" * 64,
            values={"faster_kernels": faster},
        )  # fmt: skip
        held = comparisons.precisions(replace(gathered, variants=(*gathered.variants, half)))
        assert held is not None
        assert [row[0] for row in held.tables[0].rows][:3] == ["FP32", "FP16", "INT8 static"]
        assert any("no kernels that get faster by FP16" in told for told in held.paragraphs) is not faster


def test_figures_are_those_that_were_measured(gathered: ReportData, composed: Report) -> None:
    report = composed
    static = next(held for held in gathered.variants if held.name == "static")
    cost = gathered.cost(static)
    assert cost is not None and gathered.baseline is not None
    row = cells(section(report, "Precisions"))["INT8 static"]
    assert row["speed"] == f"{cost.figure('speedup'):.2f}×"
    assert row["storage"] == f"{100 * static.size_bytes / gathered.baseline.size_bytes:.0f} %"
    sizes = cells(section(report, "Calibration size"))
    assert sorted(sizes) == ["10", "60"]
    assert sizes["60"]["top-1 %"] == f"{gathered.accuracy(static):.2f}"
    ways = cells(section(report, "Per tensor and per channel"))
    assert {ways["per-tensor"]["variant"], ways["per-channel"]["variant"]} == {"per-tensor", "static"}
    layers = section(report, "Sensitivity of layers").tables[0].rows
    assert [float(row[3]) for row in layers] == sorted(float(row[3]) for row in layers)


def test_points_lost_by_a_layer_have_a_column_where_they_were_measured(gathered: ReportData) -> None:
    plain = findings.sensitivity(gathered)
    assert plain is not None and "points lost" not in "".join(plain.tables[0].columns)
    entry = {"node": "conv", "operator": "Conv", "sqnr_db": 20.0, "measured": True, "metric_drop": 1.5}
    document = {"sensitivity": [entry], "sensitivity_method": {"metric": "top-1"}}
    told = replace(
        gathered,
        variants=tuple(replace(v, documents={"protection.json": document}) for v in gathered.variants[:1]),
    )
    found = findings.sensitivity(told)
    assert found is not None
    assert found.tables[0].rows[0] == ("1", "conv", "Conv", "20.0", "1.50", "measured")
    assert "Points lost are of top-1" in found.paragraphs[0]


def test_changes_are_drawn_where_there_are_some(gathered: ReportData) -> None:
    document = next(v.documents["ablation.json"] for v in gathered.variants if "ablation.json" in v.documents)
    first, *others = document["rows"]
    worse = [{**row, "accuracy": {"top1": 0.9}} for row in others]
    for rows, drawn in (([first, *others], []), ([first, *worse], ["ablation"])):
        told = ReportData("digits@3", documents={"ablation.json": {**document, "rows": rows}})
        found = findings.ablation(told)
        assert found is not None and [plot.name for plot in found.plots] == drawn


def test_latencies_have_three_digits() -> None:
    assert [wording.milliseconds(value) for value in (None, 0.0312, 8.347, 19.44, 208.3)] == [
        "–", "0.031", "8.35", "19.4", "208",
    ]  # fmt: skip


def test_how_sure_a_change_is_stands_beside_it(gathered: ReportData) -> None:
    sure = replace(gathered.variants[1], intervals={"top1_difference": [-0.012, 0.004]})
    report = compose(replace(gathered, variants=(gathered.variants[0], sure)))
    assert cells(report.sections[0])[sure.name]["95 % interval"] == "−1.2 … +0.4"


def test_what_was_not_measured_is_a_dash_and_never_a_guess(gathered: ReportData) -> None:
    bare = replace(gathered, board="", variants=tuple(replace(held, costs=()) for held in gathered.variants))
    report = compose(bare)
    assert set(cells(section(report, "All variants"))["static"].values()) >= {"–"}
    assert cells(section(report, "Precisions"))["INT8 static"]["speed"] == "–"
    assert "deployment" in dict(report.absent)
    elsewhere = replace(gathered, board="raspberry-pi-5")
    assert cells(section(compose(elsewhere), "Precisions"))["INT8 static"]["speed"] == "–"


def test_little_makes_a_little_report() -> None:
    empty = compose(ReportData("digits@1"))
    assert empty.sections == () and len(empty.absent) > 5
    assert "Not in this report" in to_html(empty) and "## Not in this report" in to_markdown(empty)
    alone = ReportData("digits@1", variants=(MadeVariant("baseline", "sha256:1", "compile/import"),))
    assert [held.title for held in compose(alone).sections] == ["All variants"]


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(gathered: ReportData, composed: Report) -> None:
    page = to_html(composed)
    reader = parsed(page)
    assert reader.elements.count("svg") == 5
    assert not {"script", "link", "img", "iframe", "object", "image", "foreignobject"} & set(reader.elements)
    links = [value for name, value in reader.attributes if name in ("href", "xlink:href", "src")]
    assert links and all(value is not None and value.startswith("#") for value in links)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert "default-src 'none'" in page
    assert page == to_html(compose(gathered)), "the same data give the same file"


def test_hostile_names_stay_names(gathered: ReportData) -> None:
    first, *others = gathered.variants
    hostile = replace(
        gathered,
        version=HOSTILE,
        dataset=HOSTILE,
        variants=(
            first,
            *(
                replace(held, name=f"{HOSTILE}{number}", profile=held.profile)
                for number, held in enumerate(others)
            ),
        ),
    )
    report = compose(hostile)
    reader = parsed(to_html(report))
    assert "script" not in reader.elements
    assert any("<script>alert(1)</script>" in text for text in reader.text)
    text = to_markdown(report, "plots")
    outside_code = re.sub(r"`[^`\n]*`", "", text.replace(r"\`", ""))
    assert "<script" not in outside_code.replace(r"\<script", "")
    assert not any(line.startswith("# ") for line in text.splitlines()[1:])
    for held in report.sections:
        for plot in held.plots:
            ElementTree.fromstring(plot.svg)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=30)
def test_any_text_keeps_a_table_a_table(left: str, right: str) -> None:
    report = Report("t", "", [Section("s", [left], [Table((left, f">{right}"), [(right, left)])], ())])
    lines = [line for line in to_markdown(report).splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3, 3, 3]
    reader = parsed(to_html(report))
    assert (reader.elements.count("td"), reader.elements.count("th")) == (2, 2)
    assert (reader.elements.count("script"), reader.elements.count("tr")) == (0, 2)


def test_plots_are_files_beside_markdown() -> None:
    drawn = Plot("pareto", "a [plot]", "<svg></svg>")
    report = Report("t", "", [Section("s", (), (), [drawn])])
    assert r"![a \[plot\]](r-plots/pareto.svg)" in to_markdown(report, "r-plots")
    assert "pareto" not in to_markdown(report)


@pytest.mark.parametrize("threads", [0, 1])
def test_latencies_are_found_by_threads(threads: int) -> None:
    cost = Cost("x", latencies_ms={threads: {"p50_ms": 2.0}})
    assert cost.figure("p50_ms", threads) == 2.0
    assert cost.figure("p50_ms", 1 - threads) is None


def test_what_a_measurement_had_to_say_stands_with_its_figures(gathered: ReportData) -> None:
    said = "The host was busy (load average 9 on 2 CPUs)."
    variants = [
        replace(held, costs=[replace(cost, warnings=[said]) for cost in held.costs])
        for held in gathered.variants
        if held.costs
    ]
    told = section(compose(replace(gathered, variants=variants)), "Deployment").paragraphs
    (busy,) = [text for text in told if said in text]
    assert all(f"{held.name} on " in busy for held in variants)
    assert not any(said in text for text in section(compose(gathered), "Deployment").paragraphs)


def test_pruned_variants_are_told_with_what_was_done_after(gathered: ReportData) -> None:
    base = gathered.baseline
    assert base is not None

    def made(name: str, kind: str, source: str, accuracy: float, macs: float = 0.0) -> MadeVariant:
        values = {"removed": {"macs": macs, "parameters": macs / 2}} if macs else {}
        return MadeVariant(
            name, name, kind, source=source, size_bytes=base.size_bytes // 2, values=values,
            accuracy={"top1": accuracy},
        )  # fmt: skip

    variants = (
        base,
        made("p30", "compile/prune", base.digest, 0.9, 0.3),
        made("p10", "compile/prune", base.digest, 0.98, 0.1),
        made("tuned", "compile/fine-tune", "p30", 0.99),
        made("small", "compile/quantize", "tuned", 0.985),
    )
    found = section(compose(replace(gathered, variants=variants)), "Pruning ratio and accuracy")
    rows = cells(found)
    assert next(iter(rows)) == "p10"
    assert (rows["p30"]["MACs removed"], rows["p30"]["parameters removed"]) == ("30 %", "15 %")
    assert rows["small"]["then"] == "fine-tune, INT8 static" and rows["small"]["change"] == "−1.50"
    assert [plot.name for plot in found.plots] == ["pruning-ratio"]
    sparse = (base, variants[1], made("sparse", "compile/prune", base.digest, 0.8))
    alone = section(compose(replace(gathered, variants=sparse)), "Pruning ratio and accuracy")
    assert {"p30", "sparse"} <= set(cells(alone)) and not alone.plots
