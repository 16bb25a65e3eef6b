"""The published data sets' own files: read as they are, torn ones refused by name, pickles without running pickle."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from collective_learner.data.cifar import read_cifar, write_binary
from collective_learner.data.idx import read_idx, read_mnist, write_idx
from collective_learner.data.pickled import read_pickle
from collective_learner.data.pictures import read_pictures
from collective_learner.data.places import DataRefusedError, place_of
from collective_learner.data.shards import pack, read_shard
from collective_learner.data.tables import read_payments

RNG = np.random.default_rng(0)


def arrays(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)


# IDX


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images.idx3-ubyte"])
def test_mnist_is_read_from_idx_files(tmp_path: Path, name: str, packed: bool) -> None:
    x, y = arrays(12, 28, 28)
    for file, array in ((name, x), (name.replace("images", "labels").replace("idx3", "idx1"), y)):
        data = write_idx(array)
        (tmp_path / (file + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    found = read_mnist(place_of(str(tmp_path)))
    assert found is not None
    assert found[0].tobytes() == x.tobytes()
    assert found[1].tobytes() == y.tobytes()


def test_both_halves_of_mnist_come_together(tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        x, y = arrays(5, 28, 28)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(write_idx(x))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(write_idx(y))
    found = read_mnist(place_of(str(tmp_path)))
    assert found is not None
    assert found[0].shape == (10, 28, 28)
    assert found[0][5:].tobytes() == x.tobytes()


def test_an_idx_file_as_its_authors_define_it() -> None:
    data = bytes([0, 0, 8, 2]) + struct.pack(">2I", 2, 3) + bytes(range(6))
    assert read_idx(data, "it").tolist() == [[0, 1, 2], [3, 4, 5]]
    for broken in (b"", data[:3], data[:-1], data + b"\0", b"\x01" + data[1:], bytes([0, 0, 13, 2]) + data[4:]):
        with pytest.raises(DataRefusedError, match=r"it: (no IDX file|\d+ bytes of data, its header says)"):
            read_idx(broken, "it")


def test_images_without_labels_and_torn_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(write_idx(arrays(5, 28, 28)[0]))
    with pytest.raises(DataRefusedError, match=r"train-labels-idx1-ubyte .* is missing"):
        read_mnist(place_of(str(tmp_path)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(write_idx(arrays(5)[1]))[:-9])
    with pytest.raises(DataRefusedError, match="no whole gzip file"):
        read_mnist(place_of(str(tmp_path)))


# CIFAR-10


def python_2_batch(x: np.ndarray, y: np.ndarray) -> bytes:
    """Write a batch opcode by opcode as Python 2 did: byte strings, and numpy's array by three names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    labels = b"]q\x05(" + b"".join(b"K" + bytes([label]) for label in y) + b"e"
    shape = b"".join(b"M" + struct.pack("<H", size) for size in x.shape)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09"
        + text(b"b")
        + b"\x87q\nRq\x0b"
        b"(K\x01" + shape + b"\x86cnumpy\ndtype\nq\x0c" + text(b"u1") + b"K\x00K\x01\x87q\rRq\x0e"
        b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0fb\x89"
        b"T" + struct.pack("<i", x.nbytes) + x.tobytes() + b"tq\x10b"
    )
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
        + text(b"labels") + b"q\x04" + labels + text(b"data") + b"q\x06" + array
        + text(b"filenames") + b"q\x11]q\x12(" + text(b"a.png") + text(b"b.png") + b"eu."
    )  # fmt: skip


def planes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2).reshape(len(x), -1))


def test_the_hand_written_batch_is_what_pickle_would_read() -> None:
    x, y = arrays(4, 3072)
    held = pickle.loads(python_2_batch(x, y), encoding="bytes")
    assert held[b"data"].tobytes() == x.tobytes()
    assert held[b"labels"] == y.tolist()
    found = read_pickle(python_2_batch(x, y), "it")
    assert found["data"].tobytes() == x.tobytes()
    assert found["labels"] == y.tolist()
    assert found["filenames"] == [b"a.png", b"b.png"]


@pytest.mark.parametrize("form", ["python 2", "protocol 3", "binary"])
def test_cifar10_is_read_from_its_batches(tmp_path: Path, form: str) -> None:
    folder = tmp_path / ("cifar-10-batches-bin" if form == "binary" else "cifar-10-batches-py")
    folder.mkdir()
    whole = [arrays(6, 32, 32, 3) for _ in range(6)]
    for number, (x, y) in enumerate(whole, 1):
        name = f"data_batch_{number}" if number < 6 else "test_batch"
        if form == "binary":
            (folder / f"{name}.bin").write_bytes(write_binary(x, y))
        elif form == "python 2":
            (folder / name).write_bytes(python_2_batch(planes(x), y))
        else:
            batch = {b"data": planes(x), b"labels": y.tolist()}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=int(form[-1])))
    found = read_cifar(place_of(str(tmp_path)))
    assert found is not None
    assert found[0].tobytes() == np.concatenate([x for x, _ in whole]).tobytes()
    assert found[1].tolist() == [label for _, y in whole for label in y]


class Evil:
    """What a hostile file would have run."""

    ran = 0

    def __reduce__(self):
        return (Evil.run, ())

    @staticmethod
    def run() -> int:
        Evil.ran += 1
        return 0


def hostile() -> list[bytes]:
    x, y = arrays(2, 3072)
    batch = {b"data": planes(arrays(2, 32, 32, 3)[0]), b"labels": [0, 1]}
    return [
        pickle.dumps(Evil()),
        pickle.dumps({**batch, b"filenames": Evil()}),
        pickle.dumps({b"data": np.array([Evil()]), b"labels": [0]}),
        pickle.dumps({b"data": np.zeros(3072), b"labels": [0]}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR.",
        b"cnumpy\nndarray\n)R.",
        b"cnumpy\nndarray\n.",
        python_2_batch(x, y).replace(b"u1", b"O8"),
        python_2_batch(x, y).replace(b"cnumpy\ndtype", b"cnumpy\nfromfile"),
        python_2_batch(x[:1], y[:1]).replace(b"M" + struct.pack("<H", 3072), b"M" + struct.pack("<H", 3073)),
        b"(" * 100_000 + b".",
        b"]" + b"(]" * 5 + b"e" * 3 + b".",
        b"U",
        b"",
        b"K\x01K\x01.",
        b"}(U\x01ae.",
        b"(K\x01K\x02u.",
        b"h\x09.",
        b"I01\n.",
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
    ]


@pytest.mark.parametrize("data", hostile(), ids=range(len(hostile())))
def test_what_a_batch_never_holds_is_refused_and_nothing_runs(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(data)
    with pytest.raises(DataRefusedError, match="data_batch_1: "):
        read_cifar(place_of(str(tmp_path)))
    assert Evil.ran == 0


def test_torn_and_changed_batches_never_run_nor_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(pickle, "loads", None)
    good = python_2_batch(*arrays(2, 48))
    chance = random.Random(5)
    opcodes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    read = refused = 0
    for _ in range(4000):
        data = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            how = chance.random()
            if how < 0.4:
                data[at] = chance.randrange(256)
            elif how < 0.7:
                data[at : at + 1] = chance.choice(opcodes)
            else:
                del data[at : at + chance.randrange(1, 9)]
        try:
            found = read_pickle(bytes(data), "it")
            read += 1
            assert plain(found)
        except DataRefusedError:
            refused += 1
    assert read > 50  # a changed pixel is none of the reader's business
    assert refused > 1000


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (bool, int, str, bytes) or value.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0" * 3072, "no whole number of records"),
        (b"", "no whole number"),
        (b"\x0b" + b"\0" * 3072, "labels from 11"),
    ],
)
def test_binary_batches_that_are_none_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(data)
    with pytest.raises(DataRefusedError, match=rf"data_batch_1.bin: .*{message}"):
        read_cifar(place_of(str(tmp_path)))


# Images


def test_images_are_found_at_any_depth_by_their_class(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name, grey in {
        "train/NORMAL/a.jpeg": 10,
        "test/NORMAL/a.jpeg": 20,
        "train/PNEUMONIA/images/b.png": 200,
        "train/PNEUMONIA/masks/b.png": 0,
        "train/other/c.png": 90,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (40, 30), (grey, grey, grey)).save(tmp_path / name)
    (tmp_path / "train/NORMAL/notes.txt").write_text("not an image")
    x, y = read_pictures(place_of(str(tmp_path)), {"normal": 0, "pneumonia": 1}, size=16)
    assert x.shape == (3, 16, 16, 1)
    assert x.dtype == np.uint8
    assert y.tolist() == [0, 0, 1]
    assert x.mean(axis=(1, 2, 3)) == pytest.approx([20, 10, 200], abs=2)
    (tmp_path / "train/NORMAL/d.png").write_bytes(b"no image")
    with pytest.raises(DataRefusedError, match=r"train/NORMAL/d.png: no image"):
        read_pictures(place_of(str(tmp_path)), {"normal": 0, "pneumonia": 1}, size=16)
    with pytest.raises(DataRefusedError, match=r"has no images; folders named covid"):
        read_pictures(place_of(str(tmp_path)), {"covid": 0}, size=16)


# Tables

CREDIT = '"Time","V1","Amount","Class"\n0,-1.5,149.62,"0"\n7,2.5,0,"1"\n'
TRANSACTIONS = "TransactionID,isFraud,TransactionAmt,ProductCD,card4,C1\n1,0,10,W,visa,1\n2,1,,C,,2\n3,0,3,W,visa,4\n"
IDENTITIES = "TransactionID,id-01,id_12\n2,-5,Found\n"


def test_both_kinds_of_payments_become_numbers(tmp_path: Path) -> None:
    (tmp_path / "creditcard.csv").write_text(CREDIT)
    x, y = read_payments(place_of(str(tmp_path)))
    assert y.tolist() == [0, 1]
    assert x == pytest.approx(np.sign([[0, -1.5, 149.62], [7, 2.5, 0]]) * np.log1p([[0, 1.5, 149.62], [7, 2.5, 0]]))
    other = tmp_path / "ieee"
    other.mkdir()
    (other / "train_transaction.csv.gz").write_bytes(gzip.compress(TRANSACTIONS.encode()))
    (other / "train_identity.csv").write_text(IDENTITIES)
    x, y = read_payments(place_of(str(other)))
    assert y.tolist() == [0, 1, 0]
    assert x.shape == (3, 3 + 256)  # amount, C1 and id_01 are numbers, the others are categories
    assert (x[0, 3:] == x[2, 3:]).all()
    assert (x[0, 3:] > 0).sum() == 2
    assert (x[1, 3:] > 0).sum() == 2
    assert x[:, :3].min() == pytest.approx(-np.log1p(5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Time,V1\n1,2\n", "no column isFraud or Class"),
        ("Time,Class\n1,2\n", "line 2, Class: '2', 0 or 1"),
        ("Time,Class\nsoon,1\n", "line 2, Time: 'soon', a number"),
        ("Time,Class\nnan,1\n", "line 2 holds a number that is not finite"),
        ("Time,Class\n1,1,1\n", "line 2 has more cells"),
        ("Time,Class\n", "no lines of data"),
    ],
)
def test_tables_that_are_none_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "creditcard.csv").write_text(text)
    with pytest.raises(DataRefusedError, match=rf"creditcard.csv: {message}"):
        read_payments(place_of(str(tmp_path)))


# Shards


def test_a_shard_holds_no_objects_and_no_half_pairs(tmp_path: Path) -> None:
    x, y = arrays(4, 2)
    (tmp_path / "data.npz").write_bytes(pack(x=x, y=y))
    assert pack(x=x, y=y) == pack(x=x, y=y)
    assert read_shard(place_of(str(tmp_path)))[0].tobytes() == x.tobytes()
    assert read_shard(place_of(str(tmp_path / "data.npz")))[1].tobytes() == y.tobytes()
    evil = io.BytesIO()
    np.savez(evil, x=np.array([[Evil()]]), y=np.array([0]))
    for data, message in [
        (evil.getvalue(), "no arrays x and y"),
        (pack(x=x), "no arrays x and y"),
        (pack(x=x, y=y[:3]), "are no pair"),
        (b"nothing", "no arrays x and y"),
        (pack(x=x, y=y)[:-40], "no arrays x and y"),
    ]:
        (tmp_path / "data.npz").write_bytes(data)
        with pytest.raises(DataRefusedError, match=message):
            read_shard(place_of(str(tmp_path)))
    assert Evil.ran == 0
