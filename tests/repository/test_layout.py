"""The repository keeps its promises about itself: what is where, and what is committed."""

from __future__ import annotations

import operator
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that git holds."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_operator_folder_is_no_package() -> None:
    """An __init__.py there would shadow the standard library's operator module wherever the root is on the path."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert operator.add(1, 2) == 3


def test_generated_code_is_not_committed(tracked: list[Path]) -> None:
    assert [path for path in tracked if "_pb2" in path.name] == []


def test_license() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_scripts_are_executable(tracked: list[Path]) -> None:
    scripts = [path for path in tracked if not path.suffix and (ROOT / path).read_bytes().startswith(b"#!")]
    assert Path(".ci/run") in scripts
    assert [path for path in scripts if not os.access(ROOT / path, os.X_OK)] == []


def test_no_file_names_a_place_of_one_machine(tracked: list[Path]) -> None:
    """A path into someone's home folder, or a package file's address, holds on one machine only."""
    found = []
    for path in tracked:
        if path.suffix in {".png"} or path == Path(__file__).relative_to(ROOT):
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1):
            if re.search(
                r"(?<![\w.-])/(root|home/[a-z]+|Users/\w+)/|@ file:|file://\S*\.(whl|tar\.gz|zip)|find-links|index-url",
                line,
            ) and not (path.name == "Makefile" and "--no-emit-" in line):
                found.append(f"{path}:{number}: {line.strip()}")
    assert found == []


def test_examples_are_tasks() -> None:
    examples = sorted((ROOT / "examples").glob("*.yaml"))
    assert ROOT / "examples" / "digits.yaml" in examples
    for example in examples:
        assert yaml.safe_load(example.read_text())["kind"] == "CollectiveTask"
