"""The errors this service gives, each made in one place."""

from __future__ import annotations

from collections.abc import Sequence

from boardwright.rpc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

NAMED_AT_MOST = 20


def dataset_not_found(name: str, near: str = "") -> NotFound:
    """DATASET_NOT_FOUND; `near` is the id of one with a similar name."""
    hint = f"; did you mean {near}?" if near else "; create it, or list the datasets"
    return NotFound("DATASET_NOT_FOUND", f"there is no dataset {name}{hint}", dataset=name)


def dataset_exists(name: str) -> AlreadyExists:
    """DATASET_EXISTS."""
    return AlreadyExists("DATASET_EXISTS", f"{name} exists; add a version to it", dataset=name)


def version_not_found(name: str) -> NotFound:
    """DATASET_VERSION_NOT_FOUND."""
    hint = "; seal a version first" if name.endswith("/latest") else ""
    return NotFound("DATASET_VERSION_NOT_FOUND", f"there is no dataset version {name}{hint}", version=name)


def version_sealed(name: str) -> FailedPrecondition:
    """VERSION_SEALED."""
    return FailedPrecondition(
        "VERSION_SEALED", f"{name} is sealed and does not change; create a new version", version=name
    )


def dataset_empty(name: str, left_out: int = 0) -> FailedPrecondition:
    """DATASET_EMPTY."""
    why = f"all of its {left_out} samples are invalid" if left_out else "it has no samples"
    return FailedPrecondition("DATASET_EMPTY", f"{name} cannot be sealed: {why}; add samples", version=name)


def samples_corrupt(name: str, found: Sequence[tuple[str, str]], count: int) -> FailedPrecondition:
    """SAMPLES_CORRUPT, naming up to 20 by (sample, reason)."""
    lines = [f"{sample}: {reason}" for sample, reason in found[:NAMED_AT_MOST]]
    more = f"\n… and {count - len(lines)} more" if count > len(lines) else ""
    return FailedPrecondition(
        "SAMPLES_CORRUPT",
        f"{count} samples of {name} are invalid; repair them in a new version, or seal with skip_invalid "
        "to leave them out:\n" + "\n".join(lines) + more,
        version=name,
        count=str(count),
    )


def pack_missing(digests: Sequence[str]) -> NotFound:
    """BLOB_NOT_FOUND."""
    named = ", ".join(digests[:NAMED_AT_MOST])
    return NotFound("BLOB_NOT_FOUND", f"upload these packs first: {named}", digests=named)


def sample_name_used(name: str) -> AlreadyExists:
    """SAMPLE_NAME_USED."""
    return AlreadyExists(
        "SAMPLE_NAME_USED",
        f"another sample is called {name!r} in this version (other content or label); use another name",
        sample=name,
    )


def sample_invalid(sample: str, problem: str, *, label: bool = False) -> InvalidArgument:
    """SAMPLE_INVALID or LABEL_INVALID."""
    return InvalidArgument(
        "LABEL_INVALID" if label else "SAMPLE_INVALID",
        f"sample {sample[:200]!r}: {problem}",
        sample=sample[:200],
    )
