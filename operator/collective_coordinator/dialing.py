"""How learners are reached: in plain text, or over TLS with the certificates that are in force now.

A learner of this coordinator's own domain is dialled by the short name that its resolver completes at the first try. A
longer one is tried with all of the resolver's search list, and may be too long for DNS with the first of it.

A channel keeps the certificates that it was made with, and connects anew by itself for as long as it lives. So it is to
be replaced when they are renewed, or it would one day show a learner one that has expired.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import grpc

from collective_learner.tls import Pems, TlsError, TlsFiles
from collective_learner.wire.parts import MAX_MESSAGE_BYTES

LOG = logging.getLogger(__name__)

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # also how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # What a learner may send before anybody reads it: probing would let it grow to many megabytes for each of dozens.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 18),
    ("grpc.enable_retries", 0),  # nothing here may be sent twice, and retries buffer what they might repeat
    ("grpc.enable_http_proxy", 0),  # learners are addressed directly
)

LOOK_S = 10.0
"""Between two looks at the files, where nothing has to be dialled."""


class Dialer:
    """Makes channels.

    Parameters
    ----------
    tls
        Keys and certificates; None dials in plain text.
    domain
        Where this program's resolver looks for names first: hosts in it are dialled without it. Empty: nowhere.

    Raises
    ------
    TlsError
        They cannot be used.
    """

    def __init__(self, tls: TlsFiles | None = None, *, domain: str = "") -> None:
        self._tls = tls
        self._domain = domain
        self._pems: Pems | None = tls.read() if tls else None
        self._version = 0
        self._looked = time.monotonic()
        self._told = ""

    def channel(self, address: str) -> grpc.aio.Channel:
        """Make a channel to a learner, whose certificate must be for the whole host of this address."""
        self._look()
        options, (host, _, port) = CHANNEL_OPTIONS, address.rpartition(":")
        if self._domain and host.endswith(suffix := f".{self._domain}"):
            address = f"{host.removesuffix(suffix)}:{port}"
            options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", host))
        if self._pems is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, self._pems.for_client(), options=options)

    @property
    def version(self) -> int:
        """How often the certificates have been renewed; a channel made at another version is out of date."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()
        return self._version

    def _look(self) -> None:
        """Read the files anew; what cannot be used leaves what is in force in force."""
        if self._tls is None:
            return
        self._looked = time.monotonic()
        try:
            pems = self._tls.read()
        except TlsError as error:
            if str(error) != self._told:
                self._told = str(error)
                LOG.warning("the certificate is not renewed: %s", error)
            return
        self._told = ""
        if pems != self._pems:
            self._pems = pems
            self._version += 1
            LOG.info("the certificate is renewed")
