from __future__ import annotations

import pytest

from boardwright.content import BlobStore
from boardwright.testing.blob_store import BlobStoreContract


@pytest.mark.s3
class TestS3Store(BlobStoreContract):
    @pytest.fixture
    def store(self, s3_store: BlobStore) -> BlobStore:
        return s3_store
