"""`request_id`: the same request again gives the same answer, and changes nothing twice (AIP-155).

The answer is stored in the transaction that made the change, so an answer exists exactly if the change does.
"""

from __future__ import annotations

import hashlib
import time

from boardwright.database.transaction import Transaction
from boardwright.rpc.errors import AlreadyExists, InvalidArgument

_MAX_LENGTH = 64
KEPT_SECONDS = 7 * 24 * 3600


def fingerprint(request: bytes) -> str:
    """What tells two requests apart: SHA-256 of the serialized request."""
    return hashlib.sha256(request).hexdigest()


def recall(tx: Transaction, principal: str, method: str, request_id: str, print_: str) -> bytes | None:
    """The stored answer to this request, or None if it is new (or carries no id).

    Raises: AlreadyExists REQUEST_ID_REUSED, InvalidArgument FIELD_INVALID.
    """
    if not request_id:
        return None
    if len(request_id) > _MAX_LENGTH:
        raise InvalidArgument(
            "FIELD_INVALID", f"request_id is longer than {_MAX_LENGTH} characters", field="request_id"
        )
    row = tx.one(
        "SELECT fingerprint, response FROM requests"
        " WHERE principal = :principal AND method = :method AND request_id = :request_id",
        principal=principal,
        method=method,
        request_id=request_id,
    )
    if row is None:
        return None
    if row["fingerprint"] != print_:
        raise AlreadyExists(
            "REQUEST_ID_REUSED",
            f"the request_id {request_id!r} was used for another {method}; use a new one",
            request_id=request_id,
        )
    return bytes(row["response"])


def remember(
    tx: Transaction, principal: str, method: str, request_id: str, print_: str, response: bytes
) -> None:
    """Store the answer to a new request; nothing to do without an id."""
    if not request_id:
        return
    tx.execute(
        "INSERT INTO requests (principal, method, request_id, fingerprint, response, created_us)"
        " VALUES (:principal, :method, :request_id, :fingerprint, :response, :now)",
        principal=principal,
        method=method,
        request_id=request_id,
        fingerprint=print_,
        response=response,
        now=time.time_ns() // 1000,
    )


def forget(tx: Transaction, before_us: int, limit: int = 1000) -> int:
    """Delete up to `limit` answers older than `before_us`; return how many went."""
    return tx.execute(
        "DELETE FROM requests WHERE (principal, method, request_id) IN (SELECT principal, method, request_id"
        " FROM requests WHERE created_us < :before ORDER BY created_us LIMIT :limit)",
        before=before_us,
        limit=limit,
    )
