from __future__ import annotations

import pytest

from boardwright.client import references
from boardwright.rpc.errors import InvalidArgument

P = "projects/p"


@pytest.mark.parametrize(
    ("function", "text", "name"),
    [
        (references.model_name, "digits", f"{P}/models/digits"),
        (references.model_name, "digits@3/int8", f"{P}/models/digits"),
        (references.model_name, f"{P}/models/m/versions/3", f"{P}/models/m"),
        (references.version_name, "digits@3", f"{P}/models/digits/versions/3"),
        (references.version_name, "digits", f"{P}/models/digits/versions/latest"),
        (references.version_name, "digits@champion", f"{P}/models/digits/versions/champion"),
        (references.variant_name, "digits@3/int8", f"{P}/models/digits/versions/3/variants/int8"),
        (
            references.artifact_name,
            "digits@3/int8/a1",
            f"{P}/models/digits/versions/3/variants/int8/artifacts/a1",
        ),
        (
            references.measurement_name,
            "digits@3/int8/m7",
            f"{P}/models/digits/versions/3/variants/int8/measurements/m7",
        ),
        (
            references.measurement_name,
            "digits@3/int8/a1/m8",
            f"{P}/models/digits/versions/3/variants/int8/artifacts/a1/measurements/m8",
        ),
        (references.release_name, "digits@r2", f"{P}/models/digits/releases/2"),
        (references.release_name, "digits@production", f"{P}/models/digits/releases/production"),
        (references.release_name, "digits", f"{P}/models/digits/releases/latest"),
        (references.stage_name, "digits@production", f"{P}/models/digits/stages/production"),
        (references.dataset_version_name, "faces@2", f"{P}/datasets/faces/versions/2"),
        (references.dataset_version_name, "faces", f"{P}/datasets/faces/versions/latest"),
    ],
)
def test_shorthand_becomes_a_full_name(function, text, name) -> None:  # type: ignore[no-untyped-def]
    assert function("p", text) == name
    assert function("p", name) == name


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (references.version_name, "Digits@3"),
        (references.version_name, "digits@"),
        (references.version_name, "digits/int8"),
        (references.version_name, "digits@3/a/b/c"),
        (references.version_name, "../etc@1"),
        (references.variant_name, "digits@3"),
        (references.artifact_name, "digits@3/int8"),
        (references.measurement_name, "digits@3/int8/a1"),
        (references.stage_name, "digits"),
        (references.release_name, "digits@3"),
    ],
)
def test_what_names_nothing_is_refused_with_an_example(function, text) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidArgument, match=r"digits@|@production|/int8") as caught:
        function("p", text)
    assert caught.value.reason == "REFERENCE_INVALID"


@pytest.mark.parametrize(
    "short",
    ["digits", "digits@3", "digits@3/int8", "digits@3/int8/a1", "digits@r2"],
)
def test_shortening_undoes_it(short: str) -> None:
    makers = {0: references.model_name, 1: references.variant_name, 2: references.artifact_name}
    if short == "digits@3":
        name = references.version_name("p", short)
    elif short == "digits@r2":
        name = references.release_name("p", short)
    else:
        name = makers[short.count("/")]("p", short)
    assert references.shorten(name) == short


def test_other_names_are_shortened_to_what_is_unique() -> None:
    assert references.shorten("projects/p/fleets/f") == "f"
    assert references.shorten("projects/p/fleets/f/devices/d") == "f/d"
    assert references.shorten("projects/p/rollouts/r1") == "r1"
    assert references.shorten("boards/x") == "boards/x"


def test_a_sentence_is_shortened_but_not_an_address() -> None:
    text = (
        "projects/p/fleets/f takes projects/p/models/digits/releases/2: see https://x.example/projects/p/y."
    )
    assert references.shorten_names(text) == "f takes digits@r2: see https://x.example/projects/p/y."


def test_a_device_is_named_with_its_fleet() -> None:
    assert references.device_name("p", "cameras/cam-1") == "projects/p/fleets/cameras/devices/cam-1"
    with pytest.raises(InvalidArgument, match="FLEET/DEVICE"):
        references.device_name("p", "cam-1")
