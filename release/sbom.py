"""What a release brings along, as CycloneDX: the packages of an environment or an image, and who needs whom.

The same release has the same bytes: the time is that of the commit, and the serial number is made of the content.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from email.parser import BytesParser, Parser
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release.errors import ReleaseError
from release.oci import Image

FORMAT, SCHEMA = OutputFormat.JSON, SchemaVersion.V1_6
_NAMESPACE = uuid.UUID("0c52a2b5-55f2-5d8e-9d1d-0f5b8f4c7d5e")  # of serial numbers; any constant


def of_environment(site: Path, *, name: str, version: str, sha256: str, epoch: int) -> str:
    """Write the SBOM of a wheel: of what its installation brought into one folder of packages.

    Parameters
    ----------
    site
        The folder, ``site-packages``.
    name, version, sha256
        Of the wheel.
    epoch
        Seconds since 1970: the time that is written.
    """
    metadata = [path.read_bytes() for path in site.glob("*.dist-info/METADATA")]
    root = Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION,
        purl=PackageURL("pypi", name=name, version=version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
        bom_ref="release",
    )
    components = _python(metadata)
    (itself,) = [component for component in components if component.name == canonicalize_name(name)]
    return _written(root, components, needs=components.pop(itself), epoch=epoch)


def of_image(image: Image, *, name: str, version: str, epoch: int) -> str:
    """Write the SBOM of an image: Debian's packages, the interpreter, and Python's packages."""
    algorithm, _, digest = image.digest.partition(":")
    root = Component(
        name=name,
        version=version,
        type=ComponentType.CONTAINER,
        purl=PackageURL("oci", name=name, version=image.digest, qualifiers={"tag": version}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if algorithm == "sha256" else [],
        bom_ref="release",
    )
    metadata = [text for path, text in image.files.items() if path.endswith("METADATA")]
    components = _python(metadata)
    for component in (*_debian(image.files), *_interpreter(image.files)):
        components[component] = ()
    return _written(root, components, needs=[component.name for component in components], epoch=epoch)


def _python(texts: Iterable[bytes]) -> dict[Component, Iterable[str]]:
    """Read packages' metadata; with each, the names that it asks for, extras included."""
    found: dict[Component, Iterable[str]] = {}
    licences = LicenseFactory()
    for text in texts:
        about = BytesParser().parsebytes(text, headersonly=True)
        name = canonicalize_name(about["Name"])
        licence = _licence(about)
        component = Component(
            name=name,
            version=about["Version"],
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=name, version=about["Version"]),
            description=about["Summary"],
            licenses=[licences.make_from_string(licence)] if licence else [],
            bom_ref=f"pypi/{name}@{about['Version']}",
        )
        asked = about.get_all("Requires-Dist") or []
        found[component] = {canonicalize_name(Requirement(requirement).name) for requirement in asked}
    return found


def _licence(about: Message) -> str | None:
    """Find it where packages state it: as an expression, in a short field, or in a classifier."""
    if about["License-Expression"]:
        return str(about["License-Expression"])
    classifiers = [text for text in about.get_all("Classifier") or [] if text.startswith("License :: ")]
    if classifiers:
        return str(classifiers[0].rpartition(" :: ")[2])
    short = str(about["License"] or "").strip()
    return short if short and "\n" not in short and len(short) < 80 else None  # else it is the licence's whole text


def _debian(files: Mapping[str, bytes]) -> Iterator[Component]:
    release = files.get("usr/lib/os-release", files.get("etc/os-release", b"")).decode()
    about = {key: value.strip('"') for key, _, value in (line.partition("=") for line in release.splitlines())}
    kind = about.get("ID", "debian")
    for paragraph in files.get("var/lib/dpkg/status", b"").decode().split("\n\n"):
        package = Parser().parsestr(paragraph, headersonly=True)
        if package["Status"] != "install ok installed":
            continue
        qualifiers = {"arch": package["Architecture"], "distro": f"{kind}-{about.get('VERSION_ID', '')}".rstrip("-")}
        yield Component(
            name=package["Package"],
            version=package["Version"],
            type=ComponentType.LIBRARY,
            purl=PackageURL("deb", kind, package["Package"], package["Version"], qualifiers),
            bom_ref=f"deb/{package['Package']}:{package['Architecture']}@{package['Version']}",
        )


def _interpreter(files: Mapping[str, bytes]) -> Iterator[Component]:
    """Find the Python that official images build from source, so that no package tells of it."""
    for path, text in files.items():
        if path.endswith("patchlevel.h"):
            (version,) = [line.split('"')[1] for line in text.decode().splitlines() if "define PY_VERSION " in line]
            purl = PackageURL("generic", name="cpython", version=version)
            yield Component(name="cpython", version=version, type=ComponentType.PLATFORM, purl=purl, bom_ref="cpython")


def _written(
    root: Component, components: Mapping[Component, Iterable[str]], *, needs: Iterable[str], epoch: int
) -> str:
    """Write it, and hold it against CycloneDX's own schema; an edge is a requirement that is met by what is there.

    Raises
    ------
    ReleaseError
        Nothing was found, or what was written is not what the schema allows.
    """
    if not components:
        raise ReleaseError(f"{root.name}: no package was found in it, so its SBOM would say nothing")
    bom = Bom(
        components=components,
        metadata=BomMetaData(component=root, timestamp=datetime.fromtimestamp(epoch, UTC)),
        serial_number=uuid.uuid5(_NAMESPACE, "\n".join([str(root.purl), *sorted(str(c.purl) for c in components)])),
    )
    by_name: dict[str, list[Component]] = {}
    for component in components:
        by_name.setdefault(component.name, []).append(component)
    for component, asked in {**components, root: needs}.items():
        bom.register_dependency(component, [one for name in set(asked) for one in by_name.get(name, ())])
    text = make_outputter(bom, FORMAT, SCHEMA).output_as_string(indent=1)
    wrong = make_schemabased_validator(FORMAT, SCHEMA).validate_str(text)
    if wrong is not None:
        raise ReleaseError(f"{root.name}: its SBOM is not as the schema has it: {wrong}")
    return text
