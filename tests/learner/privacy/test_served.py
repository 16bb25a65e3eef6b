"""A learner that is served, killed and started again: it knows what it has spent, or does not train."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from collective_learner import ErrorCodes, GRPCLearnerClient, GRPCServer
from collective_learner.cli import serve
from collective_learner.connection import LearnerCallError
from collective_learner.environment import STATE_DIR
from collective_learner.privacy.ledger import LedgerError, open_ledger

pytest.importorskip("opacus", reason="needs the extra torch-dp")
pytest.importorskip("sklearn", reason="needs the extra sklearn")

PRIVATE = {"target_epsilon": 1.6, "target_delta": 1e-3, "max_grad_norm": 1.0, "noise_multiplier": 1.5}


class Learner:
    """A server with a state folder, and a client of it."""

    def __init__(self, servers, *options: str) -> None:
        self.server = servers.start(*options, program=("-m", "collective_learner", "--import=collective_learner.tasks"))
        self.client = GRPCLearnerClient("learner", self.server.address)
        self.client.start()

    def set_up(self) -> None:
        self.client.setup_ml(
            dataset_loader_name="BREAST_CANCER",
            dataset_loader_parameters=json.dumps({"location": "0/1", "batch_size": 32}),
            model_arch_name="TORCH_BREAST_CANCER",
            model_parameters=json.dumps({"epochs": 1, "diff_priv_config": PRIVATE}),
        )

    def kill(self) -> None:
        self.client.stop()
        self.server.process.kill()
        self.server.wait()


def test_what_is_spent_survives_kill_9_and_a_lost_ledger_is_refused(servers, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    told = []
    learner = Learner(servers, f"--state-dir={folder}")
    learner.set_up()
    for _ in range(2):
        told.append(learner.client.mli_propose_weights().training_summary)
    learner.set_up()  # anew, in the same process
    told.append(learner.client.mli_propose_weights().training_summary)
    learner.kill()

    learner = Learner(servers, f"--state-dir={folder}")
    ledger = (folder / "privacy.ledger").rename(tmp_path / "elsewhere")
    with pytest.raises(LearnerCallError, match=r"privacy\.ledger is missing although"):
        learner.set_up()
    assert not (folder / "privacy.ledger").exists()
    ledger.rename(folder / "privacy.ledger")  # somebody found it
    learner.set_up()
    while told[-1].error_code is ErrorCodes.NONE:
        assert len(told) < 50
        told.append(learner.client.mli_propose_weights().training_summary)
    spent = [summary.dp_budget.consumed_epsilon for summary in told]
    assert len(spent) > 3 and spent[:-1] == sorted(set(spent)) and spent[-1] == spent[-2] <= 1.6
    assert told[-1].error_code is ErrorCodes.DP_BUDGET_EXCEEDED
    learner.kill()


def test_a_server_without_a_folder_says_so_to_its_learners(monkeypatch) -> None:
    monkeypatch.delenv(STATE_DIR, raising=False)
    told = []
    monkeypatch.setattr(GRPCServer, "run", lambda self, prepare: told.append(os.environ[STATE_DIR]))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for options in ([], ["--state-dir=here"]):
        assert CliRunner().invoke(serve, ["--port=0", "--metrics-port=0", *options]).exit_code == 0
    assert told == ["", "here"]
    with pytest.raises(LedgerError, match="no folder for the ledger"):
        open_ledger("", data="data")
