"""The registry's resource names."""

from __future__ import annotations

from boardwright.registry.domain.resources import (
    Alias,
    Artifact,
    Measurement,
    Model,
    ModelKey,
    ModelVersion,
    Promotion,
    Release,
    Stage,
    Variant,
)
from boardwright.rpc.names import NameTemplate

PROJECT = NameTemplate("projects/{project}")
MODEL = NameTemplate("projects/{project}/models/{model}")
VERSION = NameTemplate("projects/{project}/models/{model}/versions/{version#}")
VERSION_OR_ALIAS = NameTemplate("projects/{project}/models/{model}/versions/{version*}")
ALIAS = NameTemplate("projects/{project}/models/{model}/aliases/{alias}")
VARIANT = NameTemplate("projects/{project}/models/{model}/versions/{version#}/variants/{variant}")
ANY_VARIANT = NameTemplate("projects/{project}/models/{model}/versions/{version#}/variants/-")
ARTIFACT = NameTemplate(f"{VARIANT.source}/artifacts/{{artifact}}")
VARIANT_MEASUREMENT = NameTemplate(f"{VARIANT.source}/measurements/{{measurement}}")
ARTIFACT_MEASUREMENT = NameTemplate(f"{ARTIFACT.source}/measurements/{{measurement}}")
RELEASE = NameTemplate("projects/{project}/models/{model}/releases/{release#}")
RELEASE_OR_STAGE = NameTemplate("projects/{project}/models/{model}/releases/{release*}")
STAGE = NameTemplate("projects/{project}/models/{model}/stages/{stage}")
PROMOTION = NameTemplate("projects/{project}/models/{model}/promotions/{promotion#}")
AUDIT_EVENT = NameTemplate("projects/{project}/auditEvents/{event#}")


def key_of(name: str, field: str = "name") -> ModelKey:
    """The key of a model's name. Raises: InvalidArgument FIELD_INVALID."""
    return ModelKey(*MODEL.parse(name, field))


def model(key: ModelKey) -> str:
    """`projects/{project}/models/{model}`."""
    return f"projects/{key.project}/models/{key.model}"


def version(key: ModelKey, number: int) -> str:
    """A version's name, from its key and number."""
    return f"{model(key)}/versions/{number}"


def variant(key: ModelKey, number: int, variant_id: str) -> str:
    """A variant's name."""
    return f"{version(key, number)}/variants/{variant_id}"


def artifact(key: ModelKey, number: int, variant_id: str, artifact_id: str) -> str:
    """An artifact's name."""
    return f"{variant(key, number, variant_id)}/artifacts/{artifact_id}"


def release(key: ModelKey, number: int) -> str:
    """A release's name; "" for number 0 (none)."""
    return f"{model(key)}/releases/{number}" if number else ""


def measurement(figure: Measurement) -> str:
    """A measurement's name."""
    parent = variant(figure.key, figure.number, figure.variant)
    if figure.artifact:
        parent = artifact(figure.key, figure.number, figure.variant, figure.artifact)
    return f"{parent}/measurements/{figure.measurement}"


def name_of(
    resource: Model | ModelVersion | Alias | Variant | Artifact | Measurement | Release | Stage | Promotion,
) -> str:
    """The full name of any resource of a model."""
    key = resource.key
    match resource:
        case Model():
            return model(key)
        case ModelVersion():
            return version(key, resource.number)
        case Alias():
            return f"{model(key)}/aliases/{resource.alias}"
        case Variant():
            return variant(key, resource.number, resource.variant)
        case Artifact():
            return artifact(key, resource.number, resource.variant, resource.artifact)
        case Measurement():
            return measurement(resource)
        case Release():
            return release(key, resource.number)
        case Stage():
            return f"{model(key)}/stages/{resource.stage}"
        case Promotion():
            return f"{model(key)}/promotions/{resource.number}"
