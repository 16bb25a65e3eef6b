"""The averaging strategies end to end: real servers, a real coordinator, and the numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file


def averaged(coordinated, learners, **more):
    return coordinated(learners, rounds=more.pop("rounds", 1), **more)


def model(task) -> dict[str, np.ndarray]:
    return load_file(task.state / "model.safetensors")


THREE = ({"target": 2.0, "examples": 1}, {"target": 4.0, "examples": 2}, {"target": 8.0, "examples": 5})


def test_fedavg_weighs_by_examples(vectors, coordinated):
    task = averaged(coordinated, vectors(*THREE), strategy={"type": "FedAvg"})
    verdict = task.run()
    assert verdict["phase"] == "Complete", task.log
    # Halfway to each target from zero: 1, 2 and 4.
    np.testing.assert_allclose(model(task)["w"], (1 * 1 + 2 * 2 + 5 * 4) / 8, rtol=1e-6)
    assert model(task)["steps"] == 1 and model(task)["flag"].tolist() == [True, False]
    (record,) = task.records()
    assert record["strategy"] == "FedAvg" and record["proposer"] is None and record["votes"] == {}
    assert record["trainers"] == ["learner-0", "learner-1", "learner-2"]
    assert verdict["result"]["proposer"] is None and verdict["latest"]["accepted"] is True


def test_a_learner_that_does_not_count_its_examples_makes_all_count_the_same(vectors, coordinated):
    silent = ({"target": 2.0, "examples": 0}, *THREE[1:])
    task = averaged(coordinated, vectors(*silent), strategy={"type": "FedAvg"})
    task.run()
    np.testing.assert_allclose(model(task)["w"], (1 + 2 + 4) / 3, rtol=1e-6)


@pytest.mark.parametrize(("aggregation", "expected"), [("Median", 2.0), ("TrimmedMean", 2.0)])
def test_robust_aggregation(vectors, coordinated, aggregation, expected):
    task = averaged(coordinated, vectors(*THREE), strategy={"type": "FedAvg", "aggregation": aggregation})
    task.run()
    np.testing.assert_allclose(model(task)["w"], expected, rtol=1e-6)


def test_fedprox_tells_the_learners_mu(vectors, coordinated):
    task = averaged(coordinated, vectors(*THREE), strategy={"type": "FedProx", "fedProx": {"mu": 1.0}})
    task.run()
    np.testing.assert_allclose(model(task)["w"], (1 * 1 + 2 * 2 + 5 * 4) / 8 / 2, rtol=1e-6)


def test_a_fraction_trains_and_all_take_the_result(vectors, coordinated):
    task = averaged(coordinated, vectors(*THREE), rounds=6, strategy={"type": "FedAvg", "fedAvg": {"fraction": 0.5}})
    assert task.run()["phase"] == "Complete", task.log
    trained = [tuple(record["trainers"]) for record in task.records()]
    assert all(len(names) == 2 for names in trained) and len(set(trained)) > 1
    assert all(set(record["testScores"]) == {"learner-0", "learner-1", "learner-2"} for record in task.records())


def test_fedopt_keeps_its_momentum_over_a_kill(vectors, coordinated, wait_until):
    learners = vectors({"target": 8.0, "slow": 0.1})
    strategy = {"type": "FedOpt", "fedOpt": {"method": "AvgM", "learningRate": 0.5, "beta1": 0.5}}
    task = averaged(coordinated, learners, rounds=8, strategy=strategy)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 3, "third round")
    process.kill()
    process.wait(60)
    assert task.run()["phase"] == "Complete", task.log
    weights, momentum = 0.0, 0.0
    for _ in range(8):
        momentum = 0.5 * momentum + (8.0 - weights) / 2
        weights += 0.5 * momentum
    np.testing.assert_allclose(model(task)["w"], weights, rtol=1e-5)
    # Counters are averaged, not stepped.
    assert model(task)["steps"] == 8


def test_a_gate_keeps_everyone_where_they_were(vectors, coordinated):
    # The average moves two of three away from where they want to be; the optimizer's state must not move either.
    learners = vectors({"target": -0.5}, {"target": -0.5}, {"target": 100.0, "examples": 5})
    strategy = {
        "type": "FedOpt",
        "fedOpt": {"method": "AvgM", "learningRate": 1.0},
        "gate": {"type": "Vote", "threshold": 0.5},
    }
    task = averaged(coordinated, learners, rounds=3, strategy=strategy)
    verdict = task.run()
    assert verdict["phase"] == "Complete", task.log
    assert [record["accepted"] for record in task.records()] == [False] * 3
    assert task.records()[0]["votes"] == {"learner-0": False, "learner-1": False, "learner-2": True}
    assert model(task)["w"].tolist() == [0.0, 0.0, 0.0]
    assert not list((task.state / "checkpoint").glob("state-*"))


def test_after_a_rejection_the_average_goes_less_far_also_over_a_kill(vectors, coordinated, wait_until):
    near = {"target": 1.0, "slow": 0.1}
    learners = vectors(near, near, {"target": 30.0, "examples": 5})
    strategy = {"type": "FedAvg", "gate": {"type": "Vote", "threshold": 0.5}}
    task = averaged(coordinated, learners, rounds=5, strategy=strategy)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 2, "second round")
    process.kill()
    process.wait(60)
    assert task.run()["phase"] == "Complete", task.log
    # The average of 0.5, 0.5 and five times 15 is too far for two of three, as are its half and its quarter.
    average = (0.5 + 0.5 + 5 * 15) / 7
    assert [record["accepted"] for record in task.records()] == [False, False, False, True, False]
    np.testing.assert_allclose(model(task)["w"], average / 8, rtol=1e-6)
    # Counters have no eighth.
    assert model(task)["steps"] == 1
    told = [record["voteScores"]["learner-0"] for record in task.records()[:4]]
    np.testing.assert_allclose(told, [average / part - 1 for part in (1, 2, 4, 8)], rtol=1e-5)


def test_cyclic_hands_the_model_on(vectors, coordinated):
    task = averaged(coordinated, vectors(*THREE), rounds=3, strategy={"type": "Cyclic"})
    assert task.run()["phase"] == "Complete", task.log
    assert [record["proposer"] for record in task.records()] == ["learner-0", "learner-1", "learner-2"]
    np.testing.assert_allclose(model(task)["w"], ((1.0 + 4) / 2 + 8) / 2, rtol=1e-6)


@pytest.mark.parametrize("fault", ["shape", "nan"])
def test_a_spoilt_update_is_left_out_and_named(vectors, coordinated, wait_until, fault):
    bad = {**THREE[1], "faults": {"2": fault}}
    task = averaged(
        coordinated,
        vectors(THREE[0], bad, THREE[2]),
        rounds=100_000,
        strategy={"type": "FedAvg"},
        policy={"minLearners": 2},
    )
    task.start()
    # The others go on without it, for as many rounds as it takes to have it back.
    wait_until(lambda: any("learner-1" in record["trainers"] for record in task.records()[2:]), "learner-1 among them")
    spoilt = task.records()[1]
    assert spoilt["trainers"] == ["learner-0", "learner-2"] and "learner-1" in spoilt["leftOut"]
    assert np.isfinite(model(task)["w"]).all()


def test_a_straggler_does_not_hold_the_others(vectors, coordinated):
    slow = {**THREE[1], "faults": {"1": "sleep"}}
    task = averaged(
        coordinated,
        vectors(THREE[0], slow, THREE[2], together=False),
        rounds=2,
        strategy={"type": "FedAvg"},
        policy={"minLearners": 2, "roundTimeoutSeconds": 2},
    )
    assert task.run()["phase"] == "Complete", task.log
    first = task.records()[0]
    assert first["trainers"] == ["learner-0", "learner-2"]
    assert "learner-1" in first["leftOut"]
    np.testing.assert_allclose(first["testScores"]["learner-0"], -abs((1 + 5 * 4) / 6 - 2), rtol=1e-5)


def test_a_trainer_that_dies_does_not_spoil_the_round(vectors, coordinated):
    dying = {**THREE[1], "faults": {"1": "die"}}
    task = averaged(
        coordinated,
        vectors(THREE[0], dying, THREE[2], together=False),
        rounds=2,
        strategy={"type": "FedAvg"},
        policy={"minLearners": 2},
    )
    assert task.run()["phase"] == "Complete", task.log
    assert [record["trainers"] for record in task.records()] == [["learner-0", "learner-2"]] * 2


def test_a_good_score_ends_early(vectors, coordinated):
    task = averaged(
        coordinated, vectors({"target": 8.0}), rounds=50, strategy={"type": "FedAvg"}, stop={"testScore": -0.2}
    )
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Complete", "TestScoreReached")
    assert verdict["result"]["rounds"] == 6 and verdict["result"]["testScore"] >= -0.2


def test_no_improvement_ends_early_and_the_best_model_is_kept(vectors, coordinated):
    # A step of three times the average overshoots ever further.
    strategy = {"type": "FedOpt", "fedOpt": {"method": "AvgM", "learningRate": 5.0, "beta1": 0.0}}
    task = averaged(coordinated, vectors({"target": 8.0}), rounds=50, strategy=strategy, stop={"patience": 3})
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Complete", "NoImprovement")
    assert verdict["result"]["rounds"] == 3
    assert load_file(task.state / "best-model.safetensors")["w"].tolist() == [0.0] * 3


def test_who_has_spent_its_privacy_budget_is_no_trainer_any_more(vectors, coordinated):
    learners = vectors({"target": 2.0, "budget": 2}, {"target": 4.0}, {"target": 6.0, "budget": 3})
    task = averaged(coordinated, learners, rounds=5, strategy={"type": "FedAvg"})
    assert task.run()["phase"] == "Complete", task.log
    trainers = [[int(name[-1]) for name in record["trainers"]] for record in task.records()]
    assert trainers == [[0, 1, 2], [0, 1, 2], [1, 2], [1], [1]]
    assert all(len(record["testScores"]) == 3 for record in task.records())
    spent = task.records()[-1]["privacy"]
    assert sorted(spent) == ["learner-0", "learner-2"] and "epsilon 3 of 3" in spent["learner-2"]["spent"]
    # Whoever did not train is in no average.
    expected = 0.0
    for targets in ([2, 4, 6], [2, 4, 6], [4, 6], [4], [4]):
        expected += sum((target - expected) / 2 for target in targets) / len(targets)
    np.testing.assert_allclose(model(task)["w"], expected, rtol=1e-6)


GROWING = ({"target": 2.0, "grows": 1024}, {"target": 2.0, "grows": 1024})


def test_weights_that_grow_are_voted_on(vectors, coordinated):
    # 4 MB a round, to begin with nothing: more than twice the weights before, and a little.
    task = averaged(coordinated, vectors(*GROWING), rounds=3)
    verdict = task.run()
    assert (verdict["phase"], verdict["round"]["accepted"]) == ("Complete", 3), task.log
    assert model(task)["rows"].shape == (3072, 1024)


def test_weights_that_grow_are_not_averaged_and_the_task_fails_before_anyone_trains(vectors, coordinated):
    learners = vectors(*GROWING)
    task = averaged(coordinated, learners, rounds=3, strategy={"type": "FedProx", "fedProx": {"mu": 0.1}})
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "WeightsNotAveraged"), task.log
    assert verdict["message"].startswith("strategy.type: FedProx averages, and the tensor 'rows' cannot be averaged")
    assert "strategy.type: Vote, or Cyclic, takes such models" in verdict["message"]
    assert verdict["round"]["current"] == 0
    assert task.records() == []
    # What was set up is of use to a strategy that takes it.
    task.config["strategy"] = {"type": "Cyclic"}
    assert task.run()["phase"] == "Complete", task.log


def test_weights_that_grow_too_far_are_refused(vectors, coordinated):
    task = averaged(coordinated, vectors(*GROWING), rounds=5, policy={"preRunningDeadlineSeconds": 6})
    verdict = task.run()
    assert verdict["phase"] == "Failed", task.log
    assert verdict["round"]["current"] == 4
    assert "'rows' has the shape (5120, 1024), the model's has (at most 4096, 1024)" in verdict["message"]
