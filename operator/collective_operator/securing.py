"""The one decision about keys and certificates: whose are looked at now.

Those of a pod that is about to be created, since a pod whose Secret is missing hangs and says so nowhere. And from time
to time those of all pods: they are to be renewed before they expire, and somebody may have deleted one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from collective_operator.api import CollectiveTask
from collective_operator.desired import Platform
from collective_operator.desired.credentials import Credential, credentials


@dataclass(frozen=True, slots=True)
class Secure:
    """See to it that credentials are there and good, before anything else is done; make or renew those that are not."""

    credentials: tuple[Credential, ...]
    """Those to look at."""
    all: tuple[Credential, ...]
    """Those of all pods: when the authority itself has to be made anew, so have they."""
    begins: bool = False
    """All pods are made now, so most likely none of it is there."""


def securing(task: CollectiveTask, platform: Platform, *, created: Collection[str], due: bool) -> Secure | None:
    """Decide whose credentials to look at.

    Parameters
    ----------
    created
        The pods that are created now.
    due
        It is time to look at those of all.
    """
    if not (created or due):
        return None
    everyone = tuple(credentials(task, platform))
    chosen = everyone if due else tuple(credential for credential in everyone if credential.pod in created)
    begins = all(credential.pod in created for credential in everyone)
    return Secure(chosen, everyone, begins) if chosen else None
