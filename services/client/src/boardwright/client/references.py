"""Shorthand for resources, and back to full names.

    digits                      the model
    digits@3                    its version 3; digits@latest the newest, digits@champion an alias's
    digits@3/int8               a variant of version 3
    digits@3/int8/ARTIFACT      an artifact of that variant
    digits@3/int8/m7            a measurement of that variant; digits@3/int8/ARTIFACT/m8 of an artifact
    digits@r2                   its release 2
    digits@production           the release on a stage (or, where a version is meant, an alias)
    faces@2, faces              a dataset's version 2, its newest sealed one

A full name (`projects/default/models/digits/versions/3`) is taken everywhere too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from boardwright.device.shorthand import shorten as shorten
from boardwright.device.shorthand import shorten_names as shorten_names
from boardwright.rpc.errors import InvalidArgument

_SHORT = re.compile(
    r"([a-z][a-z0-9-]{0,62})(?:@([A-Za-z0-9][A-Za-z0-9-]*))?((?:/[A-Za-z0-9][A-Za-z0-9._:-]*){0,3})"
)
_RELEASE = re.compile(r"r([1-9][0-9]*)")
_MEASUREMENT = re.compile(r"m[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed shorthand. `selector` is what stands behind the @, "" where nothing does."""

    name: str
    selector: str = ""
    inner: tuple[str, ...] = ()


def parse(text: str) -> Reference:
    """Parse shorthand.

    Raises:
        InvalidArgument: REFERENCE_INVALID, showing the forms there are.
    """
    match = _SHORT.fullmatch(text)
    inner = tuple(part for part in match[3].split("/") if part) if match else ()
    if match is None or (inner and not match[2]) or (len(inner) == 3 and not is_measurement(inner)):
        raise InvalidArgument(
            "REFERENCE_INVALID",
            f"{text!r} names nothing: write digits@3 (a version), digits@3/int8 (a variant), digits@r2 "
            "(a release), digits@production (the release on a stage), or a full name (projects/…); "
            "ids are of lower-case letters, digits and hyphens",
        )
    return Reference(match[1], match[2] or "", inner)


def is_measurement(inner: tuple[str, ...]) -> bool:
    """Whether what stands behind a version names a measurement."""
    return len(inner) > 1 and _MEASUREMENT.fullmatch(inner[-1]) is not None


def names_release(reference: Reference) -> bool:
    """Whether the selector is a release's number: r2."""
    return _RELEASE.fullmatch(reference.selector) is not None


def is_full(text: str) -> bool:
    """Whether this is a full resource name already."""
    return text.startswith("projects/")


def model_name(project: str, text: str) -> str:
    """The model's full name. Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return "/".join(text.split("/")[:4])
    return f"projects/{project}/models/{parse(text).name}"


def version_name(project: str, text: str) -> str:
    """The version's full name; without a selector the newest. Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return text
    reference = parse(text)
    return f"projects/{project}/models/{reference.name}/versions/{reference.selector or 'latest'}"


def variant_name(project: str, text: str) -> str:
    """The variant's full name. Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return text
    reference = parse(text)
    if not reference.inner:
        raise InvalidArgument(
            "REFERENCE_INVALID", f"{text!r} names no variant: write {text}/int8, for example"
        )
    return f"{version_name(project, f'{reference.name}@{reference.selector}')}/variants/{reference.inner[0]}"


def artifact_name(project: str, text: str) -> str:
    """The artifact's full name. Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return text
    reference = parse(text)
    if len(reference.inner) != 2:
        raise InvalidArgument(
            "REFERENCE_INVALID",
            f"{text!r} names no artifact: write digits@3/int8/ARTIFACT (see `boardwright ls`)",
        )
    return f"{variant_name(project, text)}/artifacts/{reference.inner[1]}"


def measurement_name(project: str, text: str) -> str:
    """The measurement's full name. Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return text
    inner = parse(text).inner
    if not is_measurement(inner):
        raise InvalidArgument(
            "REFERENCE_INVALID",
            f"{text!r} names no measurement: write digits@3/int8/m7 or digits@3/int8/ARTIFACT/m8",
        )
    above = text.rpartition("/")[0]
    parent = artifact_name(project, above) if len(inner) == 3 else variant_name(project, above)
    return f"{parent}/measurements/{inner[-1]}"


def release_name(project: str, text: str) -> str:
    """The release's full name: by number (r2) or by the stage it is on; without a selector the newest.

    Raises:
        InvalidArgument: REFERENCE_INVALID.
    """
    if is_full(text):
        return text
    reference = parse(text)
    numbered = _RELEASE.fullmatch(reference.selector)
    last = numbered[1] if numbered else reference.selector or "latest"
    if last.isdigit() and not numbered:
        raise InvalidArgument(
            "REFERENCE_INVALID",
            f"{text} is a version; write {reference.name}@r{last} for release {last}, or name a stage",
        )
    return f"projects/{project}/models/{reference.name}/releases/{last}"


def stage_name(project: str, text: str) -> str:
    """The stage's full name (`digits@production`). Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return text
    reference = parse(text)
    if not reference.selector:
        raise InvalidArgument("REFERENCE_INVALID", f"{text!r} names no stage: write {text}@production")
    return f"projects/{project}/models/{reference.name}/stages/{reference.selector}"


def dataset_version_name(project: str, text: str) -> str:
    """The dataset version's full name; without a selector the newest sealed one.

    Raises:
        InvalidArgument: REFERENCE_INVALID.
    """
    if is_full(text):
        return text
    reference = parse(text)
    return f"projects/{project}/datasets/{reference.name}/versions/{reference.selector or 'latest'}"


def device_name(project: str, text: str) -> str:
    """The device's full name (`cameras/cam-1`). Raises: InvalidArgument REFERENCE_INVALID."""
    if is_full(text):
        return text
    fleet, _, device = text.partition("/")
    if not fleet or not device:
        raise InvalidArgument("REFERENCE_INVALID", f"{text!r} names no device: write FLEET/DEVICE")
    return f"{in_project(project, 'fleets', fleet)}/devices/{device}"


def in_project(project: str, collection: str, text: str) -> str:
    """The full name of something that lies right in the project: a dataset, a fleet, a rollout, a job."""
    return text if is_full(text) else f"projects/{project}/{collection}/{text}"


def identifier(text: str) -> str:
    """A model id out of a file's name: "YOLO26n (1)" becomes "yolo26n-1"."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63]
    return plain if plain[:1].isalpha() else f"model-{plain}".strip("-")[:63]
