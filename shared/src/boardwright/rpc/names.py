"""Resource names: `projects/{project}/models/{model}/versions/{version}` to parts and back (AIP-122)."""

from __future__ import annotations

import re
from functools import lru_cache

from boardwright.rpc.errors import InvalidArgument

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


def check_id(value: str, field: str = "id") -> str:
    """Return `value` if it is an id (`[a-z][a-z0-9-]{0,62}`). Raises: InvalidArgument FIELD_INVALID."""
    if not _ID.fullmatch(value):
        raise InvalidArgument(
            "FIELD_INVALID",
            f"{field} {value[:80]!r} is not an id: start with a lower-case letter, then lower-case letters, "
            "digits and hyphens, 63 characters at most",
            field=field,
            value=value[:80],
        )
    return value


class NameTemplate:
    """One resource type's name. `{x}` is an id, `{x#}` a positive number, `{x*}` any plain segment.

    >>> VERSION = NameTemplate("projects/{project}/models/{model}/versions/{version#}")
    >>> VERSION.parse("projects/default/models/digits/versions/3")
    ('default', 'digits', '3')
    """

    def __init__(self, template: str) -> None:
        self.source = template
        self.template = re.sub(r"[#*]}", "}", template)
        self._parts: list[tuple[str, re.Pattern[str] | None]] = []
        for part in template.split("/"):
            if not part.startswith("{"):
                self._parts.append((part, None))
            else:
                name, kind = part[1:-1], _ID
                if name.endswith("#"):
                    name, kind = name[:-1], _NUMBER
                elif name.endswith("*"):
                    name, kind = name[:-1], _SEGMENT
                self._parts.append((name, kind))
        self._format = re.sub(r"{[a-z_]+}", "{}", self.template)
        self._cached = lru_cache(maxsize=1024)(self._match)

    def _match(self, name: str) -> tuple[str, ...] | None:
        pieces = name.split("/")
        if len(pieces) != len(self._parts):
            return None
        values = []
        for piece, (literal, pattern) in zip(pieces, self._parts, strict=True):
            if pattern is None:
                if piece != literal:
                    return None
            elif pattern.fullmatch(piece):
                values.append(piece)
            else:
                return None
        return tuple(values)

    def match(self, name: str) -> tuple[str, ...] | None:
        """The variable parts in order, or None if `name` is not of this type."""
        return self._cached(name)

    def parse(self, name: str, field: str = "name") -> tuple[str, ...]:
        """The variable parts in order. Raises: InvalidArgument FIELD_INVALID, which shows the template."""
        values = self._cached(name)
        if values is None:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"{field} {name[:200]!r} does not look like {self.template}",
                field=field,
                template=self.template,
            )
        return values

    def format(self, *values: str | int) -> str:
        """The name with these parts, which the caller has checked."""
        return self._format.format(*values)


def project_of(name: str) -> str:
    """The project id at the front of any resource name, or "" if there is none."""
    head, _, rest = name.partition("/")
    return rest.partition("/")[0] if head == "projects" else ""
