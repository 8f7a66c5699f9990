"""`:name` placeholders as psycopg writes them."""

import re
from functools import lru_cache

# Quoted text first, so that a colon inside it is left alone; then casts; then placeholders.
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|::|:([a-zA-Z_][a-zA-Z0-9_]*)|%")


def _replace(match: re.Match[str]) -> str:
    if match.group(1):
        return f"%({match.group(1)})s"
    return match.group(0).replace("%", "%%")


@lru_cache(maxsize=4096)
def to_pyformat(sql: str) -> str:
    """`SELECT :a` as `SELECT %(a)s`; percent signs doubled, quoted text and `::` casts kept."""
    return _TOKEN.sub(_replace, sql)
