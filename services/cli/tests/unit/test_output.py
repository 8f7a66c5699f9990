from __future__ import annotations

import io
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import typer

from boardwright.api.jobs.v1 import jobs_pb2
from boardwright.cli import output
from boardwright.cli.__main__ import exit_code, main
from boardwright.cli.commands import server
from boardwright.cli.commands.looking import figure_text
from boardwright.rpc import errors


def test_json_fields_are_opened_up() -> None:
    job = jobs_pb2.Job(name="j", spec_json='{"a": [1]}', state=jobs_pb2.Job.STATE_RUNNING, revision=2**40)
    document = output.document(job)
    assert document["spec"] == {"a": [1]}
    assert document["state"] == "STATE_RUNNING"
    assert document["revision"] == 2**40
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (7.5e6, "7.5 MB"), (2e12, "2.0 TB")],
)
def test_sizes_read_well(size_bytes: float, text: str) -> None:
    assert output.size(size_bytes) == text


def test_states_in_words() -> None:
    assert output.state(jobs_pb2.Job(state=jobs_pb2.Job.STATE_SUCCEEDED)) == "succeeded"


def test_a_table_is_not_cut_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    output.print_table(("a", ">b"), [(long, "[red]1[/red]")])
    printed = capsys.readouterr().out
    assert long in printed
    assert "[red]1[/red]" in printed  # what comes from outside is never markup


def test_a_narrow_terminal_breaks_between_words_and_never_names_and_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    row = (
        "quantize-dynamic-dynamic",
        "raspberry-pi-5",
        "1234.56",
        "reads its input twice and is slower by it",
    )
    output.print_table(("step", "board", ">seconds", "says"), [row])
    printed = capsys.readouterr().out
    assert all(len(line) <= 60 for line in printed.splitlines())
    words = set(printed.split())
    assert {*row[:3], *row[3].split()} <= words


def test_notes_are_as_wide_as_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output.print_notes({"a": "word " * 100})
    assert max(map(len, capsys.readouterr().out.splitlines())) in range(100, 121)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    output.print_notes({"a": "word " * 10})
    assert capsys.readouterr().out == f"a:\n  {'word ' * 7}".rstrip() + f"\n  {'word ' * 3}".rstrip() + "\n"


def test_details_leave_empty_values_out(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_details([("name", "a\nb"), ("nothing", ""), ("x", "1")])
    assert capsys.readouterr().out == "name  a\n      b\nx     1\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgument("FIELD_INVALID", ""), 2),
        (errors.NotFound("MODEL_NOT_FOUND", ""), 3),
        (errors.FailedPrecondition("GATE_REFUSED", ""), 3),
        (errors.PermissionDenied("PERMISSION_MISSING", ""), 3),
        (errors.ResourceExhausted("STORE_FULL", ""), 3),
        (errors.Unavailable("SERVICE_UNAVAILABLE", ""), 4),
        (errors.DeadlineExceeded("DEADLINE_EXCEEDED", ""), 4),
        (errors.Internal("INTERNAL", ""), 1),
    ],
)
def test_errors_become_exit_codes(error: errors.BoardwrightError, code: int) -> None:
    assert exit_code(error) == code


def test_an_interruption_says_that_the_job_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(context: object, *values: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["boardwright", "job", "watch", "compileJobs/7"])
    monkeypatch.setattr("boardwright.cli.commands.job.client_of", interrupted)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert "`boardwright job cancel`" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(context: object, *values: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.argv", ["boardwright", "job", "show", "compileJobs/7"])
    monkeypatch.setattr("boardwright.cli.commands.job.client_of", closed)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0


def test_a_terminal_without_utf8_gets_what_it_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    held = jobs_pb2.Job(name="é–", title="–")
    for arguments, wanted in (([], "what     ?"), (["-o", "json"], '"name": "\\u00e9\\u2013"')):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.argv", ["boardwright", "job", "show", "compileJobs/7", *arguments])
        client = SimpleNamespace(jobs=SimpleNamespace(get=lambda _: held))
        monkeypatch.setattr("boardwright.cli.commands.job.client_of", lambda _, c=client: nullcontext(c))
        with pytest.raises(SystemExit):
            main()
        stream.flush()
        assert wanted in stream.buffer.getvalue().decode("latin-1")  # type: ignore[attr-defined]


def test_what_people_read_has_short_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "projects/default/models/digits/releases/2"
    output.print_table(("why not",), [[f"{name} was not built for this"]])
    output.print_details([("why not", name)])
    output.print_notes({"step": name})
    output.say(name)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("digits@r2") == 4
    assert name not in printed.out + printed.err


@pytest.mark.parametrize(
    ("names", "where", "limit", "said"),
    [
        ([], "", 2, "none yet"),
        ([], 'state = "X"', 2, 'Nothing meets the filter state = "X"'),
        (["a"], "", 2, ""),
        (["a", "b"], "", 2, "there may be more (--limit 0 for all)"),
        (["a", "b"], "", 0, ""),
    ],
)
def test_a_list_says_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str], names: list[str], where: str, limit: int, said: str
) -> None:
    jobs = [jobs_pb2.Job(name=name) for name in names]
    output.print_messages(
        jobs,
        output.Format.TABLE,
        ("job",),
        lambda job: [job.name],
        empty="none yet",
        where=where,
        limit=limit,
    )
    told = capsys.readouterr().err
    assert said in told if said else not told


def test_a_token_can_be_piped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("bw_secret\n"))
    assert server.ask_for_token() == "bw_secret"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(typer.BadParameter, match="empty"):
        server.ask_for_token()


def test_figures_are_told_in_units_that_people_read() -> None:
    told = [
        figure_text(*figure)
        for figure in (("size_bytes", 693040.0), ("samples", 125000.0), ("p50_ms", 0.40512))
    ]
    assert told == ["693.0 kB", "125000", "0.4051"]
