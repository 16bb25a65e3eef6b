"""A coordinator and learners over mutual TLS: a task whose authority is replaced half way, and who is not spoken to."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from collective_coordinator import dialing
from collective_coordinator.board import Board
from collective_coordinator.checkpoint import Snapshot
from collective_coordinator.config import Component, Config, LearnerSpec, Policy, StrategySpec
from collective_coordinator.dialing import CHANNEL_OPTIONS, Dialer
from collective_coordinator.errors import LearnerError
from collective_coordinator.metrics import Metrics
from collective_coordinator.peer import Peer
from collective_coordinator.pulse import Timing, Watch
from collective_coordinator.stop import Stop
from collective_coordinator.task import drive
from collective_learner import TlsFiles
from collective_operator.credentials.certificates import KeyPair

from ..pki import COORDINATOR, Pki, authority

LEARNERS = Path(__file__).parents[1] / "learner"
ROUNDS = 12


class Served:
    """A learner in a process of its own, behind its certificate."""

    def __init__(self, log: Path, files: TlsFiles) -> None:
        self.log, self.files = log, files
        options = [f"--tls-cert={files.certificate}", f"--tls-key={files.key}", f"--tls-ca={files.authority}"]
        command = [sys.executable, "renewing_server.py", *options, f"--tls-client={COORDINATOR}"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stderr=output, cwd=LEARNERS)

    def address(self) -> str | None:
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", self.log.read_text())
        return found and found[1]

    def renewals(self) -> int:
        return self.log.read_text().count("the certificate is renewed")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def serve(tmp_path: Path, wait_until: Callable[..., object]) -> Iterator[Callable[[TlsFiles], Served]]:
    served: list[Served] = []

    def start(files: TlsFiles) -> Served:
        served.append(Served(tmp_path / f"log-{len(served)}", files))
        wait_until(served[-1].address, "listening learner")
        return served[-1]

    yield start
    for one in served:
        one.process.kill()
        one.process.wait(60)


def config_of(learners: list[Served], *, rounds: int) -> Config:
    return Config(
        namespace="lab",
        name="digits",
        uid="uid",
        model=Component(name="TINY"),
        data_loader=Component(name="TINY_DATA"),
        seed=None,
        stop=Stop(rounds=rounds),
        strategy=StrategySpec(),
        learners=tuple(
            LearnerSpec(name=f"learner-{index}", address=str(learner.address()), location="3")
            for index, learner in enumerate(learners)
        ),
        policy=Policy(min_learners=len(learners), pre_running_deadline_s=60),
    )


async def test_a_task_goes_on_while_even_its_authority_is_replaced(
    serve: Callable[[TlsFiles], Served],
    pki: Pki,
    tmp_path: Path,
    wait_until: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialing, "LOOK_S", 0.0)
    learners = [serve(pki.files()) for _ in range(2)]
    caller = pki.files(COORDINATOR, "client")
    dialer = Dialer(caller)
    new = authority()
    both = KeyPair(pki.authority.certificate + new.certificate, b"")
    decided: list[int] = []

    def on_decision(snapshot: Snapshot) -> None:
        decided.append(snapshot.round)
        if snapshot.round == 3:
            # All trust both; then the coordinator shows what the new one signed, then the learners do.
            for learner in learners:
                pki.renew(learner.files, trusted=both)
                wait_until(lambda learner=learner: learner.renewals() == 1, "renewal")
            pki.renew(caller, COORDINATOR, "client", trusted=both)
        elif snapshot.round == 6:
            pki.renew(caller, COORDINATOR, "client", signed_by=new, trusted=both)
        elif snapshot.round == 9:
            for learner in learners:
                pki.renew(learner.files, signed_by=new, trusted=new)
                wait_until(lambda learner=learner: learner.renewals() == 2, "another renewal")

    config = config_of(learners, rounds=ROUNDS)
    reason, _ = await asyncio.wait_for(
        drive(
            config,
            state_dir=tmp_path,
            board=Board(config),
            metrics=Metrics(),
            timing=Timing(),
            decided=on_decision,
            dialer=dialer,
        ),
        250,
    )
    assert reason == "RoundsCompleted"
    assert decided == list(range(ROUNDS + 1))
    assert dialer.version == 2


async def test_who_is_not_the_learner_gets_nothing(serve: Callable[[TlsFiles], Served], pki: Pki) -> None:
    impostor = serve(pki.files("digits-learner-1.digits-learners.lab.svc"))
    peer = Peer(
        address=str(impostor.address()),
        timing=Timing(),
        metrics=Metrics(),
        dialer=Dialer(pki.files(COORDINATOR, "client")),
    )
    try:
        with pytest.raises(LearnerError, match=r"UNAVAILABLE: .*Hostname Verification"):
            await peer.version()
    finally:
        await peer.close()


@pytest.mark.parametrize("name", ["localhost.lab.svc", "localhost"])
async def test_who_is_dialled_by_a_short_name_must_have_the_long_one(
    serve: Callable[[TlsFiles], Served], pki: Pki, name: str
) -> None:
    learner = serve(pki.files(name))
    peer = Peer(
        address=str(learner.address()).replace("127.0.0.1", "localhost.lab.svc"),
        timing=Timing(),
        metrics=Metrics(),
        dialer=Dialer(pki.files(COORDINATOR, "client"), domain="lab.svc"),
    )
    try:
        if name == "localhost":
            with pytest.raises(LearnerError, match=r"UNAVAILABLE: .*Hostname Verification"):
                await peer.version()
        else:
            assert await peer.version() == "1.0.0"
    finally:
        await peer.close()


async def test_an_expired_certificate_that_was_renewed_is_of_no_consequence(
    serve: Callable[[TlsFiles], Served], pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialing, "LOOK_S", 0.0)
    learner = serve(pki.files())
    files = pki.files(COORDINATOR, "client", expired=True)
    peer = Peer(address=str(learner.address()), timing=Timing(), metrics=Metrics(), dialer=Dialer(files))
    try:
        with pytest.raises(LearnerError, match="UNAVAILABLE"):
            await peer.version()
        pki.renew(files, COORDINATOR, "client")
        assert await peer.version() == "1.0.0"
        os.unlink(files.key)
        assert await peer.version() == "1.0.0", "what cannot be read leaves what is in force in force"
    finally:
        await peer.close()


BUSY = """
import asyncio, re, sys
import grpc
from collective_learner import TlsFiles
from collective_learner.listener import Listener

async def main():
    files = TlsFiles(certificate=sys.argv[1], key=sys.argv[2], authority=sys.argv[3])
    build = lambda options: grpc.aio.server(options=options)
    listener = Listener(host="127.0.0.1", port=0, tls=files, build=build)
    listener.open()
    await listener.start()
    print(listener.port, flush=True)
    re.match("(a*)*b", "a" * 64)  # takes years, and holds the interpreter's lock all along

asyncio.run(main())
"""


async def test_a_busy_interpreter_is_not_death_over_tls_either(pki: Pki) -> None:
    """Nothing in a handshake may need Python."""
    files = pki.files()
    arguments = [str(path) for path in (files.certificate, files.key, files.authority)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BUSY, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        address = f"127.0.0.1:{int(await process.stdout.readline())}"
        timing = Timing(heartbeat_s=0.1, answer_s=0.2, handshake_s=10.0)
        dialer = Dialer(pki.files(COORDINATOR, "client"))
        async with (
            dialer.channel(address) as channel,
            Watch(channel, address=address, timing=timing, dialer=dialer) as watch,
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watch.race(asyncio.Event().wait()), 2)
        async with (
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel,
            Watch(channel, address=address, timing=Timing(heartbeat_s=0.1, answer_s=0.2, handshake_s=0.3)) as watch,
        ):
            with pytest.raises(LearnerError, match="no sign of life"):
                await asyncio.wait_for(watch.race(asyncio.Event().wait()), 30)
    finally:
        process.kill()
        await process.wait()
