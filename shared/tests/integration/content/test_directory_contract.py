from __future__ import annotations

import pytest

from boardwright.content import BlobStore
from boardwright.content.directory import DirectoryStore
from boardwright.testing.blob_store import BlobStoreContract


class TestDirectoryStore(BlobStoreContract):
    @pytest.fixture
    def store(self, directory_store: DirectoryStore) -> BlobStore:
        return directory_store
