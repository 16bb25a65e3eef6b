"""What a CollectiveTask says, as typed frozen models.

The CRD in ``crds/collectivetask.yaml`` is written by hand, because a generated one has no sentences worth reading;
a test holds it and these models equal, field by field and bound by bound.  Values are taken strictly, as the API server
takes them: a quoted number is no number.  Fields have no descriptions here: those stand in the CRD, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from collective_operator.api.base import Part
from collective_operator.api.fields import (
    Amounts,
    Folder,
    Formats,
    ModuleName,
    ObjectName,
    Parameters,
    Quantity,
    QueueName,
    RegisteredName,
    ResourceName,
    SiteName,
    TrackingUrl,
    Url,
)
from collective_operator.api.network import EgressRules
from collective_operator.api.overrides import PodOverrides
from collective_operator.api.strategy import Stop, Strategy

GROUP = "collectivelearning.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "CollectiveTask"
PLURAL = "collectivetasks"
OPERATOR = "collectivelearning.dev/operator"
"""The name by which `spec.managedBy` means this operator."""


class Model(Part):
    """The model to train, by the name under which the learner image registers it."""

    name: RegisteredName
    parameters: Parameters = Field(default_factory=dict)


class DataLoader(Part):
    """The data loader, by the name under which the learner image registers it."""

    name: RegisteredName
    parameters: Parameters = Field(default_factory=dict)


class ConfigMapRef(Part):
    """A ConfigMap beside the task."""

    name: ObjectName


class CodeFrom(Part):
    """Where modules come from that are not in the image."""

    config_map_ref: ConfigMapRef


class Gpus(Part):
    """What each learner asks of the device plugin."""

    count: int = Field(ge=0, le=64)
    resource: ResourceName = "nvidia.com/gpu"


class Resources(Part):
    """Requests and limits of a container."""

    requests: Amounts = Field(default_factory=dict)
    limits: Amounts = Field(default_factory=dict)


class Storage(Part):
    """A volume: the coordinator's keeps the checkpoint and the model, a learner's what it must not forget."""

    size: Quantity = "1Gi"
    storage_class_name: str | None = Field(default=None, min_length=1, max_length=253)


class Site(Part):
    """What is different for one learner."""

    name: SiteName
    location: str | None = Field(default=None, min_length=1, max_length=1024)
    image: str | None = Field(default=None, min_length=1, max_length=512)
    gpus: Gpus | None = None
    resources: Resources | None = None
    pod_overrides: PodOverrides | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """What one learner gets: its site's, and what all have where the site says nothing."""

    site: str | None
    location: str
    image: str | None
    gpus: Gpus | None
    resources: Resources
    pod_overrides: tuple[PodOverrides, ...]
    """Those of all learners, and over them those of the site."""


class Learners(Part):
    """The learners: how many, what they run, where their data is."""

    count: int | None = Field(default=None, ge=1, le=256)
    sites: Annotated[tuple[Site, ...], Field(max_length=256)] | None = None
    location: str = Field(default="{index}/{count}", min_length=1, max_length=1024)
    image: str | None = Field(default=None, min_length=1, max_length=512)
    imports: Annotated[tuple[ModuleName, ...], Field(max_length=16)] = ()
    code_from: CodeFrom | None = None
    gpus: Gpus | None = None
    resources: Resources = Field(default_factory=Resources)
    storage: Storage | None = None
    pod_overrides: PodOverrides | None = None
    egress: EgressRules | None = None

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.sites) if self.sites is not None else self.count or 0

    def learner(self, index: int) -> Learner:
        """Return what the learner of this index gets."""
        site = self.sites[index] if self.sites is not None else None
        location = (site.location if site else None) or self.location
        overrides = (self.pod_overrides, site.pod_overrides if site else None)
        return Learner(
            site=site.name if site else None,
            location=location.replace("{index}", str(index))
            .replace("{count}", str(self.size))
            .replace("{site}", site.name if site else "{site}"),
            image=(site.image if site else None) or self.image,
            gpus=(site.gpus if site else None) or self.gpus,
            resources=(site.resources if site else None) or self.resources,
            pod_overrides=tuple(override for override in overrides if override is not None),
        )

    @property
    def code_config_map(self) -> str | None:
        """The ConfigMap whose files are put on the import path."""
        return self.code_from.config_map_ref.name if self.code_from else None


class Coordinator(Part):
    """The pod that drives the rounds."""

    resources: Resources = Field(default_factory=Resources)
    storage: Storage = Field(default_factory=Storage)
    pod_overrides: PodOverrides | None = None
    egress: EgressRules | None = None


class Backoff(Part):
    """How pods that crash are tried again."""

    limit: int = Field(default=5, ge=0, le=1000)
    initial_seconds: int = Field(default=10, ge=1, le=3600)
    max_seconds: int = Field(default=300, ge=1, le=86_400)

    def delay(self, failures: int) -> float:
        """Return the least time between two pods after so many crashes in a row."""
        # The exponent is bounded, because a float is.
        return float(min(self.max_seconds, self.initial_seconds * 2 ** min(max(failures - 1, 0), 20)))


class Policy(Part):
    """Quorum, deadlines, how often pods may crash, and what is left at the end."""

    min_learners: int | None = Field(default=None, ge=1, le=256)
    round_timeout_seconds: int = Field(default=600, ge=1, le=604_800)
    pre_running_deadline_seconds: int = Field(default=900, ge=1, le=604_800)
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=31_536_000)
    backoff: Backoff = Field(default_factory=Backoff)
    clean_pods: Literal["Running", "All", "None"] = "Running"
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=2_147_483_647)


class SecretRef(Part):
    """A Secret beside the task."""

    name: ObjectName


class Result(Part):
    """What becomes of the model at the end, and who is told of rounds."""

    formats: Formats = ("safetensors",)
    location: Url | None = None
    secret_ref: SecretRef | None = None
    mlflow: TrackingUrl | None = None
    tensor_board: Folder | None = None

    @property
    def secret(self) -> str | None:
        """The Secret whose keys are variables of the coordinator."""
        return self.secret_ref.name if self.secret_ref else None

    @property
    def urls(self) -> tuple[str, ...]:
        """Whom the coordinator speaks with for all this."""
        return tuple(url for url in (self.location, self.mlflow, self.tensor_board) if url and "://" in url)


class Tls(Part):
    """How the coordinator and the learners know each other."""

    # To YAML an unquoted Off is false, so that is what arrives of `mode: Off`.
    mode: Annotated[Literal["Mutual", "Off"], BeforeValidator(lambda mode: "Off" if mode is False else mode)] = "Mutual"


class CollectiveTaskSpec(Part):
    """The ``spec`` of a task, with every default filled in."""

    model: Model
    data_loader: DataLoader
    rounds: int = Field(ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    strategy: Strategy = Field(default_factory=Strategy)
    stop: Stop | None = None
    learners: Learners
    coordinator: Coordinator = Field(default_factory=Coordinator)
    policy: Policy = Field(default_factory=Policy)
    result: Result = Field(default_factory=Result)
    queue_name: QueueName | None = None
    managed_by: Literal["collectivelearning.dev/operator", "kueue.x-k8s.io/multikueue"] | None = None
    suspend: bool = False
    tls: Tls = Field(default_factory=Tls)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveTask:
    """One valid task: its identity in the cluster and its spec."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: CollectiveTaskSpec
    abort: str | None = None
    """Why somebody ends the task, empty when that is not told; None when nobody does."""
    retry: str = ""
    """The time of the failure after which somebody has the task tried again."""

    @property
    def min_learners(self) -> int:
        """The quorum: below it no round starts."""
        return self.spec.policy.min_learners or self.spec.learners.size


def is_managed_elsewhere(manifest: Mapping[str, Any]) -> bool:
    """Tell, also of a task that nobody has checked yet, whether another controller is to see to it."""
    spec = manifest.get("spec")
    manager = spec.get("managedBy") if isinstance(spec, Mapping) else None
    return isinstance(manager, str) and manager not in ("", OPERATOR)
