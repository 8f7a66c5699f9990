"""The directory store's HTTP surface, byte by byte."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from urllib.parse import urlsplit

import pytest

from boardwright.content import Part, SignedRequest
from boardwright.content.directory import DirectoryStore
from boardwright.testing.blob_store import send, some_bytes


def ask(
    request: SignedRequest, method: str, body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    url = urlsplit(request.url)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    try:
        connection.request(method, f"{url.path}?{url.query}", body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_head_and_headers(directory_store: DirectoryStore) -> None:
    digest = directory_store.put(b"<script>").digest
    request = directory_store.download_request(digest, 60, "text/html")
    for method, body in (("HEAD", b""), ("GET", b"<script>")):
        answer, found = ask(request, method)
        assert (answer.status, found) == (200, body)
        assert answer.headers["Content-Length"] == "8"
        assert answer.headers["Content-Type"] == "text/html"
        assert answer.headers["ETag"] == f'"{digest}"'
        # Whatever the bytes are, a browser does not run them in the gateway's name.
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-", 206, 10, 100),
        ("bytes=-5", 206, 95, 100),
        ("bytes=-500", 206, 0, 100),
        ("bytes=90-500", 206, 90, 100),
        ("bytes=5-4", 200, 0, 100),
        ("bytes=0-1,5-6", 200, 0, 100),
        ("items=0-1", 200, 0, 100),
        ("bytes=-", 200, 0, 100),
    ],
)
def test_ranges(directory_store: DirectoryStore, header: str, status: int, start: int, end: int) -> None:
    data = some_bytes(100)
    request = directory_store.download_request(directory_store.put(data).digest, 60)
    answer, body = ask(request, "GET", Range=header)
    assert (answer.status, body) == (status, data[start:end])
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/100"


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=-0"])
def test_ranges_behind_the_end(directory_store: DirectoryStore, header: str) -> None:
    request = directory_store.download_request(directory_store.put(some_bytes(100)).digest, 60)
    answer, body = ask(request, "GET", Range=header)
    assert (answer.status, json.loads(body)["reason"]) == (416, "RANGE_NOT_SATISFIABLE")


def test_a_file_that_is_not_in_memory(directory_store: DirectoryStore) -> None:
    data = some_bytes(3_000_000)
    digest = directory_store.put(data).digest
    file = os.open(directory_store.path(digest), os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    assert send(directory_store.download_request(digest, 60)) == (200, data)


@pytest.mark.parametrize("path", ["/", "/parts/5/1", "/blobs/x", "/../store/sha256"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
def test_nothing_else_is_served(directory_store: DirectoryStore, method: str, path: str) -> None:
    base = directory_store.download_request(directory_store.put(b"").digest, 60).url.split("/blobs")[0]
    answer, body = ask(SignedRequest(method, base + path), method, b"body")
    assert (answer.status, json.loads(body)["reason"]) == (404, "NO_SUCH_PATH")


def test_a_part_must_tell_its_length(directory_store: DirectoryStore) -> None:
    handle = directory_store.begin_upload(5)
    request = directory_store.part_request(handle, 1, 60)
    url = urlsplit(request.url)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.request("PUT", f"{url.path}?{url.query}", iter([b"bytes"]), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["reason"]) == (411, "LENGTH_REQUIRED")
    connection.close()
    assert directory_store.received_parts(handle) == []


def test_a_part_of_ten_gigabytes_is_refused_before_it_is_read(directory_store: DirectoryStore) -> None:
    url = urlsplit(directory_store.part_request(directory_store.begin_upload(5), 1, 60).url)
    with socket.create_connection((url.hostname, url.port), timeout=30) as client:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 400")


def test_a_client_that_hangs_up_leaves_no_part(directory_store: DirectoryStore) -> None:
    handle = directory_store.begin_upload(3_000_000)
    url = urlsplit(directory_store.part_request(handle, 1, 60).url)
    with socket.create_connection((url.hostname, url.port), timeout=30) as client:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
        client.sendall(head.encode() + some_bytes(2_000_000))
    data = some_bytes(3_000_000)
    deadline = time.monotonic() + 20
    while send(directory_store.part_request(handle, 1, 60), data)[0] != 200:
        assert time.monotonic() < deadline
    assert directory_store.received_parts(handle) == [Part(1, 3_000_000)]
