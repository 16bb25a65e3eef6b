"""The rules on a task that no single field's bounds can express, each with the one sentence it is refused with.

The API server checks most of them too, by CEL in the CRD, and a laptop has no API server: so that both say the same
words, a test compares the CRD's messages with those here.  What CEL cannot see (inside free-form parameters, sums of
quantities) is checked here alone and ends in ``Accepted=False``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from collective_operator.api.overrides import Finding, broken_overrides
from collective_operator.api.strategy import Stop, Strategy
from collective_operator.api.task import CollectiveTaskSpec, Gpus, Resources

NAME = (
    "metadata.name must be an RFC 1035 label of at most 45 characters: lower-case letters, digits and '-', "
    "first a letter, last a letter or a digit"
)
QUORUM = "spec.policy.minLearners must be at most the number of learners"
COUNT_OR_SITES = "spec.learners must have either count or sites"
SITES = "must have at least 1 entry"
SITE = "names of sites must differ"
BACKOFF = "spec.policy.backoff.initialSeconds must be at most spec.policy.backoff.maxSeconds"
LOCATION = "the place of the data is spec.learners.location; the operator passes it to the data loader"
STRATEGY_MEMBERS = {
    member: (kind, f"spec.strategy.{member} may be set only with spec.strategy.type {kind}")
    for member, kind in (("vote", "Vote"), ("fedAvg", "FedAvg"), ("fedProx", "FedProx"), ("fedOpt", "FedOpt"))
}
"""By the member's name: the type that it belongs to, and the rule's sentence."""
AVERAGING = ("FedAvg", "FedProx", "FedOpt")
AGGREGATION = "spec.strategy.aggregation may be set only with spec.strategy.type FedAvg, FedProx or FedOpt"
TRIMMED_MEAN = "spec.strategy.trimmedMean may be set only with spec.strategy.aggregation TrimmedMean"
GATE = "spec.strategy.gate may not be set with spec.strategy.type Vote, whose rounds are voted on already"
STOP = "spec.stop must have testScore or patience"
MIN_DELTA = "spec.stop.minDelta may be set only with spec.stop.patience"
GPUS = "GPUs are asked for in gpus alone"

NAME_LIMIT = 45
NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def name_is_valid(name: str) -> bool:
    """Tell whether children's names can be made from this one and still be DNS labels."""
    return len(name) <= NAME_LIMIT and re.fullmatch(NAME_PATTERN, name) is not None


def quantity(text: str | int) -> Decimal:
    """Read a Kubernetes quantity that matches ``fields.QUANTITY_PATTERN``."""
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return Decimal(number) * _SUFFIXES[suffix]


def broken_rules(spec: CollectiveTaskSpec) -> Iterator[Finding]:
    """Yield every rule between fields that a well-formed spec breaks."""
    if (spec.learners.count is None) == (spec.learners.sites is None):
        yield "spec.learners", spec.learners.model_dump(by_alias=True, exclude_unset=True), COUNT_OR_SITES
        return
    if spec.learners.sites == ():
        yield "spec.learners.sites", [], SITES
        return
    if spec.policy.min_learners is not None and spec.policy.min_learners > spec.learners.size:
        yield "spec.policy.minLearners", spec.policy.min_learners, QUORUM
    backoff = spec.policy.backoff
    if backoff.initial_seconds > backoff.max_seconds:
        yield "spec.policy.backoff.initialSeconds", backoff.initial_seconds, BACKOFF
    yield from _strategy(spec.strategy)
    if spec.stop is not None:
        yield from _stop(spec.stop)
    if "location" in spec.data_loader.parameters:
        yield "spec.dataLoader.parameters.location", spec.data_loader.parameters["location"], LOCATION
    yield from _resources("spec.learners.resources", spec.learners.resources)
    yield from _resources("spec.coordinator.resources", spec.coordinator.resources)
    yield from _gpus("spec.learners", spec.learners.gpus, spec.learners.resources)
    for path, overrides, container in (
        ("spec.learners", spec.learners.pod_overrides, "learner"),
        ("spec.coordinator", spec.coordinator.pod_overrides, "coordinator"),
    ):
        if overrides is not None:
            yield from broken_overrides(f"{path}.podOverrides", overrides, container=container)
    yield from _sites(spec)


def _sites(spec: CollectiveTaskSpec) -> Iterator[Finding]:
    seen: set[str] = set()
    for position, site in enumerate(spec.learners.sites or ()):
        path = f"spec.learners.sites[{position}]"
        if site.name in seen:
            yield f"{path}.name", site.name, SITE
        seen.add(site.name)
        learner = spec.learners.learner(position)
        if site.resources is not None:
            yield from _resources(f"{path}.resources", site.resources)
        if site.resources is not None or site.gpus is not None:
            yield from _gpus(path, learner.gpus, learner.resources)
        if site.pod_overrides is not None:
            yield from broken_overrides(f"{path}.podOverrides", site.pod_overrides, container="learner")


def _gpus(path: str, gpus: Gpus | None, resources: Resources) -> Iterator[Finding]:
    for member, amounts in (("requests", resources.requests), ("limits", resources.limits)):
        if gpus is not None and gpus.resource in amounts:
            yield f"{path}.resources.{member}.{gpus.resource}", amounts[gpus.resource], GPUS


def _strategy(strategy: Strategy) -> Iterator[Finding]:
    given = strategy.model_dump(by_alias=True, exclude_none=True)
    for member, (kind, message) in STRATEGY_MEMBERS.items():
        if member in given and strategy.type != kind:
            yield f"spec.strategy.{member}", given[member], message
    if strategy.aggregation is not None and strategy.type not in AVERAGING:
        yield "spec.strategy.aggregation", strategy.aggregation, AGGREGATION
    if strategy.trimmed_mean is not None and strategy.aggregation != "TrimmedMean":
        yield "spec.strategy.trimmedMean", given["trimmedMean"], TRIMMED_MEAN
    if strategy.gate is not None and strategy.type == "Vote":
        yield "spec.strategy.gate", given["gate"], GATE


def _stop(stop: Stop) -> Iterator[Finding]:
    if stop.test_score is None and stop.patience is None:
        yield "spec.stop", stop.model_dump(by_alias=True, exclude_none=True), STOP
    if stop.min_delta is not None and stop.patience is None:
        yield "spec.stop.minDelta", stop.min_delta, MIN_DELTA


def _resources(path: str, resources: Resources) -> Iterator[Finding]:
    for name in sorted(resources.requests.keys() & resources.limits.keys()):
        if quantity(resources.requests[name]) > quantity(resources.limits[name]):
            yield (
                f"{path}.requests.{name}",
                resources.requests[name],
                f"must be at most {path}.limits.{name}, {resources.limits[name]}",
            )
