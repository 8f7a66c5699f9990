"""The reasons that the delivery service gives, with what the caller should do."""

from __future__ import annotations

from boardwright.rpc.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


def fleet_not_found(name: str) -> NotFound:
    """There is no such fleet."""
    return NotFound("FLEET_NOT_FOUND", f"there is no fleet {name}: create it, or list the fleets", fleet=name)


def fleet_exists(name: str) -> AlreadyExists:
    """The id is taken."""
    return AlreadyExists("FLEET_EXISTS", f"{name} already exists: use it, or choose another id", fleet=name)


def device_not_found(name: str) -> NotFound:
    """There is no such device."""
    return NotFound("DEVICE_NOT_FOUND", f"there is no device {name}: enrol it with a token", device=name)


def device_exists(name: str) -> AlreadyExists:
    """Another key holds the id."""
    return AlreadyExists(
        "DEVICE_EXISTS",
        f"{name} is enrolled with another key: choose another id, or revoke that device first",
        device=name,
    )


def device_revoked(name: str) -> PermissionDenied:
    """An operator took the device out."""
    return PermissionDenied(
        "DEVICE_REVOKED",
        f"{name} was revoked: ask the fleet's operator, who can give it a new token",
        device=name,
    )


def token_invalid() -> PermissionDenied:
    """Unknown, or not all of it."""
    return PermissionDenied(
        "TOKEN_INVALID", "the token is not known here: ask the fleet's operator for a new one"
    )


def token_used() -> PermissionDenied:
    """Another key used it."""
    return PermissionDenied(
        "TOKEN_USED", "another device used this token: ask the fleet's operator for a new one"
    )


def token_expired() -> PermissionDenied:
    """Its time is over."""
    return PermissionDenied("TOKEN_EXPIRED", "the token has ended: ask the fleet's operator for a new one")


def signature_invalid(why: str) -> Unauthenticated:
    """A device's signature does not hold."""
    return Unauthenticated(
        "SIGNATURE_INVALID", f"{why}: sign the request again with the key that was enrolled"
    )


def timestamp_skewed(server_time: str) -> Unauthenticated:
    """A device's clock is off."""
    return Unauthenticated(
        "TIMESTAMP_SKEWED",
        f"the request's time is too far from the server's, {server_time}: set the device's clock",
        server_time=server_time,
    )


def blob_not_found(digest: str) -> NotFound:
    """Not part of what the fleet may download."""
    return NotFound("BLOB_NOT_FOUND", f"{digest} is not part of a bundle of this fleet", digest=digest)


def tuf_file_not_found(path: str) -> NotFound:
    """No such file in the fleet's repository."""
    return NotFound("TUF_FILE_NOT_FOUND", f"the fleet's repository has no file {path[:200]!r}")


def rollout_not_found(name: str) -> NotFound:
    """There is no such rollout."""
    return NotFound("ROLLOUT_NOT_FOUND", f"there is no rollout {name}: list the rollouts", rollout=name)


def rollout_exists(name: str) -> AlreadyExists:
    """The id is taken."""
    return AlreadyExists("ROLLOUT_EXISTS", f"{name} already exists: choose another id", rollout=name)


def rollout_active(name: str) -> FailedPrecondition:
    """Another rollout runs."""
    return FailedPrecondition("ROLLOUT_ACTIVE", f"{name} still runs: pause or cancel it first", rollout=name)


def rollout_ended(name: str, state: str) -> FailedPrecondition:
    """Nothing can be changed any more."""
    return FailedPrecondition(
        "ROLLOUT_ENDED", f"{name} is {state}: start a new rollout instead", rollout=name
    )


def rollout_superseded(name: str) -> FailedPrecondition:
    """A newer rollout took its place."""
    return FailedPrecondition(
        "ROLLOUT_ACTIVE", f"a newer rollout took the place of {name}: cancel that one first", rollout=name
    )


def etag_mismatch(name: str) -> Aborted:
    """Somebody else changed it."""
    return Aborted(
        "ETAG_MISMATCH", f"{name} was changed meanwhile: read it again and decide again", resource=name
    )


def release_of_other_model(release: str, model: str) -> InvalidArgument:
    """The fleet runs another model."""
    return InvalidArgument(
        "FIELD_INVALID", f"{release} is not a release of {model}, which this fleet runs", field="release"
    )


def release_not_promoted(release: str, stage: str, holds: str) -> FailedPrecondition:
    """The fleet's stage holds something else."""
    return FailedPrecondition(
        "RELEASE_NOT_PROMOTED",
        f"this fleet takes what stage {stage} holds, now {holds or 'nothing'}: promote {release} first",
        release=release,
        stage=stage,
    )


def no_bundle_fits(release: str, why: str) -> FailedPrecondition:
    """No device could run it."""
    return FailedPrecondition(
        "NO_BUNDLE_FITS",
        f"no device of the fleet can run {release}: {why}. Build for the fleet's board and release that",
        release=release,
    )


def bundle_impossible(artifact: str, why: str) -> FailedPrecondition:
    """An artifact lacks something that a bundle needs."""
    return FailedPrecondition("BUNDLE_IMPOSSIBLE", f"{artifact} cannot be bundled: {why}", artifact=artifact)


def signing_unavailable(why: str) -> Unavailable:
    """The fleet's repository cannot be signed or written now; the change itself is kept."""
    return Unavailable(
        "SIGNING_UNAVAILABLE",
        f"stored, but the fleet's metadata could not be signed yet: {why}. It is tried again by itself",
    )
