"""What goes to an API server and what comes from it: as Python's own JSON has it, and whatever stands in it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collective_operator.cluster.json_text import decoded, encoded

_ANY_TEXT = st.text(st.characters(codec=None))
"""Halves of surrogate pairs among them."""
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _ANY_TEXT,
    lambda within: st.lists(within) | st.dictionaries(_ANY_TEXT, within),
)


@given(_VALUES)
def test_as_python_has_it(value: object) -> None:
    text = json.dumps(value).encode()
    assert decoded(text) == json.loads(text) == value
    assert json.loads(encoded(value)) == value


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": ', b"nothing", b"[1,]", b'"\xff"', b"[" * 100_000])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        decoded(text)


def test_as_deep_as_an_api_server_lets_it_be() -> None:
    """In a process of its own: the limit is the whole process'."""
    done = subprocess.run([sys.executable, "-c", _DEEP], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


_DEEP = """
from collective_operator.cluster.json_text import decoded, encoded, prepare_for_deep_objects
prepare_for_deep_objects()
for value in (b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000):
    found = decoded(value)
    print(decoded(encoded(found)) == found, end=" " if value.startswith(b"[") else "\\n")
"""
