"""Where a rank stands; read before PyTorch is imported, so nothing else is here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A rank's place among its likes."""

    rank: int
    count: int
    device: str
    meeting: str
    """The file by which ranks find each other, in a folder of its own."""
    threads: int
    """Of a CPU, that it may use."""
