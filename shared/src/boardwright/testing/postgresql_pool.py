"""Databases on the session's PostgreSQL server that tests use one after the other.

To copy a database and to drop it takes far longer than to empty it. So one whose last test left it as it was
made, but for its rows, is emptied and used again.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boardwright.testing.postgresql import session_server

_LARGEST_BYTES = 32 << 20
"""What held more is dropped: emptied tables keep their pages, and reading them their time."""

_KEEP = """
DO $$ DECLARE name text; found boolean; BEGIN
  CREATE SCHEMA kept;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM {schema}.%I)', name) INTO found;
    IF found THEN EXECUTE format('CREATE TABLE kept.%I AS TABLE {schema}.%I', name, name); END IF;
  END LOOP;
END $$"""
_EMPTY = """
DO $$ DECLARE name text; BEGIN
  PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity  -- awaited: what it commits is deleted
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  SET LOCAL lock_timeout = '10s';
  SET LOCAL session_replication_role = replica;  -- foreign keys do not say what goes first
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' LOOP
    EXECUTE format('DELETE FROM {schema}.%I', name);
  END LOOP;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept' LOOP
    EXECUTE format('INSERT INTO {schema}.%I SELECT * FROM kept.%I', name, name);
  END LOOP;
  FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = '{schema}' LOOP
    EXECUTE format('ALTER SEQUENCE {schema}.%I RESTART', name);
  END LOOP;
END $$"""
_SHAPE = """
SELECT md5(string_agg(concat_ws(' ', n.nspname, c.relname, c.relkind, a.attname, a.atttypid), ','
                      ORDER BY n.nspname, c.relname, a.attnum)) AS shape,
       pg_database_size(current_database()) AS size_bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"""

_numbers = itertools.count(1)
_shapes: dict[str, str] = {}
_idle: defaultdict[str, list[str]] = defaultdict(list)


def make_template(name: str, schema: str) -> None:
    """Make a migrated database the template of those that `fresh_database` gives."""
    with _connected(name) as connection:
        connection.execute(_KEEP.format(schema=schema))
        _shapes[name] = connection.execute(_SHAPE).fetchone()[0]


@contextmanager
def fresh_database(template: str, schema: str) -> Iterator[str]:
    """The name of a database that is as the template was made."""
    name = _idle[template].pop() if _idle[template] else _copy(template, schema)
    try:
        yield name
    finally:
        if _emptied(name, template, schema):
            _idle[template].append(name)
        else:
            session_server().execute(f"DROP DATABASE {name} WITH (FORCE)")


def _copy(template: str, schema: str) -> str:
    name = f"test_{schema}_{next(_numbers)}"
    session_server().execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return name


def _emptied(name: str, template: str, schema: str) -> bool:
    """Empty a database that a test used; False where it is better dropped."""
    import psycopg

    try:
        with _connected(name) as connection:
            shape, size_bytes = connection.execute(_SHAPE).fetchone()
            if shape != _shapes[template] or size_bytes > _LARGEST_BYTES:
                return False
            connection.execute(_EMPTY.format(schema=schema))
    except psycopg.Error:
        return False
    return True


@contextmanager
def _connected(name: str) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(session_server().url(name), autocommit=True) as connection:
        yield connection
