"""The device protocol's documents: what is written reads back, and what is malformed says where."""

from __future__ import annotations

import json

import pytest

from boardwright.content import Digest
from boardwright.content.oci import BUNDLE_ARTIFACT_TYPE, ImageManifest
from boardwright.device import signing
from boardwright.device.bundle import Bundle, BundleFile
from boardwright.device.errors import InvalidDocument
from boardwright.device.index import FleetIndex, GroupOffer, OfferedBundle, bundle_path
from boardwright.device.tokens import EnrolmentToken


def file(role: str, name: str, data: bytes = b"x") -> BundleFile:
    return BundleFile(role, name, "application/octet-stream", Digest.of(data), len(data))


def bundle(*more: BundleFile) -> Bundle:
    files = (
        file("pin", "pin.json"),
        file("model", "model.onnx", b"m"),
        file("input-spec", "input-spec.json"),
    )
    return Bundle.of(release="r", model_version="v", variant="w", artifact="a", files=(*more, *files))


def test_bundle_is_deterministic_and_reads_back() -> None:
    one = bundle(file("provenance", "b.json"), file("provenance", "a.json"))
    two = bundle(file("provenance", "a.json"), file("provenance", "b.json"))
    data = one.to_manifest().to_bytes()
    assert data == two.to_manifest().to_bytes()
    assert Bundle.parse(data) == one
    assert [item.role for item in one.files] == ["model", "input-spec", "pin", "provenance", "provenance"]
    assert ImageManifest.parse(data).artifact_type == BUNDLE_ARTIFACT_TYPE
    assert one.size_bytes == 5


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ((file("model", "second.onnx"),), "2 model files"),
        ((file("labels", "pin.json"),), "one name"),
        (tuple(file("provenance", f"p{number}") for number in range(64)), "at most 64"),
    ],
)
def test_bundle_refuses_what_makes_no_sense(more: tuple[BundleFile, ...], text: str) -> None:
    with pytest.raises(InvalidDocument, match=text):
        bundle(*more)


@pytest.mark.parametrize("name", ["../model.onnx", "a/b", "", ".hidden", "x" * 129, "a\n"])
def test_bundle_file_names_stay_in_the_slot(name: str) -> None:
    with pytest.raises(InvalidDocument, match="plain file name"):
        file("model", name)


def test_parsing_other_manifests_says_what_they_are() -> None:
    with pytest.raises(InvalidDocument, match="malformed"):
        Bundle.parse(b"{")
    other = bundle().to_manifest().to_bytes().replace(b"bundle.v1", b"release.v1")
    with pytest.raises(InvalidDocument, match="not a bundle"):
        Bundle.parse(other)
    document = json.loads(bundle().to_manifest().to_bytes())
    document["layers"] = document["layers"][1:]
    with pytest.raises(InvalidDocument, match="no model file"):
        Bundle.parse(json.dumps(document).encode())


def test_index_reads_back_and_answers_by_device() -> None:
    offer = OfferedBundle(bundle_path(Digest.of(b"m")), {"board": "x86-64"})
    canary = GroupOffer("canary", ("d2", "d1"), "rollouts/2", "r2", False, (offer,))
    rest = GroupOffer("all", None, "rollouts/1", "r1", True, (offer,))
    index = FleetIndex("fleets/f", (canary, rest))
    back = FleetIndex.parse(index.to_bytes())
    assert back.to_bytes() == index.to_bytes()
    assert back.offer_for("d1") is not None and back.offer_for("d1").release == "r2"  # type: ignore[union-attr]
    assert back.offer_for("d3") == rest
    assert FleetIndex("fleets/f", ()).offer_for("d1") is None
    assert offer.signed_custom("r2", "rollouts/2")["pin"] == {"board": "x86-64"}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"schema":"boardwright.fleet-index.v1"}', b"\xff", b'{"schema":1}']
)
def test_malformed_indexes(data: bytes) -> None:
    with pytest.raises(InvalidDocument):
        FleetIndex.parse(data)
    with pytest.raises(InvalidDocument, match="newer agent"):
        FleetIndex.parse(b'{"schema":"boardwright.fleet-index.v9"}')


def test_tokens_read_back_and_keep_their_secret() -> None:
    token = EnrolmentToken("blue-1", "s" * 32, Digest.of(b"root"))
    assert EnrolmentToken.parse(f" {token}\n") == token
    assert "ssss" not in repr(token)
    for text in ("", str(token)[:-1], str(token)[5:], "bwe1.a.b.c"):
        with pytest.raises(InvalidDocument, match="whole enrolment token"):
            EnrolmentToken.parse(text)


def test_signatures_cover_every_field() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    path = "/device/v1/report"
    text = signing.report_message("d", 7, "n", b"body")
    signature = signing.decode(signing.encode(signing.sign(key.private_bytes_raw(), text)))
    public = signing.public_key_of(key.private_bytes_raw())
    assert signing.verify(public, text, signature)
    for other in (
        ("GET", path, "d", 7, "n", b"body"),
        ("POST", "/x", "d", 7, "n", b"body"),
        ("POST", path, "e", 7, "n", b"body"),
        ("POST", path, "d", 8, "n", b"body"),
        ("POST", path, "d", 7, "m", b"body"),
        ("POST", path, "d", 7, "n", b"bodz"),
    ):
        assert not signing.verify(public, signing.message(*other), signature)
    assert not signing.verify(public, text, b"short")
    assert not signing.verify(public, signing.enrolment_message("t", "d", public, {}, "1"), signature)
    with pytest.raises(InvalidDocument):
        signing.message("GET", "/a\nb", "", 0, "", b"")
    with pytest.raises(InvalidDocument):
        signing.decode("not base64")
