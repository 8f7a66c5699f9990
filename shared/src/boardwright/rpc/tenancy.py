"""One request speaks of one project: every resource that it names lies where the permission was checked.

Services read each other with an identity of their own, which sees every project. A request that is permitted
in one project and names a resource of another would be answered with that other project's content, so the
server refuses it before a servicer runs. Every text of a request counts as a name unless it stands in
`FREE_TEXT`, so that a field which is added later is guarded from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import project_of

FREE_TEXT = frozenset({
    "classes", "commit", "description", "filter", "labels", "path", "reason", "run", "samples",
})  # fmt: skip
"""Fields, at any depth, that hold what people and files are called and are never looked up as a resource."""


class NamingField(NamedTuple):
    """A field that may hold names: itself text, or a message with such fields.

    `keyed` for a map, `repeated` for a list (a map is not one), `nested` for messages.
    """

    name: str
    keyed: bool
    repeated: bool
    nested: bool


@lru_cache(maxsize=1024)
def naming_fields(descriptor: Any) -> tuple[NamingField, ...]:
    """The fields of a message that may name resources."""
    found = []
    for field in descriptor.fields:
        if field.name in FREE_TEXT:
            continue
        message = field.message_type
        keyed = message is not None and message.GetOptions().map_entry
        value = message.fields_by_name["value"] if keyed else field
        nested = value.message_type is not None
        if nested or value.type == value.TYPE_STRING:
            found.append(NamingField(field.name, keyed, field.is_repeated and not keyed, nested))
    return tuple(found)


def check_names(request: Any, project: str) -> None:
    """Check that every resource which `request` names lies in `project`.

    Raises: InvalidArgument FIELD_INVALID, which names the field.
    """
    for field, text in _texts(request, ""):
        found = project_of(text)
        if found and found != project:
            raise InvalidArgument(
                "FIELD_INVALID",
                f"{field} is in project {found}, but the request is made in project {project}; "
                "name a resource of the same project",
                field=field,
            )


def _texts(message: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field in naming_fields(message.DESCRIPTOR):
        if field.nested and not field.keyed and not field.repeated and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        path = prefix + field.name
        for each in value.values() if field.keyed else value if field.repeated else (value,):
            if field.nested:
                yield from _texts(each, f"{path}.")
            else:
                yield path, each
