"""Reads JSON objects key by key; what is missing or wrong refuses with its path, the value and what is allowed."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

LOG = logging.getLogger(__name__)

_REQUIRED: Any = object()


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the path, the value and what is allowed."""


class Reader:
    """Reads one JSON object key by key, and knows which keys nobody asked for."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{path or 'the configuration'}: {shown(value)} is not an object")
        self.path = path
        self._left = dict(value)

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Tell whether a key has a value."""
        return self._left.get(key) is not None

    def take(self, key: str, *, default: Any = _REQUIRED) -> Any:
        """Take whatever stands at a key."""
        value = self._left.pop(key, None)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise ConfigError(f"{self._at(key)}: is missing")
        return default

    def child(self, key: str, *, optional: bool = False) -> Reader:
        """Take an object, to be read in its turn."""
        return Reader(self.take(key, default={} if optional else _REQUIRED), self._at(key))

    def string(self, key: str, *, default: Any = _REQUIRED) -> str:
        """Take a text of at least one character."""
        value = self.take(key, default=default)
        if not isinstance(value, str) or (not value and value != default):
            raise ConfigError(f"{self._at(key)}: {shown(value)} is not a text of at least one character")
        return value

    def text(self, key: str) -> str | None:
        """Take a text where there is one."""
        return self.string(key) if self.has(key) else None

    def url(self, key: str) -> str | None:
        """Take a URL where there is one."""
        value = self.text(key)
        if value is not None and "://" not in value:
            raise ConfigError(f"{self._at(key)}: {value!r} is not a URL such as s3://bucket/folder")
        return value

    def choice(self, key: str, allowed: Sequence[str], *, default: str) -> str:
        """Take one of a few texts."""
        value = self.string(key, default=default)
        if value not in allowed:
            raise ConfigError(f"{self._at(key)}: {value!r} is not one of {', '.join(allowed)}")
        return value

    def integer(self, key: str, *, low: int, high: int, default: Any = _REQUIRED) -> int | None:
        """Take a whole number within bounds; the default may be None."""
        value = self.take(key, default=default)
        if value is default and default is not _REQUIRED:
            return default  # type: ignore[no-any-return]
        # JSON has one kind of number, and a writer may have turned 20 into 20.0 on the way.
        whole = value.is_integer() if isinstance(value, float) else type(value) is int
        if not whole or not low <= value <= high:
            raise ConfigError(f"{self._at(key)}: {shown(value)} is not a whole number from {low} to {high}")
        return int(value)

    def required_integer(self, key: str, *, low: int, high: int, default: Any = _REQUIRED) -> int:
        """Take a whole number within bounds."""
        value = self.integer(key, low=low, high=high, default=default)
        assert value is not None  # noqa: S101 - the default, where there is one, is a number
        return value

    def number(self, key: str, *, low: float, high: float, default: Any = _REQUIRED) -> float:
        """Take a finite number within bounds."""
        value = self.take(key, default=default)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not low <= value <= high:
            raise ConfigError(f"{self._at(key)}: {shown(value)} is not a number from {low:g} to {high:g}")
        return float(value)

    def finish(self) -> None:
        """Log the keys that nobody asked for."""
        for key in self._left:
            LOG.warning("%s: not known to this coordinator, ignored", self._at(key))


def shown(value: Any) -> str:
    """Cut a value to what a message may hold."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."
