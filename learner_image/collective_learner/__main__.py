"""``python -m collective_learner`` is ``collective serve``: what a learner's pod runs."""

from __future__ import annotations

from collective_learner.cli import serve

if __name__ == "__main__":
    serve(prog_name="python -m collective_learner")
