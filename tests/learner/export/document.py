"""docs/learners.md taken apart: its files, and the rounds that its script drives, in this process."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest

from collective_learner import FactoryRegistry

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "learners.md").read_text()
BLOCKS = re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = {
    match[1]: block
    for _, kind, block in BLOCKS
    if kind in ("python", "yaml") and (match := re.match(r"# (\S+\.(?:py|yaml))\n", block))
}


def write_files(folder: Path) -> Path:
    """Write what the text shows, and the tables that its script makes."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with contextlib.chdir(folder):
        runpy.run_path("make_sites.py")
    return folder


def try_it(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run try_it.py as a program would, and leave nothing registered."""
    monkeypatch.setattr(FactoryRegistry, "dataloaders", {})
    monkeypatch.setattr(FactoryRegistry, "model_architectures", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["try_it.py", *arguments])
    monkeypatch.chdir(folder)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            runpy.run_path("try_it.py", run_name="__main__")
    finally:
        for name in Path("my-code").glob("*.py"):
            sys.modules.pop(name.stem, None)
    return output.getvalue()
