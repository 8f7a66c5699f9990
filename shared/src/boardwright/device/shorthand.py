"""Resources as people read them: `digits@3/int8`, not the full name.

`boardwright.client.references` describes the shorthand and reads it back.
"""

from __future__ import annotations

import re

_FULL_NAME = re.compile(r"(?<![\w/.-])projects/[a-z0-9-]+(?:/[A-Za-z0-9-]+)+")


def shorten(name: str) -> str:
    """The shorthand of a full name, where there is one.

    >>> shorten("projects/default/models/digits/versions/3/variants/int8")
    'digits@3/int8'
    """
    parts = name.split("/")
    if len(parts) < 4 or parts[0] != "projects":
        return name
    kind, identifier, rest = parts[2], parts[3], parts[4:]
    if kind in ("models", "datasets"):
        if not rest:
            return identifier
        if rest[0] == "versions":
            tail = [part for part in (rest[3::2]) if part]
            return "/".join([f"{identifier}@{rest[1]}", *tail])
        if rest[0] == "releases":
            return f"{identifier}@r{rest[1]}"
        if rest[0] in ("stages", "aliases"):
            return f"{identifier}@{rest[1]}"
    if kind == "fleets" and rest:
        return "/".join([identifier, rest[1]])
    return identifier if not rest else "/".join(parts[2:])


def shorten_names(text: str) -> str:
    """A sentence with the shorthand of each full name in it.

    >>> shorten_names("promote projects/default/models/digits/releases/2 first")
    'promote digits@r2 first'
    """
    return _FULL_NAME.sub(lambda match: shorten(match[0]), text)
