"""What will go wrong, and in which task: all drawn from one seed before anything runs.

When a fault comes is counted in decided rounds, and a little time, so that a slow machine meets the same moments. What
exactly a process does at that moment is its own business: the same seed gives the same plan, not the same run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

COORDINATOR = -1
KILL, TERMINATE, PAUSE, CUT, FULL, SECOND = "kill", "terminate", "pause", "cut", "full disk", "second coordinator"
KINDS = (KILL, TERMINATE, PAUSE, CUT, FULL, SECOND)
CUTS = ("refuse", "stall", "lose", "delay", "snap")
ROUNDS_A_TASK = 125
BIG = 600_000
"""Values of a model that goes in several parts."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Parameters
    ----------
    kind
        One of `KINDS`.
    after, told, delay_s
        Once so many rounds are decided and their lines can be read (`told`), or as soon as the last of these decisions
        is on disk and before everyone knows; and a little later.
    victim
        A learner's index, or `COORDINATOR`.
    seconds
        How long it lasts; after a kill, until the next start.
    cut
        How the network fails.
    room
        Bytes left on the full disk.
    """

    kind: str
    after: int
    told: bool
    delay_s: float
    victim: int
    seconds: float
    cut: str = ""
    room: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One task and its faults."""

    name: str
    rounds: int
    strategy: dict[str, Any]
    foreign: tuple[bool, ...]
    """By learner: whether it has a server of another make."""
    min_learners: int
    size: int
    train_s: float
    small_disk: bool
    faults: tuple[Fault, ...]


def draw(*, seed: int, kills: int, rounds: int, disks: bool) -> list[Plan]:
    """Divide rounds and kills among tasks, and draw the rest."""
    count = max(1, -(-rounds // ROUNDS_A_TASK))
    return [
        _plan(
            random.Random(f"{seed}:{index}"),
            f"task-{index}",
            rounds=_share(rounds, count, index),
            kills=_share(kills, count, index),
            disks=disks,
        )
        for index in range(count)
    ]


def _share(total: int, count: int, index: int) -> int:
    return total * (index + 1) // count - total * index // count


def _plan(dice: random.Random, name: str, *, rounds: int, kills: int, disks: bool) -> Plan:
    learners = dice.choice((2, 3, 3, 4))
    small_disk = disks and dice.random() < 0.5
    foreign = tuple(dice.random() < 0.25 for _ in range(learners))
    kinds = [KILL] * kills
    for kind, share in ((TERMINATE, 0.1), (PAUSE, 0.15), (CUT, 0.3), (FULL, 0.08 if small_disk else 0), (SECOND, 0.04)):
        kinds += [kind] * _about(dice, kills * share)
    dice.shuffle(kinds)
    faults: list[Fault] = []
    while kinds:
        # Often several at once: it is the second fault that finds a system unprepared.
        after, together = dice.randrange(rounds), dice.choice((1, 1, 1, 2, 3))
        faults += [_fault(dice, kind, after=after, foreign=foreign) for kind in kinds[:together]]
        del kinds[:together]
    return Plan(
        name=name,
        rounds=rounds,
        strategy=_strategy(dice),
        size=BIG if dice.random() < 0.1 else 500,
        foreign=foreign,
        train_s=dice.choice((0.0, 0.001, 0.01)),
        min_learners=dice.randint((learners + 1) // 2, learners),
        small_disk=small_disk,
        faults=tuple(sorted(faults, key=lambda fault: fault.after)),
    )


def _about(dice: random.Random, wanted: float) -> int:
    return int(wanted) + (dice.random() < wanted % 1)


def _fault(dice: random.Random, kind: str, *, after: int, foreign: tuple[bool, ...]) -> Fault:
    told = dice.random() < 0.5
    delay_s = dice.choice((0.0, dice.uniform(0, 0.02), dice.uniform(0, 0.2))) if told else dice.uniform(0, 0.01)
    victim = dice.randrange(len(foreign))
    if kind in (FULL, SECOND) or (kind != CUT and dice.random() < 0.4):
        victim = COORDINATOR
    longest = {KILL: 0.3, TERMINATE: 0.3, PAUSE: 2.5, CUT: 1.5, FULL: 0.5, SECOND: 0.0}[kind]
    seconds = dice.choice((0.0, dice.uniform(0, longest / 5), dice.uniform(0, longest)))
    cut = dice.choice(CUTS) if kind == CUT else ""
    if cut == "delay" and foreign[victim]:
        # What comes late undoes what came since, and the interface of others has no word to tell.
        cut = "stall"
    if cut == "delay":
        seconds *= 2
    return Fault(
        kind=kind,
        after=after,
        told=told,
        delay_s=delay_s,
        victim=victim,
        seconds=seconds,
        cut=cut,
        room=dice.choice((0, 4096, 8192, 20_000)) if kind == FULL else 0,
    )


def _strategy(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(("Vote", "Vote", "FedAvg", "FedOpt", "FedOpt", "Cyclic"))
    if kind == "Vote":
        return {"type": kind, "vote": {"threshold": dice.choice((0.0, 0.5, 1.0))}}
    strategy: dict[str, Any] = {"type": kind}
    if kind == "FedAvg":
        strategy["fedAvg"] = {"fraction": dice.choice((0.5, 1.0))}
    if kind == "FedOpt":
        method = dice.choice(("AvgM", "Adagrad", "Adam", "Yogi"))
        rate = 1.0 if method == "AvgM" else 0.03
        strategy["fedOpt"] = {"method": method, "learningRate": rate, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
    if kind != "Cyclic":
        strategy["aggregation"] = dice.choice(("Mean", "Mean", "Median"))
    if dice.random() < 0.5:
        strategy["gate"] = {"type": "Vote", "threshold": dice.choice((0.5, 0.75))}
    return strategy
