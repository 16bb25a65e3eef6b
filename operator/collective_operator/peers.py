"""NetworkPolicyPeers on the command line: a JSON list, which is what Helm writes of a chart's value."""

from __future__ import annotations

import json
from typing import Any

import click

from collective_operator.api.network import PEER, PEER_FIELDS


def peers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[dict[str, Any], ...]:
    """Read them; a callback of click's options.

    Raises
    ------
    click.BadParameter
        It is no JSON, or no list of peers.
    """
    try:
        found = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no JSON: {error}", context, parameter) from error
    if not isinstance(found, list):
        raise click.BadParameter(f"{value!r} is no list of NetworkPolicyPeers", context, parameter)
    for peer in found:
        if not isinstance(peer, dict) or not peer or not peer.keys() <= set(PEER_FIELDS):
            told = f"{json.dumps(peer)} is no NetworkPolicyPeer: it {PEER}"
            raise click.BadParameter(told, context, parameter)
    return tuple(found)
