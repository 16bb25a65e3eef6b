"""Kubeconfigs that are not as they should be: one line says why.

The official client's loader takes what YAML gives as it comes, so that anything may be raised of a file that is empty,
of another kind, or names what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import yaml
from kubernetes.aio.config import ConfigException


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
