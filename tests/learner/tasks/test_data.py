"""Shards: disjoint, complete, equally large, the same for everyone, skewed on demand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collective_learner.tasks.data import load_shard, parse_location

OPTIONS = {"train_ratio": 0.6, "vote_ratio": 0.2, "skew": 0.0, "batch_size": 32, "seed": 0}


def shard(examples: int, location: str, **options):
    """Load a shard of a data set in which every example carries its own number as its input."""
    x = np.arange(examples, dtype=np.float32)[:, None]
    y = (np.arange(examples) % 4).astype(np.int64)
    return load_shard(x, y, classes=4, location=location, **{**OPTIONS, **options})


def numbers(data) -> list[int]:
    return [int(number) for split in (data.train, data.vote, data.test) for number in split.x[:, 0]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n // 3))),
    st.floats(0, 1),
    st.tuples(st.floats(0.01, 0.98), st.floats(0.01, 0.98)).filter(lambda ratios: sum(ratios) < 0.99),
    st.integers(0, 2**32 - 1),
)
def test_shards_are_disjoint_complete_and_never_empty(sizes, skew, ratios, seed) -> None:
    examples, count = sizes
    options = {"skew": skew, "train_ratio": ratios[0], "vote_ratio": ratios[1], "seed": seed}
    shards = [shard(examples, f"{index}/{count}", **options) for index in range(count)]
    assert sorted(number for each in shards for number in numbers(each)) == list(range(examples))
    lengths = [len(numbers(each)) for each in shards]
    assert max(lengths) - min(lengths) <= 1
    for each in shards:
        for split in (each.train, each.vote, each.test):
            assert len(split.x) == len(split.y) >= 1
            assert np.array_equal(split.y, split.x[:, 0].astype(np.int64) % 4)  # labels stay with their examples


def test_splits_have_the_sizes_asked_for_and_the_seed_decides() -> None:
    data = shard(1000, "1/4", train_ratio=0.7, vote_ratio=0.1)
    assert [len(split.y) for split in (data.train, data.vote, data.test)] == [175, 25, 50]
    assert numbers(shard(1000, "1/4")) == numbers(shard(1000, "1/4"))
    assert numbers(shard(1000, "1/4")) != numbers(shard(1000, "1/4", seed=1))


def test_skew_gives_shards_few_labels() -> None:
    def majority(skew: float) -> float:
        shares = []
        for index in range(4):
            data = shard(400, f"{index}/4", skew=skew)
            labels = np.concatenate([data.train.y, data.vote.y, data.test.y])
            shares.append(np.bincount(labels).max() / len(labels))
        return float(np.mean(shares))

    # Four labels: with skew 1 each shard holds one, with 0.5 half of it and a quarter of the rest.
    assert majority(0) < 0.35
    assert majority(0.5) == pytest.approx(0.625, abs=0.08)
    assert majority(1) == 1


@pytest.mark.parametrize("location", ["", "2", "2/", "/5", "-1/5", "2/5 ", "a/b", "1.0/5", "٢/٥", None, 3])  # noqa: RUF001 - a digit of another script
def test_locations_that_cannot_be_read(location) -> None:
    with pytest.raises(ValueError, match=r"location: .* 'index/count' is needed, such as '2/5'"):
        parse_location(location, examples=100)


def test_locations_out_of_range() -> None:
    assert parse_location("4/5", examples=100) == (4, 5)
    with pytest.raises(ValueError, match="location: '5/5', shards are counted from 0 to 4"):
        parse_location("5/5", examples=100)
    with pytest.raises(ValueError, match="location: '0/0', 100 examples make 1 to 33 shards"):
        parse_location("0/0", examples=100)
    with pytest.raises(ValueError, match="location: '0/34', 100 examples make 1 to 33 shards"):
        parse_location("0/34", examples=100)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_ratio", 0),
        ("train_ratio", 1),
        ("train_ratio", "0.5"),
        ("train_ratio", None),
        ("vote_ratio", 0.0),
        ("vote_ratio", 0.4),
        ("skew", -0.1),
        ("skew", 1.5),
        ("skew", True),
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("seed", -1),
        ("seed", 1.5),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(name: str, value) -> None:
    with pytest.raises(ValueError, match=name):
        shard(100, "0/2", **{name: value})
