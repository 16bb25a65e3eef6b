"""What the controller asks of a cluster, so that one reconcile serves Kubernetes and a laptop alike.

Objects are plain Kubernetes manifests (dicts). They have deterministic names and are listed anew before anything is
done to them, so a create that finds its object there, and a delete that finds it gone, are both successes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collective_operator.securing import Secure

Manifest = dict[str, Any]
"""A Kubernetes object as JSON has it."""


@dataclass(frozen=True, slots=True)
class TaskKey:
    """Names one CollectiveTask."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The children of one task as the API has them now, by name; only what the task owns (by uid)."""

    pods: Mapping[str, Manifest] = field(default_factory=dict)
    services: Mapping[str, Manifest] = field(default_factory=dict)
    config_maps: Mapping[str, Manifest] = field(default_factory=dict)
    volume_claims: Mapping[str, Manifest] = field(default_factory=dict)
    network_policies: Mapping[str, Manifest] = field(default_factory=dict)
    absent_config_maps: frozenset[str] = frozenset()
    """ConfigMaps of somebody else that the task names and that are not there.  A pod that mounts one never starts, and
    only an Event would say why."""
    credentials_due: bool = False
    """It is time to look at the Secrets of all pods."""
    progress: Mapping[str, Any] | None = None
    """What the coordinator answered on /status just now; None when it did not answer or does not run."""
    silent_seconds: float = 0
    """How long a coordinator that runs has not answered, as far as anyone here knows."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Children that the cluster would not create not long ago, and its words: it is not to be asked for them yet."""
    refused_seconds: float = 0
    """For how long."""
    unsecured: Mapping[str, str] = field(default_factory=dict)
    """Pods whose key or certificate could not be made or renewed at the last look at it, and why."""
    put_back: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Children that something in the cluster puts back as soon as they are written, such as a webhook: by kind and name
    the version that is not to be written again."""
    may_release: bool = True
    """Whether Kueue's hold may be taken off pods."""
    complaints: Mapping[str, str] = field(default_factory=dict)
    """What Kubernetes says in Events of pods that it cannot make, by the pod's name."""
    remembered: bool = False
    """Whether all but progress is what was seen or told before: enough to see that nothing is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """What became of a look at credentials."""

    refused: Mapping[str, str] = field(default_factory=dict)
    """What the cluster would not let be made, by the pod that needs it."""
    renewed: tuple[str, ...] = ()
    """Secrets that were there and had to be made anew, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """One Kubernetes Event about a task."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def named_config_map(task: Mapping[str, Any]) -> str | None:
    """Name the ConfigMap that a task takes its modules from; also of a task that nobody has checked yet."""
    found: Any = task.get("spec")
    for member in ("learners", "codeFrom", "configMapRef", "name"):
        found = found.get(member) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and found else None


class ClusterError(Exception):
    """The cluster did not do what it was asked.

    ``status`` is the HTTP status, 0 where there was none (nothing answered).
    """

    def __init__(self, *, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message

    @property
    def refused(self) -> bool:
        """Whether the request itself was turned down (a quota, a policy, a name taken), and asking again is no help."""
        return self.denied or (400 <= self.status < 500 and self.status not in (401, 408, 429))

    @property
    def denied(self) -> bool:
        """Whether admission turned it down: a webhook does so with whatever status it likes.

        One that cannot be asked, or answers what makes no sense, turns down, too: that may last, and nobody else would
        tell.
        """
        by_webhook = "admission webhook " in self.message and " denied the request" in self.message
        return (
            by_webhook or self.unasked or (self.status == 500 and self.message.startswith("Internal error occurred: "))
        )

    @property
    def unasked(self) -> bool:
        """Whether an admission webhook could not be asked."""
        return self.status == 500 and "failed calling webhook" in self.message

    @property
    def conflict(self) -> bool:
        """Whether something of that name is there, or was written by somebody else meanwhile."""
        return self.status == 409 and not self.denied


class Cluster(Protocol):
    """A place where tasks have children."""

    async def get_task(self, key: TaskKey, *, anew: bool = True) -> Manifest | None:
        """Read the task; None when it is gone.  What is remembered of it will do where it need not be read anew."""

    async def observe(self, task: Manifest, *, anew: bool = True) -> Observed:
        """List the task's children, and ask its coordinator how far it is.

        Where they need not be listed anew, what is remembered of them will do; the coordinator is asked in any case.
        """

    async def create(self, manifest: Manifest, *, strictly: bool = True) -> None:
        """Create a child; its being there already is fine, something else of its name raises ClusterError.

        Strictly, a member that such an object does not have is refused, and else dropped.
        """

    async def update(self, manifest: Manifest) -> None:
        """Replace a child that was observed, if it is still as it was; that it is not raises ClusterError."""

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this child (by uid), or the task itself; its being gone is fine."""

    async def release(self, pod: Manifest) -> None:
        """Take Kueue's hold off exactly this pod; that it may not be taken off is no error, and told elsewhere."""

    async def secure(self, task: Manifest, action: Secure) -> Secured:
        """See to it that credentials are there and good."""

    async def update_status(self, task: Manifest, status: Mapping[str, Any]) -> None:
        """Replace the task's status."""

    def emit(self, task: Manifest, events: Sequence[TaskEvent]) -> None:
        """Have events about the task published; nobody waits for it, and one may be lost."""
