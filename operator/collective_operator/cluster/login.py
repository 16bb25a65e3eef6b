"""Logging in by a kubeconfig; of one that is not as it should be, one line says why.

The official client's loader takes what YAML gives as it comes, so that anything may be raised of a file that is empty,
of another kind, or names what is not there.  Of a credential plugin that fails it only logs, and goes on as nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

import yaml
from kubernetes.aio import config
from kubernetes.aio.config import ConfigException

_LOADER_LOG = "kubernetes.aio.config.kube_config"


async def log_in(configuration: Any, *, kubeconfig: str | None, context: str | None) -> str | None:
    """Log in as a context says, and return the namespace that it names.

    A credential plugin is asked again when what it gave is about to expire: `watch` outlives most tokens.

    Parameters
    ----------
    configuration
        The official client's; gets what the context says.
    kubeconfig, context
        Others than `kubectl` would take by default.

    Raises
    ------
    kubernetes.aio.config.ConfigException
        There is no such kubeconfig or context, or it does not say enough.
    """
    with readable(kubeconfig), _no_complaint():
        loader = await cast("Any", config).load_kube_config(
            config_file=kubeconfig, context=context, client_configuration=configuration
        )
        named: str | None = loader.current_context["context"].get("namespace")

    async def renew(renewed: Any) -> None:
        await loader.load_from_exec_plugin()
        renewed.api_key["BearerToken"] = loader.token

    if hasattr(loader, "exec_plugin_expiry"):
        configuration.refresh_api_key_hook = renew
    return named


class _Complaints(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _no_complaint() -> Iterator[None]:
    """Raise what the loader would only log."""
    heard, log = _Complaints(), logging.getLogger(_LOADER_LOG)
    log.addHandler(heard)
    try:
        yield
    finally:
        log.removeHandler(heard)
    if heard.said:
        raise ConfigException(f"the credential plugin: {heard.said[0].removeprefix('exec: ')}")


@contextmanager
def readable(kubeconfig: str | None) -> Iterator[None]:
    """Say of a login that cannot be read what is wrong.

    Raises
    ------
    ConfigException
        For whatever the loader raised.
    """
    where = kubeconfig or "kubeconfig"
    try:
        yield
    except yaml.YAMLError as error:
        why = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigException(f"{where}: is no YAML: {why}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise ConfigException(f"{where}: something in it is missing, or of another kind: {error}") from error
    except (ValueError, OSError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        raise ConfigException(f"{where}: cannot be used: {why}") from error


def check_address(host: str) -> None:
    """Refuse what is no address of an API server.

    Raises
    ------
    ValueError
        It is none.
    """
    address = urlsplit(host)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{host!r} is no address of an API server")
    if address.username is not None:
        raise ValueError("the address of the API server has a user in it, whose place is under users")
