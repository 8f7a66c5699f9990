"""The S3 requests that `minio`'s public methods lack: multipart uploads by part, and conditional writes.

Each is a presigned URL (which `minio` makes) sent through the same connection pool.
Source: Amazon S3 API Reference, `CreateMultipartUpload`, `UploadPart`, `ListParts`,
`CompleteMultipartUpload`, `AbortMultipartUpload`, `ListMultipartUploads`, `PutObject` (conditional writes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit
from xml.etree import ElementTree

from minio import Minio
from minio.credentials import Credentials
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.signer import presign_v4
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError

from boardwright.content.errors import ContentError, InvalidContent, StoreFull, StoreUnavailable, cause_of

_REQUEST_LIFE = timedelta(minutes=15)
_FULL_CODES = frozenset({"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_FULL_STATUS = 507
# Servers that answer InternalError when they are full may say so in the message; SeaweedFS does not.
_FULL_MESSAGES = ("no free volumes", "no writable volumes", "not enough space", "no space left")


class Absent(ContentError):
    """S3 answered that it has no such object or upload."""


class AlreadyThere(ContentError):
    """A conditional write found an object."""


@dataclass(frozen=True, slots=True)
class SentPart:
    """A part as S3 lists it. SeaweedFS lists every body that was sent for one number, in no order."""

    number: int
    size_bytes: int
    etag: str
    modified: str


class S3Requests:
    """Multipart and conditional requests on one bucket.

    Args:
        pool: the connections.
        endpoint: where S3 is, for example `http://127.0.0.1:8333`.
        region: of the bucket.
        bucket: its name.
        access_key: who asks.
        secret_key: what signs.
    """

    def __init__(
        self, pool: PoolManager, *, endpoint: str, region: str, bucket: str, access_key: str, secret_key: str
    ) -> None:
        self.client = minio_client(pool, endpoint, region, access_key, secret_key)
        self._pool = pool
        self._endpoint = endpoint
        self._region = region
        self._bucket = bucket
        self._credentials = Credentials(access_key, secret_key)

    def create_upload(self, key: str) -> str:
        """Begin a multipart upload; returns its id."""
        document = _xml(self._send("POST", key, {"uploads": ""}))
        return _text(document, "UploadId")

    def put_part(self, key: str, upload_id: str, number: int, data: bytes) -> None:
        """Send one part."""
        self._send("PUT", key, {"uploadId": upload_id, "partNumber": str(number)}, body=data)

    def parts(self, key: str, upload_id: str) -> list[SentPart]:
        """The parts that arrived.

        Raises:
            Absent: there is no such upload.
        """
        found: list[SentPart] = []
        marker = "0"
        while True:
            query = {"uploadId": upload_id, "max-parts": "1000", "part-number-marker": marker}
            document = _xml(self._send("GET", key, query))
            for part in document.iterfind("{*}Part"):
                number, size = int(_text(part, "PartNumber")), int(_text(part, "Size"))
                etag, modified = _text(part, "ETag").strip('"'), _text(part, "LastModified", "")
                found.append(SentPart(number, size, etag, modified))
            following = _text(document, "NextPartNumberMarker", "")
            if _text(document, "IsTruncated", "false") != "true" or following in ("", marker):
                return found
            marker = following

    def complete_upload(self, key: str, upload_id: str, parts: list[SentPart]) -> None:
        """Join the parts into an object; afterwards the upload takes no more of them.

        Raises:
            Absent: there is no such upload.
        """
        root = ElementTree.Element("CompleteMultipartUpload")
        for part in parts:
            element = ElementTree.SubElement(root, "Part")
            ElementTree.SubElement(element, "PartNumber").text = str(part.number)
            ElementTree.SubElement(element, "ETag").text = f'"{part.etag}"'
        answer = self._send("POST", key, {"uploadId": upload_id}, body=ElementTree.tostring(root))
        document = _xml(answer)
        # Completing is slow, so S3 may answer 200 first and put the error into the body.
        if document.tag.endswith("Error"):
            raise _refusal(200, _text(document, "Code", ""), _text(document, "Message", ""))

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts, if it is there."""
        try:
            self._send("DELETE", key, {"uploadId": upload_id})
        except Absent:
            return

    def uploads(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """Key, upload id and start of every open upload."""
        markers = {"key-marker": "", "upload-id-marker": ""}
        while True:
            document = _xml(self._send("GET", "", {"uploads": "", "prefix": prefix, **markers}))
            for upload in document.iterfind("{*}Upload"):
                started = datetime.fromisoformat(_text(upload, "Initiated"))
                yield _text(upload, "Key"), _text(upload, "UploadId"), started
            following = {
                "key-marker": _text(document, "NextKeyMarker", ""),
                "upload-id-marker": _text(document, "NextUploadIdMarker", ""),
            }
            if _text(document, "IsTruncated", "false") != "true" or following == markers:
                return
            markers = following

    def put_new(self, key: str, data: bytes) -> None:
        """Write an object that must not be there yet.

        Raises:
            AlreadyThere: it is.
        """
        self._send("PUT", key, {}, body=data, headers={"If-None-Match": "*"})

    def get(self, key: str) -> tuple[bytes, Mapping[str, str]]:
        """A small object and its headers.

        Raises:
            Absent: there is none.
        """
        answer = self._send("GET", key, {})
        return answer.data, answer.headers

    def _url(self, method: str, key: str, query: dict[str, str], life: timedelta) -> str:
        if not key:
            return self._bucket_url(method, query, life)
        url: str = self.client.get_presigned_url(
            method=method, bucket_name=self._bucket, object_name=key, expires=life, extra_query_params=query
        )
        return url

    def _bucket_url(self, method: str, query: dict[str, str], life: timedelta) -> str:
        # minio's public method presigns objects alone, its signer presigns any URL.
        site = urlsplit(self._endpoint)
        text = urlencode(sorted(query.items()), quote_via=quote)
        signed = presign_v4(
            method=method,
            url=SplitResult(site.scheme, site.netloc, f"/{self._bucket}", text, ""),
            region=self._region,
            credentials=self._credentials,
            date=datetime.now(UTC),
            expires=int(life.total_seconds()),
        )
        return str(urlunsplit(signed))

    def _send(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> BaseHTTPResponse:
        with s3_errors():
            url = self._url(method, key, query, _REQUEST_LIFE)
            answer = self._pool.request(method, url, body=body, headers=dict(headers or {}))
            if answer.status < 300:
                return answer
        code, message = "", ""
        if answer.data.lstrip().startswith(b"<"):
            document = _xml(answer)
            code, message = _text(document, "Code", ""), _text(document, "Message", "")
        raise _refusal(answer.status, code, message)


def minio_client(pool: PoolManager, endpoint: str, region: str, access_key: str, secret_key: str) -> Minio:
    """A `minio` client for an endpoint with its scheme.

    Raises:
        InvalidContent: the endpoint is no http:// or https:// address.
    """
    site = urlsplit(endpoint)
    if site.scheme not in ("http", "https") or not site.netloc or site.path not in ("", "/"):
        raise InvalidContent(f"{endpoint!r} is no endpoint: write http://host:port or https://host")
    return Minio(
        endpoint=site.netloc,
        access_key=access_key,
        secret_key=secret_key,
        secure=site.scheme == "https",
        region=region,
        http_client=pool,
    )


@contextmanager
def s3_errors() -> Iterator[None]:
    """Turn what `minio` and the connection pool raise into this package's errors.

    Raises:
        Absent: there is no such object or upload.
        StoreFull: the server has no room left.
        StoreUnavailable: anything else.
    """
    try:
        yield
    except S3Error as error:
        raise _refusal(error.response.status, error.code or "", error.message or "") from error
    except (InvalidResponseError, ServerError) as error:
        raise _refusal(500, "", str(error)) from error
    except (HTTPError, OSError, MinioException) as error:
        raise StoreUnavailable(
            f"the object store does not answer ({cause_of(error)}): start it, then retry"
        ) from error


def _refusal(status: int, code: str, message: str) -> ContentError:
    text = f"{status} {code} {message}".strip()
    if code in ("NoSuchKey", "NoSuchUpload"):
        return Absent(text)
    if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return AlreadyThere(text)
    if (
        status == _FULL_STATUS
        or code in _FULL_CODES
        or any(each in message.lower() for each in _FULL_MESSAGES)
    ):
        return StoreFull(f"the object store has no room left ({text}): give it some, then retry")
    if code == "NoSuchBucket":
        return StoreUnavailable(f"the bucket is missing ({text}): create it, then retry")
    if status == 403:
        return StoreUnavailable(
            f"the object store refuses our credentials ({text}): correct them, then retry"
        )
    return StoreUnavailable(
        f"the object store failed ({text}): its log tells why, a full disk for one; then retry"
    )


def _xml(answer: BaseHTTPResponse) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(answer.data)  # noqa: S314 (our own object store's answer)
    except ElementTree.ParseError as error:
        raise StoreUnavailable(f"the object store answered no XML ({error}): is the endpoint S3?") from error


def _text(element: ElementTree.Element, name: str, otherwise: str | None = None) -> str:
    text = element.findtext(f"{{*}}{name}", otherwise)
    if text is None:
        raise StoreUnavailable(f"the object store's answer lacks {name}: is the endpoint S3?")
    return text
