"""What a look at a task may come to: changes to its children, a status, Events, and when to look again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collective_operator.cluster.protocol import Manifest, TaskEvent
from collective_operator.securing import Secure


@dataclass(frozen=True, slots=True)
class Create:
    """Create a child."""

    manifest: Manifest
    again: bool = False
    """One like it was there before, and so was taken."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this child, or the task itself."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Update:
    """Replace exactly this child."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Release:
    """Take Kueue's hold off exactly this pod."""

    manifest: Manifest


Action = Create | Delete | Update | Release

_FEW_PODS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do about one child."""

    actions: tuple[Action, ...] = ()
    events: tuple[TaskEvent, ...] = ()
    wait: float | None = None
    """Seconds after which to look at it again; None when only an event can change anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now."""

    secure: Secure | None = None
    """Whose keys to see to, before anything else."""
    actions: tuple[Action, ...] = ()
    status: dict[str, Any] | None = None
    """The task's new status, whole; None when it stays as it is."""
    events: tuple[TaskEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, if nothing happens before; None when only an event can change anything."""
    final: bool = False
    """The status says what cannot be taken back: that the task is over, or that none of its pods is there."""
    accepts: bool = False
    """The status says that the task is accepted, or goes on, and its pods are to be made next."""

    @property
    def starts(self) -> bool:
        """Whether this begins a task, or makes many pods of it: work that can wait, where much else is to be done."""
        pods = [action for action in self.actions if isinstance(action, Create) and action.manifest["kind"] == "Pod"]
        return self.accepts or len(pods) > _FEW_PODS

    @property
    def needs_a_fresh_look(self) -> bool:
        """Whether this must not be decided on what is only remembered."""
        return bool(self.actions) or self.final or self.secure is not None
