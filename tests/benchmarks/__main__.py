"""``python -m tests.benchmarks [NAME...]``: every figure beside its baseline, medians of at least five, in turn."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from tests.benchmarks.bare import bare_rounds
from tests.benchmarks.harness import Lag, Row, Timed, compare, config_of, processes, report, timed_rounds
from tests.benchmarks.memory import peak_megabytes
from tests.benchmarks.start import start
from tests.benchmarks.training import RUNS, timed

from collective_coordinator.aggregation.reduce import fold, mean

PART = 1 << 19
TRAINING_S = 0.2
REPEATS = int(os.environ.get("BENCH_REPEATS", "5"))


def learners(count: int, *, together: int = 1, **settings: float | str) -> list[tuple[str, str]]:
    """Name the processes that serve so many learners."""
    each = json.dumps({"count": together, **settings})
    return [("tests.benchmarks.learners", each)] * (count // together)


def transfer() -> Iterator[Row]:
    """One 100 MB model from a learner through the coordinator to another, against the same bytes through bare gRPC.

    Ours is what a voted round takes from when one learner has given its proposal away to when the other is asked to
    vote on it, checked and ready; the bare stream goes the same way, in the same parts, to a receiver that keeps them.
    Each training takes a while, in which the round before comes to rest, as before each run of the bare stream.
    """
    megabytes = 100
    parts = megabytes * 1_000_000 // PART
    bare = ("tests.benchmarks.raw", "serve", str(PART), str(parts))
    with tempfile.TemporaryDirectory() as directory:
        marks = [str(Path(directory, name)) for name in ("one", "other")]
        ours = [learners(1, megabytes=megabytes, train_s=TRAINING_S, marks=path)[0] for path in marks]
        with processes(*ours, bare, bare) as ((one,), (other,), (source,), (sink,)):
            whole: list[float] = []
            limit: list[float] = []
            lags: list[float] = []
            for _ in range(REPEATS):
                limit += [megabytes / seconds for seconds in raw_relay(source, sink, times=3)]

                async def voted() -> Timed:
                    async with Lag() as lag:
                        timed = await timed_rounds(config_of([one, other], rounds=5))
                    lags.append(lag.worst * 1000)
                    return timed

                whole += [megabytes / (seconds - TRAINING_S) for seconds in asyncio.run(voted()).seconds]
        moved = [megabytes / seconds for seconds in moves(marks)]
    yield compare("a 100 MB model, learner to learner", moved, limit, unit="MB/s", bar=">= 0.85")
    yield compare("  with the decision on disk and accepted", whole, limit, unit="MB/s", bar="")
    yield compare("  longest pause of the event loop meanwhile", lags, [50.0] * len(lags), unit="ms", bar="<= 1")


def raw_relay(source: int, sink: int, *, times: int) -> list[float]:
    """Time the bare stream."""
    command = [sys.executable, "-m", "tests.benchmarks.raw", "relay", str(source), str(sink), str(times)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
    seconds: list[float] = json.loads(answer.stdout)
    return seconds


def moves(marks: list[str]) -> list[float]:
    """Seconds from each proposal to the other learner's test of it."""
    one, other = ([json.loads(line) for line in Path(path).read_text().splitlines()] for path in marks)
    return [
        min(at for what, at in there if what == "got" and at > gave) - gave
        for here, there in ((one, other), (other, one))
        for what, gave in here
        if what == "gave"
    ]


def latency() -> Iterator[Row]:
    """Voted rounds of nothing, against the same RPCs fanned out bare."""
    for count in (8, 32):
        with processes(*learners(count, together=8)) as groups:
            ports = [port for group in groups for port in group]
            ours: list[float] = []
            limit: list[float] = []
            for _ in range(REPEATS):
                ours += asyncio.run(timed_rounds(config_of(ports, rounds=22))).seconds
                limit += asyncio.run(bare_rounds(ports, rounds=20))
        yield compare(
            f"an empty voted round, {count} learners",
            [1000 * second for second in ours],
            [1000 * second for second in limit],
            unit="ms",
            bar="<= 1.2",
        )


def work() -> Iterator[Row]:
    """Sixteen learners that train 0.5 s, test 0.2 s and would test again for 0.1 s, against 0.7 s of pure work."""
    with processes(*learners(16, together=4, train_s=0.5, test_s=0.2, accept_s=0.1)) as groups:
        ports = [port for group in groups for port in group]
        ours = asyncio.run(timed_rounds(config_of(ports, rounds=REPEATS + 2))).seconds
    yield compare("a round of 0.5 + 0.2 s of work, 16 learners", ours, [0.7] * len(ours), unit="s", bar="<= 1.07")


def memory() -> Iterator[Row]:
    """Peak memory of a coordinator, 500 MB model, 32 learners."""
    for strategy in ("Vote", "FedAvg"):
        peaks = [peak_megabytes(strategy=strategy, learners=32, megabytes=500, rounds=1)]
        yield compare(f"peak RSS, 500 MB, 32 learners, {strategy}", peaks, [200.0], unit="MB", bar="<= 1")


def averaging() -> Iterator[Row]:
    """Folding 32 learners' pieces, against numpy's bare multiply and add over the same memory."""
    rng = np.random.default_rng(0)
    count = 32
    models = [rng.normal(size=4 * PART // 4).astype(np.float32) for _ in range(count)]
    weights = np.ones(count)
    share = np.float32(1 / count)

    def ours() -> None:
        for begin in range(0, models[0].nbytes, PART):
            pieces = [memoryview(model).cast("B")[begin : begin + PART] for model in models]
            fold(mean, pieces, "F32", weights)

    def bare() -> None:
        total, scratch = np.zeros_like(models[0]), np.empty_like(models[0])
        for model in models:
            np.multiply(model, share, out=scratch)
            np.add(total, scratch, out=total)

    size = sum(model.nbytes for model in models) / 1e6
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(3 * REPEATS):
        for name, run in (("ours", ours), ("bare", bare)):
            started = time.perf_counter()
            run()
            rates[name].append(size / (time.perf_counter() - started))
    yield compare("averaging 32 learners", rates["ours"], rates["bare"], unit="MB/s", bar=">= 0.8")


def training() -> Iterator[Row]:
    """A training by a learner, up to its proposal laid out for the wire, against the loop that it wraps."""
    for name, (title, _) in RUNS.items():
        ours, bare = timed(name, max(REPEATS, 15))
        yield compare(title, ours, bare, unit="s", bar="<= 1.02")


BENCHMARKS: dict[str, Callable[[], Iterator[Row]]] = {
    "transfer": transfer,
    "latency": latency,
    "work": work,
    "memory": memory,
    "averaging": averaging,
    "start": lambda: start(REPEATS),
    "training": training,
}


def main(names: list[str]) -> None:
    """Run those named, or all."""
    rows = [row for name in names or BENCHMARKS for row in BENCHMARKS[name]()]
    report(rows, path=Path("dist/bench.json"))


if __name__ == "__main__":
    main(sys.argv[1:])
