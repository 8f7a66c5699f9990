"""Content: what Boardwright stores is a blob named by its SHA-256, what it ships a manifest of blobs.

A map of this folder:

- `digest`     Digest, and the helpers that hash bytes and files
- `canonical`  JSON that others wrote, read; canonical JSON: one value, one byte string, one digest
- `oci`        OCI descriptors, image manifests and image indexes
- `errors`     what a store may raise
- `store`      the BlobStore port, its value types and the rule that splits an upload into parts
- `directory`  the store in a folder (embedded default): `parts` takes its uploads, `signing` signs its
               requests, `directory_endpoint` and `directory_app` serve them over HTTP
- `s3`         the store in any S3 (through the `minio` client)
- `durable`    files that are visible only when whole and on disk
- `opening`    `open_store`: from a URL to a store
- `transfer`   blobs up and down through the Blobs API, for its clients (with `download` and `hashing`)
"""

from boardwright.content.canonical import canonical_json, read_json
from boardwright.content.digest import Digest, digest_file
from boardwright.content.errors import (
    BlobNotFound,
    BlobTooLarge,
    ContentError,
    DigestMismatch,
    InvalidContent,
    SizeMismatch,
    StoreFull,
    StoreUnavailable,
    UploadNotFound,
)
from boardwright.content.opening import open_store
from boardwright.content.store import (
    CHUNK_BYTES,
    BlobStat,
    BlobStore,
    Part,
    PartPlan,
    SignedRequest,
    UploadStat,
    part_plan,
)

__all__ = [
    "CHUNK_BYTES",
    "BlobNotFound",
    "BlobStat",
    "BlobStore",
    "BlobTooLarge",
    "ContentError",
    "Digest",
    "DigestMismatch",
    "InvalidContent",
    "Part",
    "PartPlan",
    "SignedRequest",
    "SizeMismatch",
    "StoreFull",
    "StoreUnavailable",
    "UploadNotFound",
    "UploadStat",
    "canonical_json",
    "digest_file",
    "open_store",
    "part_plan",
    "read_json",
]
