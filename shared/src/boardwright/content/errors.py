"""What a blob store may raise. Every message says what to do next."""


class ContentError(Exception):
    """Root of everything this package raises on purpose."""


class InvalidContent(ContentError, ValueError):
    """A digest, a manifest or a JSON value is malformed; the message says where."""


class BlobNotFound(ContentError, KeyError):
    """The store answered, and it has no such blob."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UploadNotFound(ContentError, KeyError):
    """The store has no such open upload (finished, given up or collected): begin a new one."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class BlobTooLarge(ContentError):
    """A blob is larger than what its reader is willing to hold."""


class DigestMismatch(ContentError):
    """The bytes are not the ones that their digest names. Nothing of them is kept."""


class SizeMismatch(ContentError):
    """There are more or fewer bytes than were announced."""


class StoreUnavailable(ContentError):
    """The store cannot be reached or refuses to work; a retry succeeds once it is back."""


class StoreFull(ContentError):
    """The store has no room left; a retry succeeds once there is some."""


def cause_of(error: BaseException) -> str:
    """What broke a connection, without the address that urllib3 tells before it: its signature is a key."""
    reason = getattr(error, "reason", None)
    return cause_of(reason) if isinstance(reason, BaseException) else str(error)
