"""TLS both ways: certificates settle who may speak with a learner, and each side checks the other's name.

Keys and certificates are files, because files are what Kubernetes mounts and replaces in place when they are renewed.
So they are read whenever a connection or a listener is made, all three of one moment, and never kept for long.

gRPC's own way to renew a server's certificate, asking Python for it at every handshake, is avoided: the answer takes
the interpreter's lock, and while a training holds that nobody could connect. A learner that nobody can connect to is
taken for dead. `listener` says how it is done instead.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc

if TYPE_CHECKING:
    from collective_learner.calls import Context

_READS = 5
_VERSION = b"TLSv1.3"


class TlsError(ValueError):
    """Keys or certificates that cannot be used; the message names the files."""


class Pems(NamedTuple):
    """What the three files held at one moment."""

    certificate: bytes
    key: bytes
    authority: bytes

    def for_client(self) -> grpc.ChannelCredentials:
        """Make what a client connects with; it takes a server only by the name that it dialled."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)

    def for_server(self) -> grpc.ServerCredentials:
        """Make what a server listens with; it takes no client without a certificate."""
        pair = (self.key, self.certificate)
        return grpc.ssl_server_credentials([pair], self.authority, require_client_auth=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where one side's key and certificates are, in PEM.

    Parameters
    ----------
    certificate
        This side's certificate, followed by whatever stands between it and its authority.
    key
        Its private key, not encrypted.
    authority
        The certificates of the authorities that sign the other side's.
    """

    certificate: str | os.PathLike[str]
    key: str | os.PathLike[str]
    authority: str | os.PathLike[str]

    def read(self) -> Pems:
        """Read all three, as they are at one moment.

        Raises
        ------
        TlsError
            One cannot be read, or they are no key and certificates, or do not fit together.
        """
        for _ in range(_READS):
            before = self._bytes()
            broken = self._broken()
            if before == self._bytes():  # else they were renewed meanwhile, and what was looked at is a mixture
                if broken:
                    raise TlsError(broken)
                return before
        raise TlsError(f"{self.certificate}, {self.key} and {self.authority} change faster than they can be read")

    def _bytes(self) -> Pems:
        try:
            return Pems(*(Path(path).read_bytes() for path in (self.certificate, self.key, self.authority)))
        except OSError as error:
            raise TlsError(f"{error.filename}: {error.strerror}") from error

    def _broken(self) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password of ours OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            return f"{self.certificate} and {self.key} are no certificate in PEM and its key: {_why(error)}"
        try:
            context.load_verify_locations(self.authority)
        except (ssl.SSLError, OSError) as error:
            return f"{self.authority} holds no certificates in PEM: {_why(error)}"
        return None


def refusal(context: Context, *, clients: Collection[str]) -> str | None:
    """Tell why a call over TLS is not to be answered; None when it is.

    Parameters
    ----------
    context
        Of the call.
    clients
        The names of which a client's certificate must have one; empty for any that the authority has signed.
    """
    found = context.auth_context()
    # gRPC for Python offers no way to refuse an older version in the handshake.
    if (version := found.get("ssl_tls_version")) != [_VERSION]:
        return f"TLS 1.3 is needed, this connection speaks {_text(version)}"
    names = [name.decode(errors="replace") for name in found.get("x509_subject_alternative_name", ())]
    if clients and not set(names) & set(clients):
        return f"the client's certificate is for {', '.join(names) or 'nobody'}, and only {', '.join(clients)} may call"
    return None


def _text(values: object) -> str:
    return b", ".join(values).decode(errors="replace") if isinstance(values, list) and values else "something else"


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror if isinstance(error, OSError) else None
    return reason or str(error)
