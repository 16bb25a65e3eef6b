"""Privacy budgets end: who has spent its own tests and votes on, and when nobody may train the task is over."""

import json
import urllib.request

from collective_coordinator.metrics import Metrics
from collective_coordinator.privacy import Budgets


def test_a_learner_whose_budget_is_spent_trains_no_more_and_still_votes(plain, coordinated):
    learners = plain({"budget": 2}, {"extensions": True}, {})
    task = coordinated(learners, rounds=8)
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Complete", "RoundsCompleted")
    records = task.records()
    proposers = [record["proposer"] for record in records]
    assert proposers == [f"learner-{index}" for index in (0, 1, 2, 0, 1, 2, 1, 2)]
    assert all(set(record["testScores"]) == {"learner-0", "learner-1", "learner-2"} for record in records)
    assert all("leftOut" not in record for record in records)
    assert len(learners[0].events("train")) == 3  # and was asked once more than it could
    spent = records[-1]["privacy"]["learner-0"]
    assert spent["consumedEpsilon"] == 2 and spent["targetEpsilon"] == 2
    assert spent["spent"].startswith("its privacy budget is spent: epsilon 2 of 2")
    (said,) = [learner for learner in verdict["learners"] if learner["name"] == "learner-0"]
    assert said["message"] == spent["spent"] and said["privacy"] == spent


def test_a_task_in_which_nobody_may_train_any_more_is_complete_and_says_why(plain, coordinated):
    learners = plain({"budget": 1}, {"budget": 2})
    task = coordinated(learners, rounds=50)
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Complete", "PrivacyBudgetSpent")
    assert verdict["message"].startswith("After round 3 no learner may train any more: learner-0: its privacy budget")
    assert "learner-1" in verdict["message"]
    assert verdict["result"]["rounds"] == 3
    assert [record["proposer"] for record in task.records()] == ["learner-0", "learner-1", "learner-1"]


def test_a_budget_too_small_for_one_training_fails_the_task(plain, coordinated):
    verdict = coordinated(plain({"budget": 0.5}, {"budget": 0.5}), rounds=3).run()
    assert (verdict["phase"], verdict["reason"]) == ("Failed", "PrivacyBudgetSpent")
    assert "No learner's privacy budget lasts for a training" in verdict["message"]


def test_the_model_goes_round_without_those_who_have_spent_theirs(plain, coordinated):
    learners = plain({"budget": 1}, {"budget": 3})
    task = coordinated(learners, rounds=20, strategy={"type": "Cyclic", "cyclic": {}})
    verdict = task.run()
    assert (verdict["phase"], verdict["reason"]) == ("Complete", "PrivacyBudgetSpent")
    assert [record["trainers"] for record in task.records()] == [
        ["learner-0"],
        ["learner-1"],
        ["learner-1"],
        ["learner-1"],
    ]


def test_a_learner_that_forgot_what_it_spent_is_found_out(plain, coordinated):
    learners = plain({"budget": 9, "forgets": 3}, {})
    task = coordinated(learners, rounds=9)
    assert task.run()["reason"] == "RoundsCompleted"
    why = task.records()[-1]["privacy"]["learner-0"]["spent"]
    assert "its privacy ledger is lost: it had spent epsilon 2, and says 0" in why
    assert [record["proposer"] for record in task.records()].count("learner-0") == 2


def test_what_was_told_survives_a_restart_of_the_coordinator(plain, coordinated, wait_until):
    learners = plain({"budget": 1}, {"train_s": 0.2})
    task = coordinated(learners, rounds=100_000)
    process = task.start()
    wait_until(lambda: len(task.records()) >= 4, "four rounds")
    with urllib.request.urlopen(f"http://127.0.0.1:{task.port()}/metrics", timeout=60) as answer:
        assert 'collective_privacy_epsilon{kind="consumed",learner="learner-0"} 1.0' in answer.read().decode()
    process.kill()
    process.wait(60)
    asked = len(learners[0].events("train"))
    task.config["rounds"] = len(task.records()) + 3
    assert task.run()["reason"] == "RoundsCompleted"
    assert asked == len(learners[0].events("train")) == 2
    assert "spent" in task.records()[-1]["privacy"]["learner-0"]


def test_what_is_told_is_json_whatever_a_learner_says():
    from collective_learner.wire import interface_pb2 as pb

    budgets = Budgets({}, metrics=Metrics())
    summary = pb.TrainingSummary(
        dp_budget=pb.DiffPrivBudget(target_epsilon=float("inf"), consumed_epsilon=float("nan"))
    )
    budgets.note("learner-0", summary)
    assert json.loads(json.dumps(budgets.documents(), allow_nan=False))["learner-0"]["consumedEpsilon"] is None
