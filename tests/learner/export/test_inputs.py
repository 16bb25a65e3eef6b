from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collective_learner.export.errors import NotThereError
from collective_learner.export.inputs import Inputs, Pixels, pixels_of, read_inputs

TABLE = Inputs(shape=(3,), dtype="float32")
GREY = Inputs(shape=(4, 6, 1), dtype="float32", pixels=Pixels.UNIT)


def written(folder: Path, text: str) -> Path:
    path = folder / "data.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text", ["age,dose,x\n1,2,3\n4,5,6e0\n", "1,2,3\n4,5,6\n", '\ufeffa,b,c\r\n1,2,3\r\n"4",5,6\r\n\r\n']
)
def test_a_table_may_have_names(tmp_path: Path, text: str) -> None:
    found = read_inputs(written(tmp_path, text), TABLE)
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_table_takes_the_shape_of_the_model(tmp_path: Path) -> None:
    found = read_inputs(written(tmp_path, "1,2,3,4\n"), Inputs(shape=(1, 2, 2), dtype="float64"))
    assert found.tolist() == [[[[1, 2], [3, 4]]]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,dose,x\n1,2,3\n4,old,6\n", r"data\.csv: line 3, column 2 \(dose\): 'old', a number is needed"),
        ("1,2,3\n4,,6\n", r"data\.csv: line 2, column 2: '', a number is needed"),
        ("1,2,nan\n", r"data\.csv: line 1, column 3: 'nan', a number is needed"),
        ("1,2,3\n4,5\n", r"data\.csv: line 2 has 2 columns, the model takes 3"),
        ("a,b,c\n", r"data\.csv: has no rows"),
        ("", r"data\.csv: has no rows"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NotThereError, match=message):
        read_inputs(written(tmp_path, text), TABLE)


def test_arrays_by_name_alone_or_single(tmp_path: Path) -> None:
    rows = np.arange(6).reshape(2, 3)
    np.savez(tmp_path / "named.npz", y=np.zeros(2), x=rows)
    np.savez(tmp_path / "alone.npz", rows)
    np.save(tmp_path / "one.npy", rows[0])
    assert read_inputs(tmp_path / "named.npz", TABLE).tolist() == rows.tolist()
    assert read_inputs(tmp_path / "alone.npz", TABLE).tolist() == rows.tolist()
    assert read_inputs(tmp_path / "one.npy", TABLE).tolist() == rows[:1].tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 4))}, r"x of shape \(2, 4\); the model takes \(rows, 3\)"),
        ({"x": np.zeros((0, 3))}, "x has no rows"),
        ({"x": np.array(["a"])}, "x is of <U1; numbers are needed"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "holds a, b; an array called x"),
        ({"x": np.array([{}])}, "without objects"),
    ],
)
def test_what_is_wrong_with_an_array_is_named(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(NotThereError, match=message):
        read_inputs(tmp_path / "data.npz", TABLE)


def test_numbers_that_the_models_type_does_not_have_are_refused(tmp_path: Path) -> None:
    words = Inputs(shape=(3,), dtype="uint8")
    assert read_inputs(written(tmp_path, "1,2,255\n"), words).dtype == np.uint8
    for row in ("1,2,256", "1,2,-1", "1,2,0.5"):
        with pytest.raises(NotThereError, match=r"data\.csv: holds numbers that are no uint8"):
            read_inputs(written(tmp_path, row), words)


def test_files_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    for name in ("data.npz", "data.npy", "data.png"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(NotThereError, match=name.replace(".", r"\.")):
            read_inputs(tmp_path / name, GREY)
    with pytest.raises(NotThereError, match=r"data\.txt: a file \.csv"):
        read_inputs(tmp_path / "data.txt", GREY)
    with pytest.raises(NotThereError, match=r"none\.csv: cannot be read: No such file"):
        read_inputs(tmp_path / "none.csv", TABLE)


def picture(folder: Path, size: tuple[int, int] = (6, 4)) -> Path:
    height, width = size[1], size[0]
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels).save(folder / "data.png")
    return folder / "data.png"


def test_a_picture_takes_the_form_and_range_of_the_model(tmp_path: Path) -> None:
    path = picture(tmp_path)
    pixels = np.asarray(Image.open(path))
    last = read_inputs(path, Inputs(shape=(4, 6, 3), dtype="uint8", pixels=Pixels.BYTES))
    first = read_inputs(path, Inputs(shape=(3, 4, 6), dtype="float32", pixels=Pixels.UNIT))
    assert np.array_equal(last, pixels[None])
    assert np.allclose(first[0], np.moveaxis(pixels, -1, 0) / 255)
    assert read_inputs(path, GREY).shape == (1, 4, 6, 1)


def test_a_picture_is_resized_when_that_is_asked_for(tmp_path: Path) -> None:
    path = picture(tmp_path, (12, 8))
    with pytest.raises(NotThereError, match=r"data\.png: 12 x 8 pixels, the model takes 6 x 4; --resize"):
        read_inputs(path, GREY)
    assert read_inputs(path, GREY, resize=True).shape == (1, 4, 6, 1)


def test_a_picture_that_only_the_data_loader_could_prepare_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="prepared inputs"):
        read_inputs(picture(tmp_path), Inputs(shape=(4, 6, 3), dtype="float32"))
    with pytest.raises(NotThereError, match=r"takes \(rows, 30\), which is no picture"):
        read_inputs(picture(tmp_path), Inputs(shape=(30,), dtype="float32", pixels=Pixels.UNIT))


def test_ranges_are_told_coarsely() -> None:
    assert pixels_of(np.array([0.0, 0.3])) is Pixels.UNIT
    assert pixels_of(np.array([0, 1], dtype=np.uint8)) is Pixels.BYTES
    assert pixels_of(np.array([0.0, 254.0])) is Pixels.BYTES
    assert pixels_of(np.array([-0.1, 0.3])) is None
    assert pixels_of(np.array([0.0, 1000.0])) is None
