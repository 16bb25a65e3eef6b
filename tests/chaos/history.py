"""What must hold after a task, found from the outside: the files for people, the learners' journals, their weights."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import tiny
from blake3 import blake3
from harness import Chaos
from safetensors.numpy import load

from collective_coordinator.aggregation.backtrack import share_of_way
from collective_coordinator.aggregation.server import ServerOptimizer

Event = dict[str, Any]
_CLOSE = 2e-3
"""Rounding in single precision gathers over the rounds; a step that is lost or doubled is far more."""


def check(chaos: Chaos) -> list[str]:
    """Compare all that is told, and return what does not agree."""
    return list(_Check(chaos).findings())


class _Check:
    def __init__(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.plan = chaos.plan
        self.records: list[Event] = [json.loads(line) for line in chaos.seen]
        self.accepted: list[Event] = [record for record in self.records if record["accepted"]]
        self.journals: dict[str, list[Event]] = {}
        for index in range(len(chaos.plan.foreign)):
            lines = (chaos.directory / f"learner-{index}.jsonl").read_text().splitlines()
            self.journals[f"learner-{index}"] = [json.loads(line) for line in lines]
        self.model = (chaos.state / "model.safetensors").read_bytes()
        self.held: dict[int, Event] = {}
        """By generation, the first time that anybody took it."""

    def findings(self) -> Iterator[str]:
        yield from self._rounds()
        yield from self._applied()
        yield from self._ballots()
        yield from self._ends()
        yield from self._values()

    def _rounds(self) -> Iterator[str]:
        numbers = [record["round"] for record in self.records]
        if numbers != list(range(1, self.plan.rounds + 1)):
            yield f"rounds.jsonl does not hold every round once and in order: {numbers}"
        verdict = self.chaos.verdicts[-1]
        told = {"current": self.plan.rounds, "total": self.plan.rounds, "accepted": len(self.accepted)}
        if (verdict["reason"], verdict["round"]) != ("RoundsCompleted", told):
            yield f"the verdict is {verdict['reason']} with {verdict['round']}, not {told}"
        if verdict["result"]["digest"] != f"blake3:{blake3(self.model).hexdigest()}":
            yield "the verdict names another model than model.safetensors"
        for earlier, later in pairwise(self.chaos.verdicts):
            if earlier["round"]["current"] > later["round"]["current"]:
                yield f"a later verdict knows fewer rounds: {earlier['round']}, then {later['round']}"
        if not (self.chaos.state / "best-model.safetensors").exists():
            yield "there is no best-model.safetensors"

    def _applied(self) -> Iterator[str]:
        """Every learner takes a subsequence of what was accepted, in order, and the same as the others.

        Only what the network has kept back may arrive after something newer. That its learner then takes part with it
        in a decision shows in `_ballots`.
        """
        late = {fault.victim for fault in self.plan.faults if fault.cut == "delay"}
        for name, journal in self.journals.items():
            last = -1
            for event in journal:
                if event["event"] != "accept":
                    continue
                generation = event["generation"]
                if generation < last and int(name.removeprefix("learner-")) not in late:
                    yield f"{name} went back from generation {last} to {generation}"
                last = generation
                first = self.held.setdefault(generation, event)
                if first["hash"] != event["hash"]:
                    yield f"generation {generation} was applied with different weights, by {name} and another"
        for generation, event in self.held.items():
            if generation > len(self.accepted):
                yield f"generation {generation} was applied, {len(self.accepted)} were accepted"
            elif generation and event["round"] != self.accepted[generation - 1]["round"]:
                yield f"generation {generation} is of round {event['round']}, which was not the one accepted"
            before = self.held.get(generation - 1)
            if before and event["parent"] != before["hash"]:
                yield f"generation {generation} was not trained from the one before"

    def _ballots(self) -> Iterator[str]:
        """Scores and votes belong to one proposal that its trainers made, and that each voter has tested."""
        tested: dict[str, dict[int, set[str]]] = {name: defaultdict(set) for name in self.journals}
        compared: dict[tuple[str, str], set[str]] = defaultdict(set)
        trained: dict[str, dict[int, set[str]]] = {name: defaultdict(set) for name in self.journals}
        for name, journal in self.journals.items():
            for event in journal:
                if event["event"] in ("test", "train"):
                    into = tested if event["event"] == "test" else trained
                    into[name][event["round"]].add(event["hash"])
                    if event["event"] == "test":
                        compared[name, event["hash"]].add(event["held"])
        hashes = {
            self.accepted[generation - 1]["round"]: event["hash"]
            for generation, event in self.held.items()
            if 0 < generation <= len(self.accepted)
        }
        generation = 0
        for record in self.records:
            number, scores = record["round"], record["testScores"]
            candidates = set.intersection(*(tested[name][number] for name in scores)) if scores else set()
            if number in hashes:
                candidates &= {hashes[number]}
            if self.plan.strategy["type"] in ("Vote", "Cyclic"):
                candidates &= trained[record["trainers"][0]][number]
            if not any(self._told(record, candidate) for candidate in candidates):
                yield f"round {number}: nobody made a proposal that these learners tested with these scores and votes"
            held = self.held.get(generation)
            for name in scores if held else ():
                if not any(held["hash"] in compared[name, candidate] for candidate in candidates):
                    yield f"round {number}: {name} compared the proposal with other weights than those accepted last"
            generation += record["accepted"]
            for name in record["trainers"]:
                if not trained[name][number]:
                    yield f"round {number}: {name} has not trained in it"

    def _told(self, record: Event, candidate: str) -> bool:
        for name, score in record["testScores"].items():
            vote, expected = tiny.verdict(candidate, name.removeprefix("learner-"))
            if abs(score - expected) > 1e-6 or record["votes"].get(name, vote) != vote:
                return False
        return True

    def _ends(self) -> Iterator[str]:
        for index, weights in self.chaos.final.items():
            if weights != self.model and not self._same_tensors(weights):
                yield f"learner-{index} holds other weights than model.safetensors in the end"

    def _same_tensors(self, weights: bytes) -> bool:
        """A foreign server lays the same tensors out in its own way."""
        return tiny.fingerprint(load(weights)) == tiny.fingerprint(load(self.model))

    def _values(self) -> Iterator[str]:
        """Go through the accepted rounds again, server optimizer included, and compare what came of them."""
        model = load(self.model)
        last = self.accepted[-1]["round"] if self.accepted else 0
        if model["counter"].tolist() != [len(self.accepted), last]:
            yield f"the model has been accepted {model['counter'].tolist()}, not {[len(self.accepted), last]}"
        values = np.zeros(self.plan.size, np.float32)
        strategy = self.plan.strategy
        optimizer, state = None, []
        if strategy["type"] == "FedOpt":
            settings = dict(strategy["fedOpt"])
            optimizer = ServerOptimizer(learning_rate=settings.pop("learningRate"), **settings)
            state = optimizer.initial(values.size)
        before = 0
        for generation, record in enumerate(self.accepted, start=1):
            whole = tiny.moved(values, record["round"])
            if optimizer is not None:
                whole, state = optimizer.step(values, whole, state)
            # An average goes less far after rounds that were rejected.
            rejected = 0 if strategy["type"] in ("Vote", "Cyclic") else record["round"] - 1 - before
            values = values + np.float32(share_of_way(rejected)) * (whole - values)
            before = record["round"]
            held = self.held.get(generation)
            if held and not np.isclose(held["value"], values[0], rtol=_CLOSE, atol=_CLOSE):
                yield f"round {record['round']}: the values are off, {held['value']:g} and not {values[0]:g}"
                return
        if not np.allclose(model["values"], values, rtol=_CLOSE, atol=_CLOSE):
            yield f"the model's values are off by {np.abs(model['values'] - values).max():g}"
