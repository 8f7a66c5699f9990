"""How a device signs its requests.

A device owns an Ed25519 key; the delivery service knows its public half. A signed request carries

    Boardwright-Device:     the device's resource name
    Boardwright-Timestamp:  Unix time in seconds
    Boardwright-Nonce:      random, new for every request
    Boardwright-Signature:  base64 of the signature over `message(...)`

The server takes a timestamp that is near its own time, and takes each nonce of a device once, so a replay
is useless. A device whose clock is wrong is told the server's time with the refusal (TIMESTAMP_SKEWED), signs
with that time from then on, and is heard; its clock itself stays as it is, and expiry of metadata is never
judged by what the server says.

Enrolment is signed with the new key over all other fields (`enrolment_message`), which proves that the device
owns it; the one-time token takes the nonce's place there.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from boardwright.content.canonical import canonical_json
from boardwright.device.errors import InvalidDocument

DEVICE_HEADER = "Boardwright-Device"
TIMESTAMP_HEADER = "Boardwright-Timestamp"
NONCE_HEADER = "Boardwright-Nonce"
SIGNATURE_HEADER = "Boardwright-Signature"

ENROLL_PATH = "/device/v1/enroll"
REPORT_PATH = "/device/v1/report"
BLOBS_PATH = "/device/v1/blobs"

ALLOWED_SKEW_SECONDS = 300

_REQUEST = b"boardwright-device-request-v1"
_ENROLMENT = b"boardwright-device-enrolment-v1\n"


def message(method: str, path: str, device: str, timestamp_seconds: int, nonce: str, body: bytes) -> bytes:
    """What is signed: every field that the server acts on, each on a line of its own.

    ``path`` is the request's path without host and query. Fields hold no line breaks, so two different
    requests never give the same message.

    Raises:
        InvalidDocument: a field has a line break.
    """
    fields = (method.upper(), path, device, str(timestamp_seconds), nonce, hashlib.sha256(body).hexdigest())
    if any("\n" in field or "\r" in field for field in fields):
        raise InvalidDocument("a signed request's method, path, device and nonce hold no line breaks")
    return b"\n".join((_REQUEST, *(field.encode() for field in fields)))


def report_message(device: str, timestamp_seconds: int, nonce: str, body: bytes) -> bytes:
    """What a device signs when it reports.

    Raises:
        InvalidDocument: a field has a line break.
    """
    return message("POST", REPORT_PATH, device, timestamp_seconds, nonce, body)


def download_message(device: str, timestamp_seconds: int, nonce: str, digest: str) -> bytes:
    """What a device signs when it asks for a blob.

    Raises:
        InvalidDocument: a field has a line break.
    """
    return message("GET", f"{BLOBS_PATH}/{digest}", device, timestamp_seconds, nonce, b"")


def enrolment_message(
    token: str, device_id: str, public_key: bytes, host: Mapping[str, Any], agent_version: str
) -> bytes:
    """What a device signs when it enrols. ``host`` has the fields of a HardwarePin, empty ones left out."""
    fields = {
        "token": token,
        "device_id": device_id,
        "public_key": public_key.hex(),
        "host": {name: value for name, value in host.items() if value},
        "agent_version": agent_version,
    }
    return _ENROLMENT + canonical_json(fields)


def sign(private_key: bytes, text: bytes) -> bytes:
    """The signature of ``text`` under a raw 32-byte Ed25519 private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).sign(text)


def public_key_of(private_key: bytes) -> bytes:
    """The raw 32-byte public half of a raw private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def verify(public_key: bytes, text: bytes, signature: bytes) -> bool:
    """Whether ``signature`` of ``text`` was made by the owner of a raw 32-byte Ed25519 public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def encode(signature: bytes) -> str:
    """Bytes as they stand in a header or in JSON: base64."""
    return b64encode(signature).decode()


def decode(text: str) -> bytes:
    """Read what `encode` wrote.

    Raises:
        InvalidDocument: it is no base64.
    """
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidDocument("a key or a signature is not base64") from error
