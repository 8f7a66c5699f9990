"""`boardwright job`: what runs and what ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boardwright.cli.output import (
    Format,
    OutputOption,
    document,
    print_details,
    print_json,
    print_messages,
    print_notes,
    say,
)
from boardwright.cli.progress import Bars
from boardwright.cli.session import client_of

if TYPE_CHECKING:
    from boardwright.api.jobs.v1.jobs_pb2 import Job, Step
    from boardwright.client import Client

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Compile and build jobs.")

_FITS_A_COLUMN = 40
"""Longer than this, what a step says stands below the table."""

_SAID = 2
"""Warnings of a step that are told; of more, only how many there are."""

JobArgument = Annotated[str, typer.Argument(help="compileJobs/ID or buildJobs/ID.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="job")


@group.command("ls")
def list_(
    context: typer.Context,
    kind: Annotated[str, typer.Option(help="compile or build; default: both.")] = "",
    where: Annotated[str, typer.Option("--filter", help="For example: state = failed.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many of each kind; 0 for all.")] = 20,
    output: OutputOption = Format.TABLE,
) -> None:
    """List jobs, newest first. One that ended is kept for 180 days, or as the server is set.

    \b
    Example:
      boardwright job ls --kind compile
    """
    from boardwright.cli.output import moment, state

    with client_of(context) as client:
        found = list(client.jobs.list(kind=kind, where=where, limit=limit))
        print_messages(
            sorted(found, key=lambda job: -job.create_time.ToNanoseconds()),
            output,
            ("job", "what", "state", "steps", "created"),
            lambda job: (short(job.name), job.title, state(job), steps_done(job), moment(job.create_time)),
            empty="No jobs yet: boardwright compile digits@1",
            where=where,
        )


@group.command()
def show(context: typer.Context, job: JobArgument, output: OutputOption = Format.TABLE) -> None:
    """Show a job and its steps.

    \b
    Example:
      boardwright job show compileJobs/7
    """
    with client_of(context) as client:
        print_job(client.jobs.get(job), output)


@group.command()
def watch(context: typer.Context, job: JobArgument, output: OutputOption = Format.TABLE) -> None:
    """Follow a job until it has ended.

    \b
    Example:
      boardwright job watch buildJobs/3
    """
    with client_of(context) as client:
        print_job(follow(client, job, output), output)


@group.command()
def cancel(
    context: typer.Context,
    job: JobArgument,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Stop a job; what has finished stays in the cache.

    \b
    Example:
      boardwright job cancel compileJobs/7 --reason "wrong dataset"
    """
    with client_of(context) as client:
        print_job(client.jobs.cancel(job, reason), output)


@group.command()
def retry(
    context: typer.Context,
    job: JobArgument,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for it.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Start a job anew; remembered failures are forgotten.

    \b
    Example:
      boardwright job retry compileJobs/7
    """
    with client_of(context) as client:
        started = client.jobs.retry(job)
        print_job(started if detach else follow(client, started.name, output), output)


@group.command()
def logs(
    context: typer.Context,
    job: JobArgument,
    step: Annotated[str | None, typer.Argument(help="Default: all steps that ran.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what the steps of a job printed. A log is kept as long as the job that ran the step.

    \b
    Example:
      boardwright job logs compileJobs/7 quantize-int8
    """
    with client_of(context) as client:
        found = client.jobs.get(job)
        steps = [step] if step else [s.step for s in found.steps if s.attempts and not s.cached]
        texts = {name: client.jobs.logs(found.name, name) for name in steps}
    if output is Format.JSON:
        print_json(texts)
        return
    for name, text in texts.items():
        if not text.strip():
            say(f"{name} printed nothing; what it says of itself: boardwright job show {short(found.name)}")
        else:
            typer.echo(f"--- {name}\n{text.rstrip()}" if len(texts) > 1 else text.rstrip())
    if not texts:
        say("No step of this job ran here: all came from the cache, or none has begun.")


@group.command()
def outputs(
    context: typer.Context,
    job: JobArgument,
    step: Annotated[str, typer.Argument(help="Default: all steps.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List the files that the steps of a job made: graphs, reports, records.

    \b
    Example:
      boardwright job outputs compileJobs/7 quantize-int8
    """
    from dataclasses import asdict

    from boardwright.cli.output import print_table, size

    with client_of(context) as client:
        found = client.jobs.outputs(job, step)
    if output is Format.JSON:
        print_json([asdict(made) for made in found])
    elif found:
        rows = [(made.step, made.name, size(made.size_bytes), made.digest) for made in found]
        print_table(("step", "file", ">size", "digest"), rows)
    else:
        say("No step of this job has made a file yet.")


@group.command()
def download(
    context: typer.Context,
    job: JobArgument,
    directory: Annotated[Path, typer.Argument(help="Files go to DIRECTORY/STEP/FILE.")],
    step: Annotated[str, typer.Option(help="Of this step alone.")] = "",
    file: Annotated[str, typer.Option(help="Only files of this name.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Fetch the files that the steps of a job made.

    \b
    Example:
      boardwright job download compileJobs/7 here --step evaluate-int8 \\
        --file evaluation.json
    """
    with client_of(context) as client, Bars(output) as bars:
        paths = client.jobs.download(job, directory, step=step, file=file, progress=bars)
    if output is Format.JSON:
        print_json([str(path) for path in paths])
    else:
        for path in paths:
            typer.echo(path)


def follow(client: Client, job: str, output: Format) -> Job:
    """Wait for a job behind a bar; raises JobFailed."""
    with Bars(output) as bars:
        return client.jobs.wait(job, progress=bars)


def print_job(job: Job, output: Format) -> None:
    """Print a job with its steps."""
    from boardwright.cli.output import moment, print_table, state
    from boardwright.client.references import shorten

    if output is Format.JSON:
        print_json(document(job))
        return
    print_details(
        [
            ("job", short(job.name)),
            ("what", job.title),
            ("state", state(job)),
            ("why", job.failure.message),
            ("made", "\n".join(shorten(name) for name in job.results)),
            ("created", f"{moment(job.create_time)} by {job.creator}"),
        ]
    )
    said = {step.step: _says(step) for step in job.steps}
    told = {name: text for name, text in said.items() if len(text) > _FITS_A_COLUMN}
    print_table(
        ("step", "state", ">seconds", "worker", "says"),
        [
            (
                step.step,
                _step_state(step),
                _seconds(step),
                step.worker,
                "" if step.step in told else said[step.step],
            )
            for step in job.steps
        ],
    )
    print_notes(told)


def short(name: str) -> str:
    """compileJobs/7"""
    return "/".join(name.split("/")[2:])


def steps_done(job: Job) -> str:
    """How many steps have succeeded, and how many of them came from the cache."""
    from boardwright.api.jobs.v1.jobs_pb2 import Step

    done = [step for step in job.steps if step.state == Step.STATE_SUCCEEDED]
    cached = sum(step.cached for step in done)
    return f"{len(done)}/{len(job.steps)}" + (f" ({cached} cached)" if cached else "")


def _step_state(step: Step) -> str:
    from boardwright.cli.output import state

    return "cached" if step.cached else state(step)


def _seconds(step: Step) -> str:
    if step.cached or not step.start_time.seconds or not step.finish_time.seconds:
        return ""
    return f"{(step.finish_time.ToNanoseconds() - step.start_time.ToNanoseconds()) / 1e9:.1f}"


def _says(step: Step) -> str:
    if step.failure.message:
        return f"{step.failure.message} [{step.failure.reason}]"
    if step.progress.what and not step.finish_time.seconds:
        return f"{step.progress.what} {step.progress.done}/{step.progress.total or '?'}"
    told = " ".join(_sentence(warning) for warning in step.warnings[:_SAID])
    more = len(step.warnings) - _SAID
    return f"{told} {more} more: --output json." if more > 0 else told


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
