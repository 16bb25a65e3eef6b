"""JSON as it goes to an API server and comes from it: fast, and whatever may stand in it.

Tens of thousands of objects pass through here while a thousand tasks start, so pydantic's reader and writer are used,
which are a few times faster than Python's.  They refuse two things that may come about, for which Python's are kept:
what is nested to more than some two hundred levels, and half of a surrogate pair, which is no text but a string.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pydantic_core

_DEEPEST_CALLS = 25_000
"""An API server takes objects that are nested to 10,000 levels.  Python's reader takes a call for each, and who walks
through what was read two.  The usual eight megabytes of stack are enough for all of them."""


def prepare_for_deep_objects() -> None:
    """Have this process read whatever an API server may hold: one task must not be the end of who serves all."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEEPEST_CALLS))


def encoded(value: Any) -> bytes:
    """Write a value."""
    try:
        return pydantic_core.to_json(value)
    except pydantic_core.PydanticSerializationError:
        return json.dumps(value).encode()


def decoded(text: bytes) -> Any:
    """Read a value.

    Raises
    ------
    ValueError
        It is no JSON.
    """
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        try:
            return json.loads(text)
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error
