"""The configuration: what is read, and the one clear error for what is not."""

from __future__ import annotations

import copy
import json
import math

import pytest

from collective_coordinator.config import ConfigError, parse_config
from collective_coordinator.setup import setup_request
from collective_learner.wire import interface_pb2 as pb

GOOD = {
    "version": 1,
    "task": {"namespace": "default", "name": "digits", "uid": "uid"},
    "model": {"name": "SKLEARN_DIGITS", "parameters": {}},
    "dataLoader": {"name": "DIGITS", "parameters": {"skew": 0.5}},
    "rounds": 20,
    "seed": 7,
    "strategy": {"type": "Vote", "vote": {"threshold": 0.25}},
    "learners": [
        {"name": "learner-0", "address": "a:1", "location": "0/2"},
        {"name": "learner-1", "address": "b:1", "location": "1/2"},
    ],
    "policy": {"minLearners": 1, "roundTimeoutSeconds": 60, "preRunningDeadlineSeconds": 90},
}


def changed(path: str, value: object) -> str:
    document = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    at: object = document
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document)


def test_the_whole_is_read():
    config = parse_config(json.dumps(GOOD))
    assert (config.rounds, config.seed, config.strategy.threshold) == (20, 7, "0.25")
    assert [learner.location for learner in config.learners] == ["0/2", "1/2"]
    policy = config.policy
    assert (policy.min_learners, policy.round_timeout_s, policy.pre_running_deadline_s) == (1, 60, 90)


def test_what_may_be_left_out_has_defaults():
    document = {key: value for key, value in GOOD.items() if key not in ("seed", "strategy", "policy")}
    config = parse_config(json.dumps(document))
    assert config.seed is None
    assert (config.strategy.type, config.strategy.threshold) == ("Vote", "0.5")
    assert (config.policy.min_learners, config.policy.round_timeout_s, config.policy.pre_running_deadline_s) == (
        2,
        600,
        900,
    )


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("version", ..., "version: is missing"),
        ("version", 2, "version: 2 is not known here"),
        ("task", [], "task: [] is not an object"),
        ("task.name", "", 'task.name: "" is not a text'),
        ("model", ..., "model: is missing"),
        ("model.name", ..., "model.name: is missing"),
        ("model.parameters", [1], "model.parameters: [1] is not an object"),
        ("dataLoader.name", 5, "dataLoader.name: 5 is not a text"),
        ("rounds", 0, "rounds: 0 is not a whole number from 1 to 100000"),
        ("rounds", 2.5, "rounds: 2.5 is not a whole number"),
        ("rounds", True, "rounds: true is not a whole number"),
        pytest.param("rounds", 10**400, "rounds: 1000000", id="rounds-larger than any float"),
        ("rounds", math.inf, "rounds: Infinity is not a whole number"),
        pytest.param("policy.roundTimeoutSeconds", 10**400, "Seconds: 1000000", id="seconds-larger than any float"),
        ("policy.roundTimeoutSeconds", math.nan, "policy.roundTimeoutSeconds: NaN is not a number"),
        ("rounds", "20", 'rounds: "20" is not a whole number'),
        ("seed", -1, "seed: -1 is not a whole number from 0 to 4294967295"),
        ("strategy.type", "Guess", "strategy.type: 'Guess' is not one of Vote"),
        ("strategy.vote.threshold", 1.5, "strategy.vote.threshold: 1.5 is not a number from 0 to 1"),
        ("strategy.vote.threshold", "most", 'strategy.vote.threshold: "most" is not a number'),
        ("learners", [], "learners: [] is not a list of at least one learner"),
        ("learners.1.address", ..., "learners[1].address: is missing"),
        ("learners.1.name", "learner-0", "learners: the name 'learner-0' stands more than once"),
        ("learners.1.address", "a:1", "learners: the address 'a:1' stands more than once"),
        ("policy.minLearners", 3, "policy.minLearners: 3 is not a whole number from 1 to 2"),
        ("policy.roundTimeoutSeconds", 0, "policy.roundTimeoutSeconds: 0 is not a number from 0.001"),
    ],
)
def test_what_is_wrong_is_named(path, value, told):
    with pytest.raises(ConfigError) as refused:
        parse_config(changed(path, value))
    assert told in str(refused.value)


def test_what_cannot_be_read_is_no_json():
    for text in ("{", "[" * 100_000, "9" * 5000):
        with pytest.raises(ConfigError, match="is no JSON"):
            parse_config(text)


def test_what_a_newer_operator_writes_is_only_logged(caplog):
    assert parse_config(changed("policy.patience", 3)).rounds == 20
    assert "policy.patience: not known" in caplog.text


@pytest.mark.parametrize(
    ("path", "value", "identity", "fingerprint"),
    [
        ("learners.0.address", "c:1", True, True),
        ("task.uid", "other", True, True),
        ("rounds", 30, True, False),
        ("strategy.vote.threshold", 1, True, False),
        ("policy.minLearners", 2, True, False),
        ("seed", 8, False, False),
        ("model.parameters", {"a": 1}, False, False),
        ("dataLoader.name", "OTHER", False, False),
    ],
)
def test_what_makes_another_task_and_what_another_verdict(path, value, identity, fingerprint):
    one, other = parse_config(json.dumps(GOOD)), parse_config(changed(path, value))
    assert (one.identity() == other.identity()) is identity
    assert (one.fingerprint() == other.fingerprint()) is fingerprint


def supported(loader: str, model: str) -> pb.ResponseSupportedSystem:
    return pb.ResponseSupportedSystem(
        data_loaders=[pb.DatasetLoaderSpec(name="DIGITS", default_parameters=loader)],
        model_architectures=[pb.ModelArchSpec(name="SKLEARN_DIGITS", default_parameters=model)],
    )


@pytest.mark.parametrize(
    ("set_here", "declared", "sent"),
    [
        ({}, '{"seed": 0}', {"seed": 7}),
        ({"seed": 3}, '{"seed": 0}', {"seed": 3}),
        ({}, "{}", {}),
        ({}, "no JSON", {}),
        ({}, "[1]", {}),
        ({}, "[" * 5000, {}),
    ],
)
def test_the_seed_goes_where_it_is_declared(set_here, declared, sent):
    config = parse_config(changed("model.parameters", set_here))
    request = setup_request(config, config.learners[1], supported("{}", declared))
    assert json.loads(request.model_parameters) == sent
    assert json.loads(request.dataset_loader_parameters) == {"skew": 0.5, "location": "1/2"}
    assert (request.seed, request.model_arch_name, request.dataset_loader_name) == (7, "SKLEARN_DIGITS", "DIGITS")
