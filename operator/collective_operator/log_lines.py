"""One line of the log for each message, whatever it quotes.

Messages tell what the API server said, and that quotes what people wrote into tasks and Secrets: nobody is to write
lines of their own into the log, nor to move the cursor of a terminal.
"""

from __future__ import annotations

import logging
import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OneLine(logging.Formatter):
    """Escapes what would break a line, or hide some of it; tracebacks stay as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Format all but the traceback."""
        return escaped(super().formatMessage(record))


def escaped(text: str) -> str:
    """Write characters that would break a line, or move a cursor, as Python does."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
