"""Watches the configuration's file: a kubelet replaces it when the ConfigMap changes, about a minute later.

By looking at its content every second or so, since the file is a link to a link that changes, of which no notification
tells. What cannot be read, or is none, leaves what is in force in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from collective_coordinator.config import Config, ConfigError, parse_config

LOG = logging.getLogger(__name__)


async def watch(path: Path, config: Config, *, every_s: float, changed: Callable[[Config], None]) -> None:
    """Tell of every change, for ever.

    Parameters
    ----------
    path
        The file.
    config
        What it said at first.
    every_s
        Seconds between two looks.
    changed
        Told of the new configuration.
    """
    seen = told = ""
    while True:
        try:
            text = await asyncio.to_thread(path.read_text, encoding="utf-8")
            if text != seen:
                seen = text
                now = parse_config(text)
                if now != config:
                    config = now
                    changed(config)
                told = ""
        except (OSError, UnicodeError, ConfigError) as error:
            if str(error) != told:
                told = str(error)
                LOG.warning("%s cannot be read anew, the task goes on as it is: %s", path, error)
        await asyncio.sleep(every_s)
