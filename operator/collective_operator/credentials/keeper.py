"""Keeps the Secrets of tasks: gets each by its name, makes those that are missing, and renews those that are old.

Nothing here is remembered. What is there is judged anew each time, so whoever was killed between two Secrets, or found
that another had made one first, only has to look again. The authority is settled before anything is signed, and its
Secret is what two operators at once agree by: a second one of that name is a conflict.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from collective_operator.cluster.api_server import ApiServer
from collective_operator.cluster.protocol import ClusterError, Manifest, Secured
from collective_operator.credentials.certificates import (
    KeyPair,
    Signer,
    flaw,
    flaw_of_authority,
    issue,
    new_authority,
    signer_of,
)
from collective_operator.desired.credentials import Credential
from collective_operator.securing import Secure

_CERTIFICATE, _KEY, _AUTHORITY = "tls.crt", "tls.key", "ca.crt"
_AUTHORITY_LIVES = 40
"""Lives of a certificate, about ten years: no task outlives its authority."""
_AT_ONCE = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Authority:
    pair: KeyPair
    signer: Signer
    is_new: bool


class Keeper:
    """Carries out `Secure`.

    Parameters
    ----------
    api
        Where Secrets are.
    life
        How long a certificate is valid; it is renewed after two thirds of it.
    clock
        Tells the time, with a time zone.
    """

    def __init__(self, *, api: ApiServer, life: timedelta, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._life = life
        self._clock = clock

    async def secure(self, action: Secure) -> Secured:
        """See to it that credentials are there and good.

        Returns
        -------
        Secured
            What the cluster would not let be made, by the pod that cannot do without; and what was made for pods that
            are there.

        Raises
        ------
        ClusterError
            The cluster cannot be asked, or somebody else wrote at the same time: look again.
        """
        first = action.all[0]
        try:
            authority = await self._authority(first.authority, begins=action.begins)
        except ClusterError as error:
            if not error.refused or error.conflict:
                raise
            name = first.authority["name"]
            return Secured(refused={each.pod: f"{name}: {error.message}" for each in action.credentials})
        looked = action.all if authority.is_new else action.credentials
        # With a new authority none is there, most of the time: a task that begins.  One after the other they take a
        # third of the time that they take between requests.
        issued = {each.pod: self._issued(each, authority) for each in looked} if authority.is_new else {}
        refused: dict[str, str] = {}
        renewed: list[str] = []
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look(credential: Credential) -> None:
            async with gate:
                try:
                    why = await self._look(credential, authority, issued.get(credential.pod))
                except ClusterError as error:
                    if not error.refused or error.conflict:
                        raise
                    refused[credential.pod] = f"{credential.metadata['name']}: {error.message}"
                    return
            if why:
                renewed.append(f"{credential.metadata['name']}: {why}")

        await _all(looked, look)
        for line in sorted(renewed):
            _log.info("%s/%s", first.metadata["namespace"], line)
        return Secured(refused=refused, renewed=tuple(sorted(renewed)))

    async def _authority(self, metadata: Manifest, *, begins: bool) -> _Authority:
        there = None if begins else await self._get(metadata)
        if there is None:
            pair = self._new_authority(metadata)
            there = await self._made(metadata, pair, authority=pair)
            if there is None:
                return _Authority(pair, signer_of(pair), is_new=True)
        found = _pair(there)
        why = flaw_of_authority(found, now=self._clock())
        if why is None:
            return _Authority(found, signer_of(found), is_new=False)
        pair = self._new_authority(metadata)
        await self._replace(there, pair, authority=pair)
        _log.warning("%s/%s is made anew: %s", metadata["namespace"], metadata["name"], why)
        return _Authority(pair, signer_of(pair), is_new=True)

    def _new_authority(self, metadata: Manifest) -> KeyPair:
        # All of a task's names fit into a certificate's common name.
        return new_authority(metadata["name"], now=self._clock(), life=self._life * _AUTHORITY_LIVES)

    async def _look(self, credential: Credential, authority: _Authority, issued: KeyPair | None) -> str | None:
        """See to one credential; tell why it was made anew, when it had been there."""
        there = None if issued else await self._get(credential.metadata)
        if there is None:
            pair = issued or self._issued(credential, authority)
            there = await self._made(credential.metadata, pair, authority=authority.pair)
            if there is None:
                return None
        certificate = authority.pair.certificate
        why = flaw(_pair(there), authority=certificate, name=credential.name, usage=credential.usage, now=self._clock())
        if why is None and _decoded(there, _AUTHORITY) != certificate:
            why = "it trusts another authority"
        if why is not None:
            await self._replace(there, self._issued(credential, authority), authority=authority.pair)
        return why

    def _issued(self, credential: Credential, authority: _Authority) -> KeyPair:
        return issue(authority.signer, name=credential.name, usage=credential.usage, now=self._clock(), life=self._life)

    async def _get(self, metadata: Manifest) -> Manifest | None:
        """Get a Secret of the task's own; None where there is none."""
        try:
            found = await self._api.request("GET", _path(metadata), verb="get", resource="secrets")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        owner = metadata["ownerReferences"][0]["uid"]
        if not any(each["uid"] == owner for each in found["metadata"].get("ownerReferences") or ()):
            raise ClusterError(status=403, message="a Secret of this name exists and is not this task's")
        return found

    async def _made(self, metadata: Manifest, pair: KeyPair, *, authority: KeyPair) -> Manifest | None:
        """Make a Secret; return the one that is there already, which a full quota must not hide."""
        try:
            await self._create(metadata, pair, authority=authority)
        except ClusterError as error:
            there = await self._get(metadata) if error.refused else None
            if there is None:
                raise
            return there
        return None

    async def _create(self, metadata: Manifest, pair: KeyPair, *, authority: KeyPair) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": _data(pair, authority),
        }
        await self._api.send("POST", _collection(metadata), verb="create", resource="secrets", body=body)

    async def _replace(self, there: Manifest, pair: KeyPair, *, authority: KeyPair) -> None:
        """Write a Secret anew, if it is still as it was read."""
        body = {"apiVersion": "v1", "kind": "Secret", **there, "data": _data(pair, authority)}
        await self._api.send("PUT", _path(there["metadata"]), verb="update", resource="secrets", body=body)


async def _all(credentials: Sequence[Credential], look: Callable[[Credential], Any]) -> None:
    """Look at all, and let what goes wrong with one wait until all are done."""
    errors = [
        error
        for error in await asyncio.gather(*map(look, credentials), return_exceptions=True)
        if isinstance(error, BaseException)
    ]
    if errors:
        raise errors[0]


def _data(pair: KeyPair, authority: KeyPair) -> dict[str, str]:
    plain = {_CERTIFICATE: pair.certificate, _KEY: pair.key, _AUTHORITY: authority.certificate}
    return {key: base64.b64encode(value).decode() for key, value in plain.items()}


def _pair(secret: Manifest) -> KeyPair:
    return KeyPair(_decoded(secret, _CERTIFICATE), _decoded(secret, _KEY))


def _decoded(secret: Manifest, key: str) -> bytes:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "", validate=True)
    except binascii.Error:
        return b""


def _collection(metadata: Manifest) -> str:
    return f"/api/v1/namespaces/{metadata['namespace']}/secrets"


def _path(metadata: Manifest) -> str:
    return f"{_collection(metadata)}/{metadata['name']}"
