"""`collective data`: disjoint, complete, the same every time; cards that say what is where; locations that are URLs."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_learner.data.dealing import deal
from collective_learner.data.lookalikes import LOOK_ALIKES, make
from collective_learner.data.places import DataRefusedError, place_of, read
from collective_learner.data.shards import pack, read_shard
from collective_learner.data.splitting import find_source, split


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=60, max_size=200),
    count=st.integers(1, 6),
    skew=st.none() | st.floats(0.5, 100),
    seed=st.integers(0, 2**32 - 1),
)
def test_shards_are_disjoint_complete_and_the_same_again(labels, count: int, skew, seed: int) -> None:
    given_labels = np.array(labels)
    try:
        parts = deal(given_labels, count=count, skew=skew, seed=seed)
    except DataRefusedError as refused:
        assert skew is not None
        assert "a larger number, or fewer learners" in str(refused)
        return
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert min(map(len, parts)) >= 3
    if skew is None:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = deal(given_labels, count=count, skew=skew, seed=seed)
    assert [part.tolist() for part in parts] == [part.tolist() for part in again]


def unevenness(labels: np.ndarray, parts) -> float:
    """Mean distance of a shard's shares of classes from those of the whole."""
    whole = np.bincount(labels, minlength=10) / len(labels)
    return float(np.mean([np.abs(np.bincount(labels[part], minlength=10) / len(part) - whole).sum() for part in parts]))


def test_the_smaller_alpha_the_more_shards_differ() -> None:
    labels = np.arange(6000) % 10
    found = [unevenness(labels, deal(labels, count=5, skew=skew, seed=1)) for skew in (1000, 10, 1, 0.1)]
    assert found == sorted(found)
    assert unevenness(labels, deal(labels, count=5, skew=None, seed=1)) < 0.15
    assert found[-1] > 1
    assert unevenness(labels, deal(labels, count=5, skew=1, seed=1)) != unevenness(
        labels, deal(labels, count=5, skew=1, seed=2)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "learners: 0"),
        ({"count": 11}, "learners: 11, 30 examples make at most 10"),
        ({"skew": 0.0}, "skew: 0.0, a number above 0"),
        ({"skew": float("nan")}, "skew: nan"),
        ({"seed": -1}, "seed: -1"),
        ({"count": 10, "skew": 0.001}, "skew: 0.001 left a shard of 10 with less than 3"),
    ],
)
def test_what_cannot_be_dealt_is_refused_by_name(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deal(np.arange(30) % 3, **{"count": 3, "skew": None, "seed": 0, **options})


@pytest.mark.parametrize("name", [name for name in LOOK_ALIKES if "xray" not in name])
def test_arrays_split_into_shards_whose_cards_tell_the_truth(tmp_path: Path, name: str) -> None:
    make(name, tmp_path / "whole", examples=120)
    card = split(str(tmp_path / "whole"), tmp_path / "shards", learners=3, skew=2.0, seed=4)
    assert json.loads((tmp_path / "shards" / "card.json").read_text()) == {"version": 1, **card}
    assert card["lookAlike"] is True
    assert card["examples"] == 120
    assert card["split"] == {"learners": 3, "skew": 2.0, "seed": 4}
    whole = find_source(place_of(str(tmp_path / "whole")))
    seen = []
    for index, told in enumerate(card["shards"]):
        folder = tmp_path / "shards" / told["folder"]
        x, y = read_shard(place_of(str(folder)))
        assert len(x) == len(y) == told["examples"]
        assert {str(label): int((y == label).sum()) for label in np.unique(y)} == told["labels"]
        own = json.loads((folder / "card.json").read_text())
        assert own["split"] == {**card["split"], "index": index}
        assert own["lookAlike"] is True
        with np.load(folder / "data.npz") as arrays:
            places = arrays["index"]
        assert whole.labels[places].tolist() == y.tolist()
        seen += places.tolist()
    assert sorted(seen) == list(range(120))
    split(str(tmp_path / "whole"), tmp_path / "again", learners=3, skew=2.0, seed=4)
    for index in range(3):
        one, two = (tmp_path / each / str(index) / "data.npz" for each in ("shards", "again"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["xray", "covid-xray"])
def test_images_split_into_folders_of_the_same_files(tmp_path: Path, name: str) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    make(name, tmp_path / "whole", examples=36)
    card = split(str(tmp_path / "whole"), tmp_path / "shards", learners=4, skew=None, seed=0)
    before = sorted(path.read_bytes() for path in (tmp_path / "whole").rglob("*.png"))
    after = sorted(path.read_bytes() for path in (tmp_path / "shards").rglob("*.png"))
    assert before == after
    for told in card["shards"]:
        folders = {path.name: len(list(path.iterdir())) for path in (tmp_path / "shards" / told["folder"]).glob("*/")}
        assert folders == told["labels"]
    again = split(str(tmp_path / "shards" / "0"), tmp_path / "smaller", learners=3, skew=None, seed=0)
    assert again["examples"] == 9  # a shard is a data set too


def test_files_of_one_name_in_two_halves_stay_two(tmp_path: Path) -> None:
    for half in ("train", "test"):
        for label in ("A", "B"):
            folder = tmp_path / "whole" / half / label
            folder.mkdir(parents=True)
            for number in range(4):
                (folder / f"{number}.png").write_bytes(f"{half} {label} {number}".encode())
    split(str(tmp_path / "whole"), tmp_path / "shards", learners=2, skew=None, seed=0)
    files = list((tmp_path / "shards").rglob("*.png"))
    assert len({path.read_bytes() for path in files}) == len(files) == 16
    assert all(path.read_text().split()[1] == path.parent.name for path in files)


def test_the_same_seed_makes_the_same_look_alike_and_another_seed_another(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        card = make("mnist", tmp_path / folder, examples=60, seed=seed)
        assert "Not the real data" in card["note"]
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert files != {path.name: path.read_bytes() for path in (tmp_path / "c").iterdir()}


def test_nothing_is_written_over_and_nothing_half_is_left(tmp_path: Path) -> None:
    make("fraud", tmp_path / "whole", examples=60)
    with pytest.raises(DataRefusedError, match="there is something already"):
        make("fraud", tmp_path / "whole", examples=60)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "creditcard.csv").write_text("Time,Class\n1,x\n")
    with pytest.raises(DataRefusedError, match="Class: 'x'"):
        split(str(tmp_path / "broken"), tmp_path / "shards", learners=2, skew=None, seed=0)
    with pytest.raises(DataRefusedError, match=r"expected are data.npz, train-images"):
        (tmp_path / "empty").mkdir()
        split(str(tmp_path / "empty"), tmp_path / "shards", learners=2, skew=None, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "empty", "whole"]


def collective(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collective_operator", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_do_what_they_say(tmp_path: Path) -> None:
    made = collective("make", "mnist", tmp_path / "mnist", "--examples", 90)
    assert made.returncode == 0, made.stderr
    assert "90 examples, for the data loaders KERAS_MNIST, KERAS_MNIST_WITH_DP" in made.stdout
    done = collective("split", tmp_path / "mnist", tmp_path / "shards", "-n", 3, "--skew", 1, "--seed", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["split"] == {"learners": 3, "skew": 1.0, "seed": 2}
    for arguments, message in [
        (("make", "imagenet", tmp_path / "x"), "'imagenet' is none of mnist, cifar10"),
        (("split", tmp_path / "nowhere", tmp_path / "x"), "there is no such file or folder"),
        (("split", tmp_path / "mnist", tmp_path / "shards"), "there is something already"),
    ]:
        refused = collective(*arguments)
        assert refused.returncode == 2
        assert refused.stderr.startswith("Error: ")
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


# Locations


def test_a_url_is_read_by_its_backend(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    x, y = np.arange(24, dtype=np.uint8).reshape(12, 2), np.arange(12) % 2
    memory.pipe("/site/a/data.npz", pack(x=x, y=y))
    found = read_shard(place_of("memory://site/a"))
    assert found[0].tobytes() == x.tobytes()
    assert read_shard(place_of("memory://site/a/data.npz"))[1].tolist() == y.tolist()
    assert read_shard(place_of("memory://site")) is None
    assert place_of("memory://site").files() == ["a/data.npz"]
    (tmp_path / "data.npz").write_bytes(pack(x=x, y=y))
    assert read_shard(place_of(tmp_path.as_uri()))[0].tobytes() == x.tobytes()


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from collective_learner.data.places import DataRefusedError, place_of
for location in {locations!r}:
    try:
        place_of(location)
        print("read")
    except DataRefusedError as error:
        print(error)
print("fsspec" in sys.modules)
"""


def told(absent: set[str], *locations: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=absent, locations=locations)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_missing_backend_is_told_with_the_url_and_its_package() -> None:
    lines = told(
        {"s3fs", "gcsfs", "aiohttp", "adlfs"},
        "s3://bucket/mnist",
        "gs://bucket/mnist",
        "http://host/x",
        "abfs://c/x",
        "no-such://x",
    )
    assert lines[:5] == [
        "location: 's3://bucket/mnist' needs s3fs, which is not installed: pip install s3fs",
        "location: 'gs://bucket/mnist' needs gcsfs, which is not installed: pip install gcsfs",
        "location: 'http://host/x' needs aiohttp and requests, which is not installed: pip install aiohttp requests",
        "location: 'abfs://c/x' needs adlfs, which is not installed: pip install adlfs",
        "location: 'no-such://x', nothing is known that reads no-such://",
    ]


def test_a_server_that_is_not_there_is_told_so() -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data.npz"
        with pytest.raises(DataRefusedError, match=rf"^location: '{url}' cannot be read: .*Connect"):
            place_of(url)


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(bytes(range(256)) * 9)
    for content in (whole[:60], whole[:40] + b"\xff" * 9 + whole[49:]):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(DataRefusedError, match=r"'a.gz' is no whole gzip file \("):
            read(place_of(str(tmp_path)), "a.gz")
    with pytest.raises(DataRefusedError, match=r"'b.gz' cannot be read: FileNotFoundError"):
        read(place_of(str(tmp_path)), "b.gz")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = collective("make", "mnist", str(tmp_path / "file" / "below"))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"Error: {tmp_path}/file/below: cannot be written: ")
    assert refused.stderr.count("\n") == 1


def test_a_path_needs_no_fsspec(tmp_path: Path) -> None:
    assert told(set(), str(tmp_path)) == ["read", "False"]
    assert told({"fsspec"}, str(tmp_path), "s3://x/y")[:2] == [
        "read",
        "location: 's3://x/y' needs fsspec, which is not installed: pip install fsspec",
    ]


@pytest.mark.parametrize("location", [None, 3, "", "/no/such/folder"])
def test_a_location_that_is_none_is_refused(location) -> None:
    with pytest.raises(DataRefusedError, match=r"^location: "):
        place_of(location)
