"""Which files of other formats are made already, and of which weights.

Another try at bringing a result somewhere finds the rounds decided and perhaps no learner that is ready yet: what a
learner has made before, of the very same weights, need not be made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from collective_coordinator.delivery.facts import file_facts
from collective_coordinator.durable import write_durably
from collective_coordinator.exports import Export
from collective_coordinator.spool import StoredWeights

NOTES = ".exports.json"


def kept_exports(directory: Path, weights: StoredWeights, formats: Sequence[str]) -> list[Export] | None:
    """Find the files that were made of these weights; None when one of them is not there, or is another. Blocks."""
    try:
        notes = json.loads((directory / NOTES).read_bytes())
        if (notes["weights"], notes["formats"]) != (weights.digest.hex(), list(formats)):
            return None
        exports = [Export(name=name, file=file) for name, file in notes["files"].items()]
        facts = file_facts(directory, [export.file for export in exports if export.file])
        return exports if {fact.name: fact.sha256 for fact in facts} == notes["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep_exports(directory: Path, weights: StoredWeights, formats: Sequence[str], exports: Sequence[Export]) -> None:
    """Note what was made, when all of it was. Blocks."""
    files = {export.name: export.file for export in exports if export.file is not None}
    if len(files) < len(exports):
        return
    facts = file_facts(directory, files.values())
    notes = {
        "weights": weights.digest.hex(),
        "formats": list(formats),
        "files": files,
        "sha256": {fact.name: fact.sha256 for fact in facts},
    }
    write_durably(directory / NOTES, json.dumps(notes).encode())
