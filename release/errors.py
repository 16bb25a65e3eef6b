"""What stops a release."""

from __future__ import annotations


class ReleaseError(Exception):
    """A release cannot be made of this tree, or on this machine; the message says what to do."""
