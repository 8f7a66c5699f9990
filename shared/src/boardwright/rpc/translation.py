"""Errors of the layers below a service, as the errors that its callers are told."""

from __future__ import annotations

from boardwright.content import errors as content
from boardwright.database import DatabaseFull, DatabaseUnavailable, QueryTooLong, ValueRefused
from boardwright.rpc.errors import BoardwrightError, InvalidArgument, NotFound, ResourceExhausted, Unavailable


def translate(error: Exception) -> BoardwrightError | None:
    """The error to answer with, or None for a defect (which becomes INTERNAL without its text)."""
    if isinstance(error, BoardwrightError):
        return error
    if isinstance(error, DatabaseFull):
        return ResourceExhausted("DATABASE_FULL", str(error))
    if isinstance(error, QueryTooLong):
        return ResourceExhausted("QUERY_TOO_LONG", str(error))
    if isinstance(error, DatabaseUnavailable):
        return Unavailable("DATABASE_UNAVAILABLE", str(error))
    if isinstance(error, ValueRefused):
        return InvalidArgument("FIELD_INVALID", str(error))
    if isinstance(error, content.StoreFull):
        return ResourceExhausted("STORE_FULL", str(error))
    if isinstance(error, content.StoreUnavailable):
        return Unavailable("STORE_UNAVAILABLE", str(error))
    if isinstance(error, content.BlobNotFound):
        return NotFound("BLOB_NOT_FOUND", str(error))
    return None
