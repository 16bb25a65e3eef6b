"""Passwords in URLs: errors quote where data lie, and neither logs nor a status are to tell how to get there."""

from __future__ import annotations

import logging
import re

_PASSWORD = re.compile(r"(://[^\s/:@'\"]*:)[^\s/@'\"]*@")


def hidden(text: str) -> str:
    """Write dots for each password of a URL."""
    return _PASSWORD.sub(r"\1...@", text)


class Discreet(logging.Formatter):
    """Hides them in whole records, tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format without passwords."""
        return hidden(super().format(record))
