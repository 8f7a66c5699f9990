"""The Blobs API's errors that more than one place raises."""

from __future__ import annotations

import logging

from boardwright.content import ContentError, Digest, InvalidContent
from boardwright.rpc.errors import InvalidArgument, NotFound, Unavailable

_log = logging.getLogger(__name__)


def parse_digest(text: str) -> Digest:
    """Raises: InvalidArgument FIELD_INVALID."""
    try:
        return Digest.parse(text)
    except InvalidContent as error:
        raise InvalidArgument("FIELD_INVALID", str(error), field="digest") from error


def blob_not_found(digests: list[Digest]) -> NotFound:
    """BLOB_NOT_FOUND, for blobs that a project does not see."""
    named = ", ".join(str(digest) for digest in digests[:20])
    return NotFound(
        "BLOB_NOT_FOUND",
        f"not visible in this project: {named}; upload the content to this project first",
        digests=named,
    )


def upload_not_found(upload: str) -> NotFound:
    """UPLOAD_NOT_FOUND."""
    return NotFound(
        "UPLOAD_NOT_FOUND", f"there is no upload {upload} (expired, cancelled or discarded); start again"
    )


def damaged(digest: Digest, error: ContentError) -> Unavailable:
    """BLOB_DAMAGED, for a blob that the database knows and the store does not give."""
    # The database says that it is there: the store lost or changed it, which is an outage, not "not found".
    _log.error("the store lost or changed a blob", extra={"digest": str(digest), "error": str(error)})
    return Unavailable(
        "BLOB_DAMAGED",
        f"the content of {digest} is lost or damaged in the store; restore it from a backup or push it again",
        digest=str(digest),
    )
