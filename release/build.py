"""Builds what a release consists of, each part by the tool that its users have, and none out of the working tree.

Everything starts from the files of one commit, unpacked beside the results, with that commit's time on whatever wants a
time (SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from helm.generate.readme import readme

from release.errors import ReleaseError
from release.versions import CHART

LIMIT_S = 3600
"""Of one tool; an image with a framework in it takes longest."""
IMAGES = ("collective-operator", "collective-learner")
EXTRAS = "run,cluster,sklearn"
"""What the wheel's SBOM has it installed with."""


def told(command: Sequence[str | Path], *, cwd: Path, **variables: str) -> str:
    """Run a tool and return what it printed.

    Raises
    ------
    ReleaseError
        It is not there, took too long, or failed; its last lines are in the message.
    """
    # Not this make's own variables: what is built is said by arguments alone.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(  # noqa: S603 - the tools below, with arguments of their own
            words, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except FileNotFoundError:
        raise ReleaseError(f"this needs {words[0]} on PATH") from None
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{' '.join(words)}: not done after {LIMIT_S} s") from None
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise ReleaseError(f"{' '.join(words)} ended with status {done.returncode}:\n{last}")
    return done.stdout


def source(root: Path, commit: str, target: Path) -> None:
    """Unpack a commit's files, without what is in the working tree beside them."""
    archive = target.with_suffix(".tar")
    told(["git", "archive", "--format=tar", "-o", archive, commit], cwd=root)
    with tarfile.open(archive) as files:
        files.extractall(target, filter="data")
    archive.unlink()


def packages(tree: Path, target: Path, *, epoch: int) -> Path:
    """Build the sdist, and the wheel out of that; return the wheel."""
    told(
        [*_uv(), "build", "--quiet", "--build-constraints", "constraints.txt", "--out-dir", target],
        cwd=tree,
        SOURCE_DATE_EPOCH=str(epoch),
    )
    (target / ".gitignore").unlink(missing_ok=True)  # uv's
    (wheel,) = target.glob("*.whl")
    return wheel


def installed(wheel: Path, tree: Path, target: Path) -> Path:
    """Install the wheel with `EXTRAS`, at the pinned versions, into an environment; return its packages' folder."""
    told([*_uv(), "venv", "--quiet", "--python", sys.executable, target], cwd=tree)
    python = target / "bin" / "python"
    told(
        [
            *_uv(),
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--constraints",
            "constraints.txt",
            f"{wheel}[{EXTRAS}]",
        ],
        cwd=tree,
    )
    (site,) = target.glob("lib/python*/site-packages")
    return site


def chart(tree: Path, target: Path, *, repository: str, epoch: int) -> None:
    """Package the chart, whose images are looked for at `repository` (a prefix of their names; may be empty)."""
    if repository:
        values = tree / CHART / "values.yaml"
        text = values.read_text()
        for image in IMAGES:
            text = text.replace(f"  repository: {image}\n", f"  repository: {repository}{image}\n")
        values.write_text(text)
        (tree / CHART / "README.md").write_text(readme(tree / CHART))
    told(["helm", "lint", "--strict", CHART], cwd=tree, **_with_assets())
    told(["helm", "package", CHART, "--destination", target], cwd=tree, SOURCE_DATE_EPOCH=str(epoch), **_with_assets())


def definition(tree: Path, target: Path, *, version: str) -> None:
    """Copy the definition of CollectiveTask, for clusters where another than Helm applies it."""
    shutil.copyfile(tree / "crds" / "collectivetask.yaml", target / f"collectivetask-crd-{version}.yaml")


def builder(tree: Path) -> str | None:
    """Name what builds images here; None: nothing does."""
    try:
        return told(["make", "--silent", "builder"], cwd=tree).strip()
    except ReleaseError:
        return None


def images(tree: Path, target: Path, *, variables: Mapping[str, str]) -> dict[str, Path]:
    """Build both images as `make image` does, and write each as an OCI archive; return these by the image's name."""
    words = [f"{name}={value}" for name, value in variables.items() if value]
    told(["make", "--silent", "archives", f"ARCHIVES={target}", *words], cwd=tree)
    return {name: target / f"{name}-{variables['TAG']}.oci.tar" for name in IMAGES}


def _uv() -> list[str]:
    return [sys.executable, "-m", "uv"]


def _with_assets() -> dict[str, str]:
    """Find Helm where the tests do, too."""
    return {"PATH": os.pathsep.join(filter(None, [os.environ.get("PATH"), os.environ.get("KUBEBUILDER_ASSETS")]))}
