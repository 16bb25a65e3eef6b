"""Folders as a run leaves them, without the run: the task, and the weights of one training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collective_learner.factory import DefaultMliFactory
from collective_learner.tasks import load_builtin_tasks
from collective_learner.wire.codec import encode


def run_folder(folder: Path, *, model: str, data: str, parameters: dict[str, Any], seed: int = 7) -> Path:
    load_builtin_tasks()
    location = json.dumps({"location": "0/2", "seed": seed})
    learner = DefaultMliFactory().get_mli(model, json.dumps({"seed": seed, **parameters}), data, location)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(encode(learner.mli_propose_weights()).to_bytes())
    spec = {
        "model": {"name": model, "parameters": parameters},
        "dataLoader": {"name": data, "parameters": {}},
        "seed": seed,
        "learners": {"count": 2, "location": "{index}/{count}", "imports": []},
    }
    (folder / "task.json").write_text(json.dumps({"version": 1, "uid": "some", "task": {"spec": spec}}))
    return folder
