"""Serves ``index.html`` as it is, with the task's name in it, and lets nothing else run in it.

Whatever a learner says (its name, its messages) reaches the page as data and is written as text. Should that fail one
day, the browser still runs no script but the one whose hash stands in the header, and sends nothing anywhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files

_SOURCE = (files(__package__) / "index.html").read_text(encoding="utf-8")
_TASK = "{{task}}"


def _hash_of(tag: str) -> str:
    """Name the one inline script or style sheet as a Content-Security-Policy does."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", _SOURCE, flags=re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def render(*, namespace: str, name: str) -> str:
    """Give the page of one task."""
    return _SOURCE.replace(_TASK, html.escape(f"{namespace}/{name}"))
