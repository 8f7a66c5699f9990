"""The registry's own errors, each with what to do next. The reasons are those of the proto."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from boardwright.registry import names
from boardwright.registry.domain.resources import ModelKey, Stage, Verdict
from boardwright.rpc.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


def field_invalid(field: str, why: str) -> InvalidArgument:
    """INVALID_ARGUMENT FIELD_INVALID."""
    return InvalidArgument("FIELD_INVALID", f"{field}: {why}", field=field)


def model_not_found(key: ModelKey) -> NotFound:
    """NOT_FOUND MODEL_NOT_FOUND."""
    name = names.model(key)
    return NotFound("MODEL_NOT_FOUND", f"there is no model {name}; a push creates it", name=name)


def version_not_found(key: ModelKey, number: int | str) -> NotFound:
    """NOT_FOUND VERSION_NOT_FOUND."""
    name = f"{names.model(key)}/versions/{number}"
    return NotFound(
        "VERSION_NOT_FOUND", f"there is no version {name}; list the versions to see which are", name=name
    )


def alias_not_found(key: ModelKey, alias: str) -> NotFound:
    """NOT_FOUND ALIAS_NOT_FOUND."""
    name = f"{names.model(key)}/aliases/{alias}"
    return NotFound("ALIAS_NOT_FOUND", f"there is no alias {name}; set it, or list the aliases", name=name)


def not_found(kind: str, name: str) -> NotFound:
    """NOT_FOUND {KIND}_NOT_FOUND for anything else ("variant", "artifact", …)."""
    return NotFound(f"{kind.upper()}_NOT_FOUND", f"there is no {kind} {name}", name=name)


def blobs_not_found(digests: Iterable[str]) -> NotFound:
    """NOT_FOUND BLOB_NOT_FOUND."""
    missing = sorted(digests)
    return NotFound(
        "BLOB_NOT_FOUND",
        f"not uploaded to this project: {', '.join(missing[:5])}; upload the files first",
        digests=",".join(missing[:100]),
    )


def model_exists(key: ModelKey) -> AlreadyExists:
    """ALREADY_EXISTS MODEL_EXISTS."""
    name = names.model(key)
    return AlreadyExists(
        "MODEL_EXISTS", f"the model {name} exists; push to it, or choose another id", name=name
    )


def variant_exists(name: str) -> AlreadyExists:
    """ALREADY_EXISTS VARIANT_EXISTS."""
    return AlreadyExists(
        "VARIANT_EXISTS",
        f"{name} exists with another graph; register this one under another id (a variant never changes)",
        name=name,
    )


def etag_mismatch(name: str, current: str) -> Aborted:
    """ABORTED ETAG_MISMATCH."""
    return Aborted(
        "ETAG_MISMATCH",
        f"{name} was changed meanwhile; read it again, then decide again",
        name=name,
        current_etag=current,
    )


def stage_not_found(key: ModelKey, stage: str, ladder: Sequence[Stage]) -> NotFound:
    """NOT_FOUND STAGE_NOT_FOUND, with the stages that there are."""
    name = f"{names.model(key)}/stages/{stage}"
    if not ladder:
        return NotFound("STAGE_NOT_FOUND", f"there is no stage {name}: there is no such model", name=name)
    known = ", ".join(found.stage for found in ladder)
    return NotFound("STAGE_NOT_FOUND", f"there is no stage {name}; the model's are {known}", name=name)


def gate_refused(refusals: Sequence[Verdict], stage: str) -> FailedPrecondition:
    """FAILED_PRECONDITION GATE_REFUSED: what each gate says; metadata of the first, its figure and bound."""
    verdict = refusals[0]
    metadata = {"stage": stage, "gate": type(verdict.gate.rule).__name__, "measurement": verdict.measurement}
    if verdict.figure is not None:
        metadata["figure"] = f"{verdict.figure:g}"
    if verdict.bound is not None:
        metadata["bound"] = f"{verdict.bound:g}"
    return FailedPrecondition(
        "GATE_REFUSED",
        f"stage {stage} refuses the release: {'; also: '.join(refusal.explanation for refusal in refusals)}",
        **metadata,
    )
