"""A line of ``rounds.jsonl`` as numbers with names: what a tracker draws over rounds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = tuple[int, dict[str, float]]
"""A round's number and its values."""


def series_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Name a round's numbers: means at the top, then one for each learner."""
    values: dict[str, float | None] = {
        "test_score": _mean(record["testScores"]),
        "vote_score": _mean(record["voteScores"]),
        "accepted": float(record["accepted"]),
        "trainers": float(len(record["trainers"])),
        "left_out": float(len(record.get("leftOut", ()))),
    }
    votes = record["votes"].values()
    if votes:
        values["votes_for"] = float(sum(map(bool, votes)))
    for phase, seconds in record["seconds"].items():
        values[f"seconds/{phase}"] = seconds
    for group, key in (("test_score", "testScores"), ("vote_score", "voteScores")):
        for name, score in record[key].items():
            values[f"{group}/{name}"] = score
    for name, told in record.get("privacy", {}).items():
        values[f"epsilon/{name}"] = told.get("consumedEpsilon")
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


class RoundsTail:
    """Reads what is new in a file of rounds; a last line that is still being written is left for later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self, *, after: int, most: int = 500) -> list[Row]:
        """Give the next rounds, but for those up to `after`."""
        rows: list[Row] = []
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n") or len(rows) >= most:
                        break
                    self._offset += len(line)
                    record = json.loads(line)
                    if record["round"] > after:
                        rows.append((record["round"], series_of(record)))
        except FileNotFoundError:
            return []
        return rows


def _mean(scores: Mapping[str, float]) -> float | None:
    return math.fsum(scores.values()) / len(scores) if scores else None
