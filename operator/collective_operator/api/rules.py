"""The rules on a task that no single field's bounds can express, each with the one sentence it is refused with.

The API server checks most of them too, by CEL in the CRD, and a laptop has no API server: so that both say the same
words, a test compares the CRD's messages with those here.  What CEL cannot see (inside free-form parameters, sums of
quantities) is checked here alone and ends in ``Accepted=False``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collective_operator.api.task import CollectiveTaskSpec, Resources

NAME = (
    "metadata.name must be an RFC 1035 label of at most 45 characters: lower-case letters, digits and '-', "
    "first a letter, last a letter or a digit"
)
QUORUM = "spec.policy.minLearners must be at most spec.learners.count"
QUANTITY = "must be a Kubernetes quantity such as 500m, 2 or 1Gi"
LOCATION = "the place of the data is spec.learners.location; the operator passes it to the data loader"
GPUS = "GPUs are asked for in spec.learners.gpus alone"

NAME_LIMIT = 45
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"

_SUFFIXES = {
    "": Decimal(1), "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}

Finding = tuple[str, Any, str]
"""Path below the manifest's root, the value found there, the rule's sentence."""


def name_is_valid(name: str) -> bool:
    """Tell whether children's names can be made from this one and still be DNS labels."""
    return len(name) <= NAME_LIMIT and re.fullmatch(NAME_PATTERN, name) is not None


def quantity(text: str | int) -> Decimal:
    """Read a Kubernetes quantity that matches ``QUANTITY_PATTERN``."""
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return Decimal(number) * _SUFFIXES[suffix]


def broken_rules(spec: CollectiveTaskSpec) -> Iterator[Finding]:
    """Yield every rule between fields that a well-formed spec breaks."""
    if spec.policy.min_learners is not None and spec.policy.min_learners > spec.learners.count:
        yield "spec.policy.minLearners", spec.policy.min_learners, QUORUM
    if "location" in spec.data_loader.parameters:
        yield "spec.dataLoader.parameters.location", spec.data_loader.parameters["location"], LOCATION
    yield from _resources("spec.learners.resources", spec.learners.resources)
    yield from _resources("spec.coordinator.resources", spec.coordinator.resources)
    if spec.learners.gpus is not None:
        resource = spec.learners.gpus.resource
        for member, amounts in (("requests", spec.learners.resources.requests),
                                ("limits", spec.learners.resources.limits)):
            if resource in amounts:
                yield f"spec.learners.resources.{member}.{resource}", amounts[resource], GPUS


def _resources(path: str, resources: Resources) -> Iterator[Finding]:
    for name in sorted(resources.requests.keys() & resources.limits.keys()):
        if quantity(resources.requests[name]) > quantity(resources.limits[name]):
            yield (f"{path}.requests.{name}", resources.requests[name],
                   f"must be at most {path}.limits.{name}, {resources.limits[name]}")
