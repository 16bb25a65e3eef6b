"""A release of this repository, but for its images: made twice, looked into, and refused where it would not be one."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from release import build, oci, sbom, versions
from release.__main__ import main, pinned, publication
from release.errors import ReleaseError
from tests.chart.conftest import find_helm

ROOT = Path(__file__).parents[2]
VERSION = "9.8.7"
REGISTRY = "registry.example.com/team/"
Release = Callable[..., Result]


def git(clone: Path, *words: str) -> str:
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    done = subprocess.run(["git", *identity, *words], cwd=clone, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This working tree, all of it committed in a repository of its own."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout, and a release is made of one")
    target = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    git(target, "init", "-q")
    git(target, "add", "--all")
    git(target, "commit", "-qm", "All of it")
    return target


@pytest.fixture
def release(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.chdir(clone)
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def twice(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Two releases of one commit, with other things in the working tree the second time; and what was said."""
    if find_helm() is None:
        pytest.skip("helm is neither on PATH nor in KUBEBUILDER_ASSETS: install it to make a release")
    folder = tmp_path_factory.mktemp("releases")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        assert CliRunner().invoke(main, ["version", VERSION]).exit_code == 0
        git(clone, "commit", "-qam", f"Version {VERSION}")
        words = ["make", VERSION, "--no-images", "--repository", REGISTRY, "--out"]
        first = CliRunner().invoke(main, [*words, str(folder / "first")])
        assert first.exit_code == 0, first.output
        (clone / "helm/collective-operator/values.yaml").touch()
        (clone / "dist").mkdir()
        (clone / "dist/rubbish").write_text("ignored by git, and in nothing that is built")
        second = CliRunner().invoke(main, [*words, str(folder / "second")])
        assert second.exit_code == 0, second.output
    return folder / "first", folder / "second", first.output


def test_the_same_commit_has_the_same_bytes(twice: tuple[Path, Path, str]) -> None:
    first, second, _ = twice
    assert (first / "SHA256SUMS").read_text() == (second / "SHA256SUMS").read_text()
    assert {path.name for path in first.iterdir()} == {
        "SHA256SUMS",
        f"collective-operator-{VERSION}.tgz",
        f"collective_operator-{VERSION}-py3-none-any.cdx.json",
        f"collective_operator-{VERSION}-py3-none-any.whl",
        f"collective_operator-{VERSION}.tar.gz",
        f"collectivetask-crd-{VERSION}.yaml",
    }
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=first, check=True, timeout=60)


def test_everything_in_it_is_of_that_version(twice: tuple[Path, Path, str]) -> None:
    made, _, said = twice
    with zipfile.ZipFile(next(made.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(f"collective_operator-{VERSION}.dist-info/METADATA").decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "collective_learner/wire/interface_pb2.py" in names
    assert not [name for name in names if name.startswith(("release", "tests", "helm"))]
    with tarfile.open(made / f"collective-operator-{VERSION}.tgz") as chart:

        def read(name: str) -> bytes:
            member = chart.extractfile(f"collective-operator/{name}")
            assert member is not None, name
            return member.read()

        about, values = yaml.safe_load(read("Chart.yaml")), yaml.safe_load(read("values.yaml"))
        readme, crd = read("README.md").decode(), read("files/collectivetask.yaml")
    assert (about["version"], about["appVersion"]) == (VERSION, VERSION)
    assert values["image"]["repository"] == f"{REGISTRY}collective-operator"
    assert values["learnerImage"]["repository"] == f"{REGISTRY}collective-learner"
    assert f'`learnerImage.repository` | `"{REGISTRY}collective-learner"`' in readme
    assert crd == (made / f"collectivetask-crd-{VERSION}.yaml").read_bytes()
    assert f"git push origin v{VERSION}" in said
    assert said.index("Nothing was published") < said.index("helm push") < said.index("git tag --sign")


def test_the_sbom_tells_what_the_wheel_brings(twice: tuple[Path, Path, str]) -> None:
    made, _, _ = twice
    bom = json.loads(next(made.glob("*.cdx.json")).read_text())
    assert sbom.make_schemabased_validator(sbom.FORMAT, sbom.SCHEMA).validate_str(json.dumps(bom)) is None
    assert bom["metadata"]["component"]["purl"] == f"pkg:pypi/collective-operator@{VERSION}"
    assert bom["metadata"]["component"]["hashes"][0]["content"] in (made / "SHA256SUMS").read_text()
    there = {component["name"]: component for component in bom["components"]}
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalnum())
    assert there["grpcio"]["version"] == pins["grpcio"]
    assert there["numpy"]["purl"] == f"pkg:pypi/numpy@{pins['numpy']}"
    assert there["aiohttp"]["licenses"]
    assert {"torch", "tensorflow-cpu", "kopf", "pytest", "collective-operator"} & set(there) == set()
    needs = {edge["ref"]: edge.get("dependsOn", []) for edge in bom["dependencies"]}
    assert there["click"]["bom-ref"] in needs["release"]
    assert there["multidict"]["bom-ref"] in needs[there["aiohttp"]["bom-ref"]]
    assert there["multidict"]["bom-ref"] not in needs["release"]


@pytest.mark.usefixtures("twice")
def test_a_tree_that_is_not_this_version_is_refused(clone: Path, release: Release, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        done = release("make", *words, "--no-images", "--out", tmp_path / "out")
        assert isinstance(done.exception, ReleaseError)
        assert not (tmp_path / "out").exists()
        return str(done.exception)

    said = refused("9.9.0")
    for place in (
        "pyproject.toml: version =",
        "Chart.yaml: version:",
        "Chart.yaml: appVersion:",
        "CHANGELOG.md: no heading",
    ):
        assert place in said
    assert "'v9.8.7' is no version" in refused("v9.8.7")
    assert "does not end in a slash" in refused(VERSION, "--repository", "registry.example.com/team")
    (clone / "new.txt").write_text("not committed")
    assert "not committed: new.txt" in refused(VERSION)
    (clone / "new.txt").unlink()
    git(clone, "tag", f"v{VERSION}", "HEAD~1")
    assert f"v{VERSION} is another commit already" in refused(VERSION)
    git(clone, "tag", "-d", f"v{VERSION}")


@pytest.mark.usefixtures("twice")
def test_images_need_a_place(release: Release, tmp_path: Path) -> None:
    done = release("make", VERSION, "--out", tmp_path / "out")
    assert str(done.exception).startswith("REPOSITORY: where will the images be?")


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for path in (versions.PYPROJECT, versions.CHANGES, versions.CHART / "Chart.yaml", versions.CHART / "values.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, tmp_path / path)
    return tmp_path


def test_a_version_is_written_everywhere_and_once(places: Path) -> None:
    (places / versions.CHANGES).write_text("# Changes\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n")
    assert len(versions.write(places, "2.0.0", date(2030, 1, 31))) == 3
    assert list(versions.disagreements(places, "2.0.0")) == []
    assert versions.stated(places) == "2.0.0"
    changes = (places / versions.CHANGES).read_text()
    assert changes == "# Changes\n\n## [Unreleased]\n\n## [2.0.0] - 2030-01-31\n\n### Added\n\n- A thing.\n"
    assert versions.write(places, "2.0.0", date(2030, 2, 1)) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (versions.CHART / "values.yaml", 'tag: ""', "tag: latest", "tag: latest goes before"),
        (versions.CHANGES, "## [2.0.0] - 2030-01-31", "## [2.0.0]", "the heading of 2.0.0 has no date"),
        (versions.CHART / "Chart.yaml", "appVersion: 2.0.0", "appVersion: 1.9.9", "appVersion: 1.9.9 is not of 2.0.0"),
    ],
)
def test_a_place_that_disagrees_is_named(places: Path, path: Path, old: str, new: str, told: str) -> None:
    (places / versions.CHANGES).write_text("## [Unreleased]\n")
    versions.write(places, "2.0.0", date(2030, 1, 31))
    text = (places / path).read_text()
    assert old in text
    (places / path).write_text(text.replace(old, new, 1))
    (line,) = versions.disagreements(places, "2.0.0")
    assert told in line


def test_nothing_is_written_when_a_place_is_gone(places: Path) -> None:
    (places / versions.CHANGES).write_text("# Changes\n")
    before = (places / versions.PYPROJECT).read_text()
    with pytest.raises(ReleaseError, match=r"CHANGELOG.md: neither '## \[Unreleased\]' nor"):
        versions.write(places, "2.0.0", date(2030, 1, 31))
    assert (places / versions.PYPROJECT).read_text() == before


def layer(files: Mapping[str, str], compressed: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def metadata(name: str, version: str, *more: str) -> str:
    return "\n".join([f"Name: {name}", f"Version: {version}", *more, "", "The text."])


LAYERS: list[Mapping[str, str]] = [
    {
        "var/lib/dpkg/status": "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\n"
        "Version: 1:1.2.13\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n",
        "usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "usr/local/include/python3.11/patchlevel.h": '#define PY_VERSION           "3.11.9"\n',
        "usr/local/lib/python3.11/site-packages/pip-1.dist-info/METADATA": metadata("pip", "1"),
        "opt/old/lib/python3.11/site-packages/x-1.dist-info/METADATA": metadata("x", "1"),
    },
    {
        "usr/local/lib/python3.11/site-packages/.wh.pip-1.dist-info": "",
        "opt/old/.wh..wh..opq": "",
        "opt/old/lib/python3.11/site-packages/y-2.dist-info/METADATA": metadata(
            "Y", "2", "License-Expression: MIT", 'Requires-Dist: Z_z>=1; python_version > "3"', "Requires-Dist: absent"
        ),
        "opt/venv/lib/python3.11/site-packages/z_z-3.dist-info/METADATA": metadata("z.z", "3"),
    },
]


def image_archive(path: Path) -> str:
    """Write an OCI layout of two layers, one of them compressed; return its digest."""
    blobs = {f"{'ab'[number] * 64}": layer(files, compressed=bool(number)) for number, files in enumerate(LAYERS)}
    manifest = {"layers": [{"digest": f"sha256:{digest}"} for digest in blobs]}
    digest = "c" * 64
    blobs[digest] = json.dumps(manifest).encode()
    index = {"manifests": [{"digest": f"sha256:{digest}"}]}
    with tarfile.open(path, "w") as archive:
        for name, data in {
            "index.json": json.dumps(index).encode(),
            **{f"blobs/sha256/{d}": b for d, b in blobs.items()},
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return f"sha256:{digest}"


def test_an_image_is_read_layer_over_layer(tmp_path: Path) -> None:
    digest = image_archive(tmp_path / "image.tar")
    image = oci.read(tmp_path / "image.tar")
    assert image.digest == digest
    text = sbom.of_image(image, name="collective-learner", version="1.0.0", epoch=0)
    assert text == sbom.of_image(image, name="collective-learner", version="1.0.0", epoch=0)
    bom = json.loads(text)
    assert {component["purl"] for component in bom["components"]} == {
        "pkg:deb/debian/zlib1g@1:1.2.13?arch=amd64&distro=debian-12",
        "pkg:generic/cpython@3.11.9",
        "pkg:pypi/y@2",
        "pkg:pypi/z-z@3",
    }
    needs = {edge["ref"]: edge.get("dependsOn", []) for edge in bom["dependencies"]}
    assert needs["pypi/y@2"] == ["pypi/z-z@3"]
    assert len(needs["release"]) == 4
    assert bom["metadata"]["timestamp"] == "1970-01-01T00:00:00+00:00"


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("manifest.json"))
    with pytest.raises(ReleaseError, match="no OCI archive"):
        oci.read(tmp_path / "old.tar")
    with pytest.raises(ReleaseError, match="no package was found"):
        sbom.of_image(oci.Image(digest="sha256:aa", files={}), name="empty", version="1.0.0", epoch=0)


def test_digests_are_values_of_the_chart(tmp_path: Path) -> None:
    digests = {name: f"sha256:{number * 64}" for name, number in zip(build.IMAGES, "12", strict=True)}
    values = yaml.safe_load(pinned(REGISTRY, VERSION, digests))
    assert values["learnerImage"] == {
        "repository": f"{REGISTRY}collective-learner",
        "tag": VERSION,
        "digest": digests["collective-learner"],
    }
    commands = publication(tmp_path, "abc", VERSION, REGISTRY, digests)
    assert f"cosign sign {REGISTRY}collective-operator@{digests['collective-operator']}" in commands
    assert commands[-1] == f"git push origin v{VERSION}"


def test_a_tool_that_is_missing_or_fails_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="needs no-such-tool on PATH"):
        build.told(["no-such-tool"], cwd=tmp_path)
    with pytest.raises(ReleaseError, match=r"git status ended with status 128:\nfatal: not a git repository"):
        build.told(["git", "status"], cwd=tmp_path)
