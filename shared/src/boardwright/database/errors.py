"""What can go wrong between a service and its database.

Two kinds, because callers do different things about them: `DatabaseUnavailable` is the outside world
(server gone, disk full) and the same call may be repeated; the violations are a fact about the data.
"""

from boardwright.database.transaction import LONGEST_READ_SECONDS


class DatabaseError(Exception):
    """Root of everything that `boardwright.database` raises on purpose."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached or cannot write now.

    `outcome_unknown` is true when the connection was lost while the commit was under way: the change may
    or may not be there. A repeat with the same `request_id` is always right.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class DatabaseFull(DatabaseUnavailable):
    """The disk under the database is full."""


class DatabaseClosed(DatabaseUnavailable):
    """The service that had the database open is stopping."""

    def __init__(self) -> None:
        super().__init__("the database is closed; the service is stopping")


class QueryTooLong(DatabaseUnavailable):
    """A read took longer than any may: the database is overloaded, or too much was asked for.

    What runs in the background waits and goes on, as in any outage; a caller is told to ask for less.
    """

    def __init__(self) -> None:
        super().__init__(
            f"the query took longer than {LONGEST_READ_SECONDS:g} s and was ended; ask for less: a filter by "
            "time or number, a smaller page or depth"
        )


class ValueRefused(DatabaseError):
    """A value that the database cannot hold: a NUL character in a text, a number out of range."""


class DatabaseOutdated(DatabaseError):
    """The stored schema is not the one that this code needs; `migrate` brings it there."""


class ConstraintViolation(DatabaseError):
    """A change that the schema refuses.

    `constraint` is PostgreSQL's constraint name, or on SQLite the columns ("models.project, models.id");
    `table` is the table's bare name on both where the database tells it, else "".
    """

    def __init__(self, constraint: str, table: str = "") -> None:
        super().__init__(
            f"the change violates {constraint or 'a constraint'}" + (f" of {table}" if table else "")
        )
        self.constraint = constraint
        self.table = table


class UniqueViolation(ConstraintViolation):
    """A row with the same key exists."""


class ForeignKeyViolation(ConstraintViolation):
    """A row refers to one that does not exist, or is still referred to."""
