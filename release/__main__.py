"""`make release` and `make version`: what a release consists of, in dist/release; nothing leaves the machine."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import yaml

from release import build, oci, sbom, versions
from release.errors import ReleaseError


@click.group()
def main() -> None:
    """Make a release of this repository."""


@main.command()
@click.argument("version")
def version(version: str) -> None:
    """Write VERSION into every place that states it."""
    for path in versions.write(Path(), versions.checked(version), datetime.now(UTC).date()):
        click.echo(path)


@main.command()
@click.argument("version", required=False)
@click.option("--out", type=click.Path(path_type=Path), default=Path("dist", "release"), help="Where it goes.")
@click.option("--repository", default="", help="Before the images' names: registry.example.com/team/")
@click.option("--extras", default="", help="The learner image's frameworks.")
@click.option("--base", default="", help="Both images' base, by digest.")
@click.option("--images/--no-images", default=True, help="Whether images are part of it.")
def make(version: str | None, out: Path, repository: str, extras: str, base: str, images: bool) -> None:
    """Build the release VERSION of a clean tree; without VERSION, rehearse it with what is committed."""
    if repository and not repository.endswith("/"):
        raise ReleaseError(f"REPOSITORY: {repository!r} does not end in a slash, as what stands before a name must")
    tree = Tree(Path())
    number = versions.stated(tree.root) if version is None else versions.checked(version)
    objections = [*tree.objections(number), *versions.disagreements(tree.root, number)]
    if version is not None and objections:
        raise ReleaseError("\n".join([f"this tree is not {number}:", *(f"  {line}" for line in objections)]))
    if version is not None and images and not repository:
        raise ReleaseError("REPOSITORY: where will the images be? Such as REPOSITORY=registry.example.com/team/")

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent.resolve()) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        variables = {"TAG": number, "REPOSITORY": repository, "EXTRAS": extras, "BASE": base, "REVISION": tree.commit}
        digests = Release(tree, Path(scratch), made, number).build(variables, images=images)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)
    for path in sorted(out.iterdir()):
        click.echo(f"{path.stat().st_size:>12,}  {path.relative_to(out.parent)}")
    if version is None:
        click.echo("\n".join(["A rehearsal, not to be published:", *(f"  {line}" for line in objections)]))
    else:
        click.echo(
            "\nNothing was published. To do so:\n"
            + "\n".join(publication(out, tree.commit, number, repository, digests))
        )


class Tree:
    """The repository: what is committed, and when."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commit = build.told(["git", "rev-parse", "HEAD"], cwd=root).strip()
        self.epoch = int(build.told(["git", "log", "-1", "--format=%ct"], cwd=root))

    def objections(self, number: str) -> list[str]:
        """Say why what is built here would not be what everybody gets under this version's tag."""
        changed = build.told(["git", "status", "--porcelain"], cwd=self.root).splitlines()
        tagged = build.told(["git", "tag", "--list", f"v{number}"], cwd=self.root).strip()
        found = [f"not committed: {', '.join(line[3:] for line in changed[:5])}"] if changed else []
        if tagged and build.told(["git", "rev-parse", f"{tagged}^{{commit}}"], cwd=self.root).strip() != self.commit:
            found.append(f"{tagged} is another commit already")
        return found


class Release:
    """Everything of one release, step by step."""

    def __init__(self, tree: Tree, scratch: Path, made: Path, number: str) -> None:
        self._tree, self._scratch, self._made, self._number = tree, scratch, made, number
        self._source = scratch / "source"

    def build(self, variables: dict[str, str], *, images: bool) -> dict[str, str]:
        """Build it; return the images' digests by name, empty where nothing here builds images."""
        number, epoch, made, source = self._number, self._tree.epoch, self._made, self._source
        build.source(self._tree.root, self._tree.commit, source)
        self._step("chart and definition")
        build.chart(source, made, repository=variables["REPOSITORY"], epoch=epoch)
        build.definition(source, made, version=number)
        self._step("sdist and wheel")
        wheel = build.packages(source, made, epoch=epoch)
        self._step("SBOM of the wheel's environment")
        site = build.installed(wheel, source, self._scratch / "environment")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        project = "collective-operator"
        self._write(
            f"{wheel.stem}.cdx.json",
            sbom.of_environment(site, name=project, version=number, sha256=digest, epoch=epoch),
        )
        digests = {}
        if images and (builder := build.builder(source)) is None:
            self._step("no images: they need docker with its daemon, podman or buildah")
        elif images:
            self._step(f"images and their SBOMs, with {builder}")
            for name, archive in build.images(source, made, variables=variables).items():
                image = oci.read(archive)
                digests[name] = image.digest
                self._write(f"{name}-{number}.cdx.json", sbom.of_image(image, name=name, version=number, epoch=epoch))
            self._write("images.yaml", pinned(variables["REPOSITORY"], number, digests))
        sums = {path.name: _sha256(path) for path in sorted(made.iterdir())}
        self._write("SHA256SUMS", "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
        return digests

    def _write(self, name: str, text: str) -> None:
        (self._made / name).write_text(text)

    def _step(self, what: str) -> None:
        click.echo(f"{self._number}: {what}")


def pinned(repository: str, number: str, digests: dict[str, str]) -> str:
    """Write the chart's values that name both images by digest."""
    operator, learner = build.IMAGES
    values = {
        key: {"repository": f"{repository}{name}", "tag": number, "digest": digests[name]}
        for key, name in {"image": operator, "learnerImage": learner}.items()
    }
    return "# helm install ... --values images.yaml: the images of this release, whatever becomes of their tags.\n" + (
        yaml.safe_dump(values, sort_keys=False)
    )


def publication(out: Path, commit: str, number: str, repository: str, digests: dict[str, str]) -> list[str]:
    """Write the commands that publish a release, images before what names them, and the tag last."""
    lines = []
    for name, digest in digests.items():
        archive, image = out / f"{name}-{number}.oci.tar", f"{repository}{name}"
        lines += [
            f"skopeo copy --preserve-digests oci-archive:{archive} docker://{image}:{number}",
            f"cosign sign {image}@{digest}",
            f"cosign attest --type cyclonedx --predicate {out / f'{name}-{number}.cdx.json'} {image}@{digest}",
        ]
    charts = f"oci://{repository or 'registry.example.com/team/'}charts"
    return [
        *lines,
        f"helm push {out / f'collective-operator-{number}.tgz'} {charts}",
        f"uv publish {out}/*.whl {out}/*.tar.gz",
        f"git tag --sign v{number} --message 'Version {number}' {commit}",
        f"git push origin v{number}",
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(command: Callable[[], None]) -> None:
    """Run it; what stops a release is said in one message."""
    try:
        command()
    except ReleaseError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    run(main)
