"""The coordinator's HTTP port with all of its pages, as hostile pods find it where no NetworkPolicy holds them off."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tests.strangers import besieged, pester

from collective_coordinator.board import Board
from collective_coordinator.config import parse_config
from collective_coordinator.http import application
from collective_coordinator.metrics import Metrics
from collective_web.open_port import MOST_CONNECTIONS, listening

CONFIG = {
    "version": 1,
    "task": {"namespace": "default", "name": "plain", "uid": "u"},
    "model": {"name": "M"},
    "dataLoader": {"name": "D"},
    "rounds": 5,
    "learners": [{"name": "learner-0", "address": "127.0.0.1:1"}],
    "policy": {"minLearners": 1},
}


def test_how_it_is_comes_before_all_that_may_be_long() -> None:
    """For who reads a last word that was cut."""
    first = ["version", "uid", "phase", "reason", "round"]
    assert list(Board(parse_config(json.dumps(CONFIG))).document())[:5] == first


async def test_strangers_neither_fill_the_log_nor_keep_probes_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "rounds.jsonl").write_text("{}\n")
    board = Board(parse_config(json.dumps(CONFIG)))
    pages = application(board, Metrics(), rounds=tmp_path / "rounds.jsonl")
    async with listening(pages, host="127.0.0.1", port=0) as port:
        await pester(port)
        answer, gone = await besieged(port, connections=MOST_CONNECTIONS + 20)
    assert [record.getMessage() for record in caplog.records] == []
    assert answer == b"HTTP/1.1 200 OK\r\n"
    assert gone >= 21, "those that were too many; all at once, a few more"
    assert gone < 100
