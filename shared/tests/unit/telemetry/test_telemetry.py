import json
import logging
import re
import subprocess
import sys
import threading

import pytest

from boardwright import telemetry
from boardwright.telemetry import metrics, tracing
from boardwright.telemetry.logs import JsonFormatter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_spans_of_one_trace_share_its_id():
    with telemetry.span("outer", traceparent=PARENT) as outer:
        assert telemetry.current_trace_id() == "0af7651916cd43dd8448eb211c80319c"
        with telemetry.span("inner") as inner:
            assert inner.trace_id == outer.trace_id
            assert inner.span_id != outer.span_id
        assert telemetry.current_context() == outer


def test_what_is_no_traceparent_begins_a_new_trace():
    for value in (
        "",
        "00-x",
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT + "-00",
        "01" + PARENT[2:],
    ):
        assert telemetry.parse_traceparent(value) is None
        token = telemetry.attach(value)
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", telemetry.current_traceparent())
        telemetry.detach(token)


def test_a_failing_span_is_exported_with_its_error_and_parent():
    class Sink:
        def __init__(self):
            self.spans = []

        def export(self, name, context, parent, start, end, attributes, error):
            self.spans.append((name, parent, start <= end, attributes, error))

    sink = Sink()
    tracing.set_sink(sink)
    try:
        with pytest.raises(KeyError), telemetry.span("work", traceparent=PARENT, step="quantize"):
            raise KeyError("x")
    finally:
        tracing.set_sink(None)
    assert sink.spans == [("work", "b7ad6b7169203331", True, {"step": "quantize"}, "KeyError")]


def test_metrics_are_prometheus_text():
    counted = metrics.Counter("pushes_total", "Pushes.", ("project",))
    counted.add(1, "a")
    counted.add(2, "a")
    counted.add(1, 'q"\\\n')
    assert counted.lines() == ['pushes_total{project="a"} 3', 'pushes_total{project="q\\"\\\\\\n"} 1']
    timed = metrics.Histogram("wait_seconds", "Waits.", (), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7):
        timed.observe(value)
    assert timed.lines() == [
        'wait_seconds_bucket{le="0.1"} 2', 'wait_seconds_bucket{le="1"} 3',
        'wait_seconds_bucket{le="+Inf"} 4',
        "wait_seconds_sum 7.65", "wait_seconds_count 4",
    ]  # fmt: skip


def test_metrics_are_registered_once_by_name():
    first = telemetry.counter("boardwright_test_total", "Test.")
    assert telemetry.counter("boardwright_test_total", "Test.") is first
    first.add(2)
    assert "# TYPE boardwright_test_total counter\nboardwright_test_total 2\n" in telemetry.metrics_text()
    with pytest.raises(ValueError, match="another type"):
        telemetry.gauge("boardwright_test_total", "Test.")


def test_log_lines_are_json_with_the_trace_id():
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "WARNING", "msg": "took %s", "args": (3,), "lease": "l1"}
    )
    with telemetry.span("s", traceparent=PARENT):
        line = json.loads(JsonFormatter("registry").format(record))
    assert line["message"] == "took 3"
    assert line["lease"] == "l1"
    assert line["service"] == "registry"
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


def test_an_unknown_log_level_is_named(monkeypatch):
    monkeypatch.setenv("BOARDWRIGHT_LOG", "loud")
    with pytest.raises(ValueError, match="BOARDWRIGHT_LOG is 'loud'"):
        telemetry.configure("registry")


def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch):
    sent, back = [], threading.Event()
    monkeypatch.setattr(telemetry, "_flushing", [back.wait, lambda: sent.append("spans")])
    telemetry.flush()
    assert sent == ["spans"] and not back.is_set()
    back.set()


def test_the_sdk_is_loaded_only_for_an_exporter():
    program = (
        "import sys\nfrom boardwright import telemetry\nfrom boardwright.rpc import server, client\n"
        "telemetry.configure('registry')\n"
        "heavy = ('opentelemetry', 'sqlalchemy', 'alembic', 'pydantic')\n"
        "loaded = [m for m in sys.modules if m.startswith(heavy)]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
