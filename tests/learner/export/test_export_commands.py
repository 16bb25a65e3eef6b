from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("sklearn")
pytest.importorskip("onnxruntime")

from sklearn.datasets import load_digits

from collective_learner.export.cli import export, predict

from .folders import run_folder


def call(command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "run", model="SKLEARN_DIGITS", data="DIGITS", parameters={"epochs": 2})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    x, _ = load_digits(return_X_y=True)
    np.savez(tmp_path / "rows.npz", x=(x[:6] / 16).astype(np.float32))
    return tmp_path / "rows.npz"


def told(result: Result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_run_is_exported_and_its_file_answers_as_the_framework_does(digits: Path, rows: Path) -> None:
    by_framework = told(call(predict, digits, rows, "--json"))
    done = call(export, digits)
    assert done.output.startswith(f"{digits / 'model.onnx'}: ")
    assert "checked against scikit-learn on batches of 1, 2, 7" in done.output
    (digits / "task.json").write_text(  # the file alone answers now: a task that nobody knows does not matter
        (digits / "task.json").read_text().replace("SKLEARN_DIGITS", "UNKNOWN")
    )
    by_file = told(call(predict, digits, rows, "--json"))
    assert [row["class"] for row in by_file] == [row["class"] for row in by_framework]
    assert [row["probability"] for row in by_file] == pytest.approx([row["probability"] for row in by_framework])
    assert told(call(predict, digits / "model.onnx", rows, "--json")) == by_file
    lines = call(predict, digits, rows).output.splitlines()
    assert len(lines) == 6
    assert lines[0] == f"0: class {by_file[0]['class']}, probability {by_file[0]['probability']:.6g}"


def test_predictions_go_into_a_file(digits: Path, rows: Path, tmp_path: Path) -> None:
    done = call(predict, digits, rows, "-o", tmp_path / "answers.txt")
    assert (done.exit_code, done.stdout) == (0, "")
    assert len((tmp_path / "answers.txt").read_text().splitlines()) == 6


def test_an_export_of_other_weights_is_not_asked(digits: Path, rows: Path, tmp_path: Path) -> None:
    assert call(export, digits).exit_code == 0
    before = told(call(predict, digits, rows, "--json"))
    other = run_folder(tmp_path / "other", model="SKLEARN_DIGITS", data="DIGITS", parameters={"epochs": 1}, seed=1)
    (digits / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    done = call(predict, digits, rows, "--json")
    assert "model.onnx is of other weights" in done.stderr
    assert told(done) != before


def test_a_picture_is_predicted(digits: Path, tmp_path: Path) -> None:
    pixels = load_digits().images[3] / 16
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(tmp_path / "three.png")
    np.savez(tmp_path / "three.npz", x=pixels.reshape(1, 64))
    (picture,) = told(call(predict, digits, tmp_path / "three.png", "--json"))
    (array,) = told(call(predict, digits, tmp_path / "three.npz", "--json"))
    assert picture["class"] == array["class"]
    assert picture["probability"] == pytest.approx(array["probability"], abs=0.01)


def test_a_task_file_with_a_model_beside_it(digits: Path, rows: Path, tmp_path: Path) -> None:
    spec = json.loads((digits / "task.json").read_text())["task"]["spec"]
    del spec["learners"]["location"]
    del spec["model"]["parameters"]
    (tmp_path / "task.yaml").write_text(json.dumps({"kind": "CollectiveTask", "spec": spec}))
    weights = ["--weights", digits / "model.safetensors"]
    assert told(call(predict, tmp_path / "task.yaml", rows, "--json", *weights)) == told(
        call(predict, digits, rows, "--json")
    )
    done = call(export, tmp_path / "task.yaml", *weights, "-o", tmp_path / "out.onnx")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.onnx").is_file()
    assert "no round has been accepted yet" in call(export, tmp_path / "task.yaml").output


def test_answers_that_are_not_finite_are_no_json(digits: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wild.npz", x=np.full((1, 64), np.inf, dtype=np.float32))
    assert call(export, digits).exit_code == 0
    done = call(predict, digits, tmp_path / "wild.npz", "--json")
    assert done.exit_code == 1
    assert "the model's answer to row 0 is not finite" in done.output


def refused(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) == 1, result.output


def test_bad_input_is_one_error(digits: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros((2, 30)))
    refused(call(predict, digits, tmp_path / "bad.npz"), "bad.npz: x of shape (2, 30); the model takes (rows, 64)")
    refused(call(predict, tmp_path / "no.onnx", tmp_path / "bad.npz"), "no.onnx: cannot be read: No such file")
    refused(call(export, tmp_path), "holds no task.json")
    refused(call(export, tmp_path / "nowhere"), "nowhere: is not there")
    refused(call(export, digits, "--format", "keras"), "does not fit a model of scikit-learn; there are onnx, safe")
    refused(call(export, digits, "--format", "safetensors"), "is the run's own model; name another file with --output")
    refused(call(export, digits, "--location", "7/2"), "SKLEARN_DIGITS cannot be built on data at '7/2' here (ValueErr")
    refused(call(export, digits, "--import", "no_such_module"), "--import no_such_module failed")
    refused(call(export, digits, "-o", tmp_path / "no" / "m.onnx"), "m.onnx: cannot be written: No such file")
    (digits / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    refused(call(export, digits), "model.safetensors: does not fit the model SKLEARN_DIGITS: weights: missing 'coef_'")
    (digits / "model.safetensors").rename(digits / "model.bin")
    refused(call(export, digits), "model.bin: the learners' own format")


def test_a_learner_of_ones_own_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = run_folder(tmp_path / "run", model="SKLEARN_DIGITS", data="DIGITS", parameters={"epochs": 1})
    monkeypatch.setattr("collective_learner.learners.sklearn.SklearnLearner.exporter", None)
    done = call(export, digits)
    assert done.exit_code == 1
    assert "SklearnLearner has no exporter()" in done.output


def test_modules_come_from_the_config_maps_folder(digits: Path, tmp_path: Path) -> None:
    kept = json.loads((digits / "task.json").read_text())
    learners = kept["task"]["spec"]["learners"]
    learners["codeFrom"], learners["imports"] = {"configMapRef": {"name": "my-code"}}, ["mine_to_export"]
    (digits / "task.json").write_text(json.dumps(kept))
    refused(call(export, digits), "codeFrom.configMapRef.name: my-code: there is no folder of that name")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine_to_export.py").write_text("")
    assert call(export, digits, "--code", tmp_path / "there").exit_code == 0
