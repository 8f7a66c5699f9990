"""How the S3 store names things: objects, entries and upload handles."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from boardwright.content.digest import Digest
from boardwright.content.errors import UploadNotFound
from boardwright.content.s3_requests import SentPart
from boardwright.content.store import PartPlan, part_plan

UPLOAD_KEY = re.compile(r"data/([0-9a-f]{1,11})-[0-9a-f]{32}")
_HANDLE = re.compile(r"([0-9a-f]{1,11}-[0-9a-f]{32})\.([\x21-\x7e]{1,1024})")


@dataclass(frozen=True, slots=True)
class S3Upload:
    """A multipart upload: its object, its id, and how it is split."""

    key: str
    upload_id: str
    plan: PartPlan


def blob_name(digest: Digest) -> str:
    """The key of the entry that makes a blob visible."""
    return f"sha256/{digest.hex}"


def new_key(size_bytes: int) -> str:
    """A fresh key for the bytes of an upload."""
    return f"data/{size_bytes:x}-{secrets.token_hex(16)}"


def plan_of_key(key: str) -> PartPlan:
    """How an upload's object is split. Raises: UploadNotFound for another object's key."""
    match = UPLOAD_KEY.fullmatch(key)
    if match is None:
        raise UploadNotFound(f"{key[:80]!r} is no object of an upload")
    return part_plan(int(match[1], 16))


def parse_handle(handle: str) -> S3Upload:
    """What a handle names. Raises: UploadNotFound for what is no handle."""
    match = _HANDLE.fullmatch(handle)
    if match is None:
        raise UploadNotFound(f"{handle[:80]!r} is no upload of this store: begin a new one")
    key = f"data/{match[1]}"
    return S3Upload(key, match[2], plan_of_key(key))


def whole_parts(plan: PartPlan, sent: list[SentPart]) -> list[SentPart]:
    """One body for every number that has one of its length, the latest, by number."""
    numbers = range(1, plan.count + 1)
    whole = [part for part in sent if part.number in numbers and part.size_bytes == plan.length(part.number)]
    latest = {part.number: part for part in sorted(whole, key=lambda part: part.modified)}
    return [latest[number] for number in sorted(latest)]


def microseconds(moment: datetime) -> int:
    """Since the epoch."""
    return int(moment.timestamp() * 1_000_000)
