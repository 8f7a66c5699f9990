"""Lists of jobs: newest first, filtered, in pages."""

from __future__ import annotations

from boardwright.database import Transaction, paging
from boardwright.database.filters import Field, to_condition
from boardwright.jobs.domain.dag import JobState
from boardwright.jobs.domain.job import Job
from boardwright.jobs.storage.jobs import read_jobs

_PAGE_BYTES = 4 << 20
"""Steps tell figures at any length; an answer must fit into a message, whatever page size was asked for."""

FIELDS = {
    "state": Field("state", values=tuple(JobState)),
    "creator": Field("principal"),
    "title": Field("title"),
    "create_time": Field("create_us", "time"),
}


def list_jobs(
    tx: Transaction, project: str, page_size: int, page_token: str, filter_text: str
) -> tuple[list[Job], str]:
    """Return a page of jobs and the token of the next ("" at the end).

    Raises:
        InvalidArgument: FIELD_INVALID, FILTER_INVALID, PAGE_TOKEN_MISMATCH.
    """
    size = paging.page_size(page_size)
    scope = ("jobs", project, filter_text)
    after = paging.decode(page_token, *scope, kinds=(int, str))
    condition = to_condition(filter_text, FIELDS, tx.dialect)
    beyond = " AND (create_us, name) < (:after_us, :after_name)" if after else ""
    keys = {"after_us": after[0], "after_name": after[1]} if after else {}
    rows = tx.all(
        f"SELECT * FROM jobs WHERE project = :project AND ({condition.sql}){beyond}"
        " ORDER BY create_us DESC, name DESC LIMIT :limit",
        project=project,
        limit=size + 1,
        **condition.parameters,
        **keys,
    )
    page, token = paging.cut(rows, size, lambda row: (row["create_us"], row["name"]), *scope)
    jobs = read_jobs(tx, page, _PAGE_BYTES)
    if len(jobs) < len(page):
        token = paging.encode((jobs[-1].create_us, jobs[-1].name), *scope)
    return jobs, token
