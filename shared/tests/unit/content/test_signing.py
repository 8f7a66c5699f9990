from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from boardwright.content import InvalidContent, open_store, part_plan
from boardwright.content.signing import RequestRefused, check_request, sign_request

KEY = b"a key for tests only"


def signed(method: str = "GET", path: str = "/blobs/x", **query: str) -> tuple[str, dict[str, str]]:
    url = urlsplit(sign_request(KEY, method, path, 60, query))
    return url.path, dict(parse_qsl(url.query, keep_blank_values=True))


def test_what_was_signed_is_accepted() -> None:
    path, query = signed(media_type="text/plain; a=b&c", empty="")
    fields = check_request(KEY, "GET", path, query)
    assert (fields["media_type"], fields["empty"]) == ("text/plain; a=b&c", "")
    assert check_request(KEY, "HEAD", path, query) == fields


@pytest.mark.parametrize("change", ["method", "path", "query", "more", "expires", "signature", "none", "key"])
def test_anything_else_is_refused(change: str) -> None:
    path, query = signed(media_type="text/plain")
    method, key = "GET", KEY
    match change:
        case "method":
            method = "PUT"
        case "path":
            path = "/blobs/y"
        case "query":
            query["media_type"] = "text/html"
        case "more":
            query["a"] = "b"
        case "expires":
            query["expires"] = str(int(query["expires"]) + 1000)
        case "signature":
            query["signature"] = "ü"
        case "none":
            del query["signature"]
        case "key":
            key = KEY + b"!"
    with pytest.raises(RequestRefused, match="does not hold"):
        check_request(key, method, path, query)


def test_an_empty_key_signs_and_accepts_nothing() -> None:
    with pytest.raises(InvalidContent, match="BOARDWRIGHT_SIGNING_KEY"):
        sign_request(b"", "GET", "/blobs/x", 60, {})
    with pytest.raises(RequestRefused):
        check_request(b"", "GET", "/blobs/x", {"expires": "99999999999", "signature": ""})


def test_time_runs_out() -> None:
    path, query = signed()
    expires = int(query["expires"])
    check_request(KEY, "GET", path, query, clock=lambda: expires - 1)
    with pytest.raises(RequestRefused, match="expired"):
        check_request(KEY, "GET", path, query, clock=lambda: expires)
    with pytest.raises(InvalidContent):
        sign_request(KEY, "GET", "/blobs/x", 0, {})


@pytest.mark.parametrize(
    ("size", "part_bytes", "lengths"),
    [
        (0, 8 << 20, [0]),
        (1, 8 << 20, [1]),
        (8 << 20, 8 << 20, [8 << 20]),
        ((8 << 20) + 1, 8 << 20, [8 << 20, 1]),
        (100 << 30, 16 << 20, None),
        (5 << 40, 1 << 30, None),
    ],
)
def test_the_part_rule(size: int, part_bytes: int, lengths: list[int] | None) -> None:
    plan = part_plan(size)
    assert plan.part_bytes == part_bytes
    assert plan.count <= 10_000
    if lengths is not None:
        assert [plan.length(number) for number in range(1, plan.count + 1)] == lengths
    assert plan.offset(plan.count) + plan.length(plan.count) == size


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/folder",
        "file://host/folder",
        "ftp://x",
        "s3://",
        "s3://bucket",
        "s3://bucket?endpoint=http://x&a=b",
    ],
)
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(InvalidContent):
        open_store(url)


def test_s3_needs_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOARDWRIGHT_S3_ACCESS_KEY", raising=False)
    with pytest.raises(InvalidContent, match="set BOARDWRIGHT_S3_ACCESS_KEY"):
        open_store("s3://bucket?endpoint=http://127.0.0.1:1")
    monkeypatch.setenv("BOARDWRIGHT_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("BOARDWRIGHT_S3_SECRET_KEY", "b")
    with pytest.raises(InvalidContent, match="write http://host:port"):
        open_store("s3://bucket?endpoint=127.0.0.1:1")
