"""The model in other formats at the end: there, or the result says why, and the task is complete in any case."""

from __future__ import annotations

import pytest

GOOD = {"target": 2.0, "model": {"bytes": 3_000_000}}
NONE = {"target": 2.0}


def exported(task):
    verdict = task.run()
    assert verdict["phase"] == "Complete", task.log
    weights, *others = verdict["result"]["formats"]
    assert weights == {"name": "safetensors", "file": "model.safetensors"}
    (onnx,) = others
    assert onnx["name"] == "onnx"
    assert not list((task.state / "checkpoint").glob("spool-*"))
    return onnx


def asking(coordinated, learners, *, rounds=2, **more):
    return coordinated(learners, rounds=rounds, result={"formats": ["safetensors", "onnx"]}, **more)


def test_a_learner_makes_the_file_and_a_restart_makes_it_again(vectors, coordinated):
    task = asking(coordinated, vectors(GOOD, GOOD))
    assert exported(task) == {"name": "onnx", "file": "model.onnx"}
    assert (task.state / "model.onnx").read_bytes() == b"x" * 3_000_000
    # Stopped between the last decision and its verdict: it finds the rounds done, and makes the file anew.
    (task.state / "verdict.json").unlink()
    (task.state / "model.onnx").write_bytes(b"torn")
    assert exported(task)["file"] == "model.onnx"
    assert (task.state / "model.onnx").stat().st_size == 3_000_000
    assert (task.state / "rounds.jsonl").read_text().count("\n") == 2
    # Another try, before any learner is back: what is there is of these weights, and need not be made again.
    (task.state / "verdict.json").unlink()
    for port, learner in enumerate(task.config["learners"], start=9):
        learner["address"] = f"127.0.0.1:{port}"
    assert exported(task) == {"name": "onnx", "file": "model.onnx"}


def test_without_a_wish_nobody_is_asked(vectors, coordinated):
    task = coordinated(vectors(GOOD), rounds=1)
    verdict = task.run()
    assert verdict["result"]["formats"] == [{"name": "safetensors", "file": "model.safetensors"}]
    assert not (task.state / "model.onnx").exists()


def test_a_model_that_does_not_go_out_says_why_and_an_older_file_does_not_stay(vectors, coordinated):
    task = asking(coordinated, vectors(NONE, NONE))
    task.state.mkdir()
    (task.state / "model.onnx").write_bytes(b"of another model")
    message = exported(task)["message"]
    assert message.startswith("learner-1: ExportModel: FAILED_PRECONDITION: Vector has no exporter()")
    assert not (task.state / "model.onnx").exists()
    assert f"no onnx: {message}"[:80] in task.log


def test_who_dies_over_it_or_sends_too_much_is_passed_over(vectors, coordinated):
    dies = {**NONE, "model": {"does": "die"}}
    large = {**NONE, "model": {"bytes": 70_000_000}}
    task = asking(coordinated, vectors(dies, large, GOOD, together=False), rounds=3)
    assert exported(task)["file"] == "model.onnx"
    assert "learner-0: ExportModel" in task.log
    assert "learner-1: sent weights that cannot be used" in task.log
    assert "the limit here is" in task.log


def test_who_hangs_over_it_is_not_waited_for_longer_than_a_round_may_take(vectors, coordinated):
    hangs = {**NONE, "model": {"does": "hang"}}
    task = asking(coordinated, vectors(hangs), policy={"roundTimeoutSeconds": 2})
    message = exported(task)["message"]
    assert message in ("it was not there within 2 s", "learner-0: ExportModel: did not answer within its deadline")


def test_a_peer_that_knows_no_such_call_is_told_of(plain, coordinated):
    task = coordinated(plain({}), rounds=1, result={"formats": ["onnx"]})
    verdict = task.run()
    assert verdict["phase"] == "Complete", task.log
    weights, onnx = verdict["result"]["formats"]
    assert weights["message"] == "the learners have a format of their own, model.bin holds it"
    assert onnx == {"name": "onnx", "message": "learner-0: its server does not know ExportModel"}


@pytest.mark.parametrize("formats", [[], ["onnx", "onnx"], ["pickle"], "onnx", [1], [["onnx"]]])
def test_formats_that_are_none_are_refused(coordinated, formats):
    task = coordinated([], rounds=1, result={"formats": formats})
    task.config["learners"] = [{"name": "learner-0", "address": "127.0.0.1:9"}]
    task.config["policy"] = {"minLearners": 1}
    verdict = task.run()
    assert verdict["reason"] == "InvalidConfig"
    assert "result.formats: " in verdict["message"]
    assert "safetensors, onnx, none of them twice" in verdict["message"]
