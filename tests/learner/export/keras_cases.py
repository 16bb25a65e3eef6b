"""Keras models that go out; run by `test_keras_export` in a process of its own."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from keras import layers

from collective_learner.export.cli import export, predict
from collective_learner.export.errors import ExportError
from collective_learner.export.keras import KerasExporter
from collective_learner.export.meaning import Meaning

sys.path.append(str(Path(__file__).parent))
from document import try_it, write_files
from folders import run_folder

X = np.random.default_rng(0).uniform(size=(20, 6, 6, 1)).astype(np.float32)


def network(loss: object = "sparse_categorical_crossentropy", units: int = 3, activation: str | None = None):
    given = keras.Input((6, 6, 1))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(given))
    x = layers.Dropout(0.9)(layers.Flatten()(x))
    model = keras.Model(given, layers.Dense(units, activation=activation)(x))
    model.compile("adam", loss)
    return model


def test_a_network_goes_out_as_onnx_for_any_batch() -> None:
    model = network(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [variable.numpy().tobytes() for variable in model.variables]
    exporter = KerasExporter(model, X, bytes)
    assert exporter.meaning is Meaning.LOGITS
    written = exporter.file("onnx")
    session = ort.InferenceSession(written, providers=["CPUExecutionProvider"])
    for rows in (1, 5, 20):
        (found,) = session.run(None, {session.get_inputs()[0].name: X[:rows]})
        assert np.allclose(found, model.predict(X[:rows], verbose=0), atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert about["collective.framework"] == "Keras"
    assert about["collective.pixels"] == "0..1"
    assert [variable.numpy().tobytes() for variable in model.variables] == before
    model.fit(X, np.arange(20) % 3, verbose=0)  # it trains on as before


def adapted():
    layer = layers.Normalization()
    layer.adapt(X.reshape(20, -1))
    return [layers.Flatten(), layer, layers.Dense(8)]


OTHERS = {
    "bytes": (lambda: [layers.Rescaling(1 / 255), layers.Flatten()], (X * 255).astype(np.uint8)),
    "words": (lambda: [layers.Embedding(9, 4, mask_zero=True), layers.LSTM(4)], np.arange(40).reshape(8, 5) % 9),
    "adapted": (adapted, X),
    "augmented": (lambda: [layers.RandomFlip(), layers.RandomRotation(0.2), layers.Flatten()], X),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_and_types_go_out_as_they_predict(name: str) -> None:
    """Inputs of other types than the model's, layers with numbers of the data, and some that change what they train."""
    made, x = OTHERS[name]
    kind = "int32" if name == "words" else "float32"
    model = keras.Sequential([keras.Input(x.shape[1:], dtype=kind), *made(), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    session = ort.InferenceSession(KerasExporter(model, x, bytes).file("onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x[:5].astype(kind)})
    assert np.allclose(found, model.predict(x[:5], verbose=0), atol=1e-5)
    model.fit(x, np.arange(len(x)) % 3, verbose=0)  # it trains on as before


def test_a_model_of_batches_of_one_size_says_so() -> None:
    model = keras.Sequential([keras.Input((6, 6), batch_size=4), layers.LSTM(3, stateful=True), layers.Dense(3)])
    model.compile("adam", "mse")
    with pytest.raises(ExportError, match=r"^Keras' exporter refuses the model: .* batch size of .*$"):
        KerasExporter(model, X[..., 0], bytes).file("onnx")


def test_keras_own_file_loads_again(tmp_path: Path) -> None:
    model = network()
    path = tmp_path / "model.keras"
    path.write_bytes(KerasExporter(model, X, bytes).file("keras"))
    assert zipfile.is_zipfile(path)
    assert np.allclose(keras.models.load_model(path).predict(X, verbose=0), model.predict(X, verbose=0))


def test_formats_of_other_frameworks_are_refused() -> None:
    with pytest.raises(ExportError, match="'state_dict' does not fit a model of Keras; there are onnx, safetensors, k"):
        KerasExporter(network(), X, bytes).file("state_dict")


def test_a_model_of_two_inputs_says_why_it_does_not_go_out() -> None:
    with pytest.raises(ExportError, match="the model takes a list; only one array"):
        KerasExporter(network(), [X, X], bytes)


def test_a_run_of_keras_is_exported_and_asked(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", model="KERAS_DIGITS", data="DIGITS", parameters={"epochs": 1})
    np.save(tmp_path / "rows.npy", np.random.default_rng(1).uniform(size=(4, 64)))
    answers = []
    for command in (predict, export, predict):
        arguments = [str(folder), *([] if command is export else [str(tmp_path / "rows.npy"), "--json"])]
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
        answers.append(done.stdout)
    assert "checked against Keras" in answers.pop(1)
    before, after = ([json.loads(line) for line in answer.splitlines()] for answer in answers)
    assert [row["class"] for row in before] == [row["class"] for row in after]
    assert [row["probability"] for row in before] == pytest.approx([row["probability"] for row in after], abs=1e-4)


def test_rounds_of_the_document_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_it(write_files(tmp_path), monkeypatch, "my_keras", "MY_KERAS").count("accepted") >= 1


class Odd(layers.Layer):
    """Asks Python in the middle of its computation, which no file can."""

    def call(self, x):
        import tensorflow as tf

        return tf.reshape(tf.numpy_function(np.sign, [x], tf.float32), tf.shape(x))

    def compute_output_shape(self, shape):
        return shape


def test_a_model_that_asks_python_says_why_it_does_not_go_out() -> None:
    given = keras.Input((6,))
    model = keras.Model(given, Odd()(layers.Dense(3)(given)))
    model.compile("adam", "mse")
    with pytest.raises(ExportError) as told:
        KerasExporter(model, X.reshape(-1, 6), bytes).file("onnx")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("loss", "activation", "units", "meaning"),
    [
        ("sparse_categorical_crossentropy", "softmax", 3, Meaning.PROBABILITIES),
        (keras.losses.CategoricalCrossentropy(), "softmax", 3, Meaning.PROBABILITIES),
        (keras.losses.BinaryCrossentropy(from_logits=True), None, 1, Meaning.LOGIT),
        ("binary_crossentropy", "sigmoid", 1, Meaning.PROBABILITY),
        ("mse", None, 1, Meaning.VALUES),
    ],
)
def test_outputs_mean_what_the_loss_takes(loss: object, activation: str | None, units: int, meaning: Meaning) -> None:
    assert KerasExporter(network(loss, units, activation), X, bytes).meaning is meaning
