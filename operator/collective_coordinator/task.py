"""One task from its configuration to its verdict: wires the parts, and runs keepers and rounds side by side.

Used by the program in a pod or a local process, and by ``collective demo`` on a directory that it throws away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from collective_coordinator.board import Board
from collective_coordinator.checkpoint import CheckpointStore, Snapshot
from collective_coordinator.config import Config, LearnerSpec
from collective_coordinator.crew import Crew
from collective_coordinator.delivery.delivery import Delivery
from collective_coordinator.delivery.finish import Finish
from collective_coordinator.dialing import Dialer
from collective_coordinator.errors import storage_failure
from collective_coordinator.exports import Exporting
from collective_coordinator.history import History
from collective_coordinator.member import Member
from collective_coordinator.metrics import Metrics
from collective_coordinator.peer import Peer
from collective_coordinator.privacy import Budgets
from collective_coordinator.pulse import Timing
from collective_coordinator.reload import watch
from collective_coordinator.roster import Roster
from collective_coordinator.rounds import Rounds
from collective_coordinator.setup import setup_request
from collective_coordinator.strategies.choice import strategy_of
from collective_coordinator.tracing import Span, Untraced

LOG = logging.getLogger(__name__)

_READERS = 8


async def drive(
    config: Config,
    *,
    state_dir: Path,
    board: Board,
    metrics: Metrics,
    timing: Timing,
    decided: Callable[[Snapshot], None] | None = None,
    span: Span | None = None,
    config_path: Path | None = None,
    reconfigured: Callable[[Config], None] | None = None,
    dialer: Dialer | None = None,
) -> tuple[str, str]:
    """Drive a task's rounds to the last, from wherever its state directory says it is.

    Parameters
    ----------
    config
        What to do.
    state_dir
        Where its state is kept; exists.
    board, metrics
        Told of all that happens.
    timing
        Bounds on waiting.
    decided
        Called after every decision, once it is safe on disk.
    span
        What rounds are traced under; None traces nothing.
    config_path
        The file of the configuration, to be watched for learners that join or leave; None: they stay who they are.
    reconfigured
        Told of the configuration in force when that has changed.
    dialer
        How learners are reached; None in plain text.

    Returns
    -------
    tuple of str
        Why it is complete: a reason for machines and a message for people.

    Raises
    ------
    TaskFailedError
        The task cannot be done; what was accepted before stays intact.
    """
    writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk-writer")
    arithmetic = ThreadPoolExecutor(max_workers=1, thread_name_prefix="arithmetic")
    readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="disk-reader")
    loop = asyncio.get_running_loop()
    try:
        try:
            store, history, snapshots = await loop.run_in_executor(writer, partial(_recovered, config, state_dir))
        except OSError as error:
            raise storage_failure("the state directory cannot be used", error) from error
        snapshot = snapshots[0] if snapshots else None
        if snapshot is not None:
            LOG.info("going on after round %d of %d, %d accepted", snapshot.round, config.rounds, snapshot.accepted)
            board.decided(snapshot)
        budgets = Budgets(snapshot.privacy if snapshot else {}, metrics=metrics)
        roster = Roster(policy=config.policy, timing=timing, waiting=board.waiting, spent=lambda: budgets.spent)

        def announce(decision: Snapshot) -> None:
            board.decided(decision)
            if decided is not None:
                decided(decision)

        rounds = Rounds(
            strategy=strategy_of(config.strategy, seed=config.seed or 0),
            strategy_name=config.strategy.type,
            stop=config.stop,
            budgets=budgets,
            timing=timing,
            roster=roster,
            store=store,
            history=history,
            metrics=metrics,
            snapshot=snapshot,
            decided=announce,
            writer=writer,
            readers=readers,
            arithmetic=arithmetic,
            span=span or Untraced(),
        )

        def hire(learner: LearnerSpec, known: bool) -> Member:
            return Member(
                name=learner.name,
                peer=Peer(address=learner.address, timing=timing, metrics=metrics, dialer=dialer),
                timing=timing,
                current=rounds.current,
                request=partial(setup_request, config, learner),
                resumed=known,
                readers=readers,
                changed=roster.moved,
            )

        in_force = config

        def changed(now: Config, gone: Sequence[str]) -> None:
            nonlocal in_force
            in_force = now
            for name in gone:
                metrics.forget(name)
                budgets.forget(name)
            if reconfigured is not None:
                reconfigured(now)

        delivery = (
            None
            if config.location is None
            else Delivery(url=config.location, patience_s=timing.round_s, metrics=metrics)
        )
        crew = Crew(config, roster=roster, board=board, hire=hire, resumed=snapshot is not None, changed=changed)
        watching = (
            None if config_path is None else watch(config_path, config, every_s=timing.reload_s, changed=crew.want)
        )

        finish = Finish(
            directory=state_dir,
            exporting=Exporting(
                directory=state_dir,
                store=store,
                members=lambda: roster.members,
                within_s=timing.round_s,
                writer=writer,
                readers=readers,
            ),
            delivery=delivery,
            dismiss=crew.close,
            board=board,
            readers=readers,
        )

        async def close(ended: tuple[str, str]) -> None:
            assert rounds.snapshot is not None  # noqa: S101 - rounds that are over have decided at least the first
            await finish.run(in_force, rounds.snapshot, ended)

        # What was decided before a restart was decided with a place that could be written to.
        checking = delivery.check() if delivery is not None and snapshot is None else None
        return await _run(rounds, crew, [work for work in (watching, checking) if work is not None], close)
    finally:
        writer.shutdown(wait=False)
        arithmetic.shutdown(wait=False, cancel_futures=True)
        readers.shutdown(wait=False, cancel_futures=True)


def _recovered(config: Config, state_dir: Path) -> tuple[CheckpointStore, History, list[Snapshot]]:
    store = CheckpointStore(state_dir / "checkpoint", identity=config.identity())
    snapshots = store.load()
    history = History(state_dir)
    history.recover(snapshots)
    if snapshots:
        store.prune(newest=snapshots[0].round)
    return store, history, snapshots


async def _run(
    rounds: Rounds,
    crew: Crew,
    beside: Sequence[Coroutine[None, None, None]],
    close: Callable[[tuple[str, str]], Coroutine[None, None, None]],
) -> tuple[str, str]:
    """Run the keepers beside the rounds, until the rounds are over or anything ends the task; then what closes it."""
    playing = asyncio.create_task(rounds.run(), name="rounds")
    tasks: set[asyncio.Task[Any]] = {playing, *(asyncio.create_task(work) for work in beside)}
    try:
        crew.begin()
        while not playing.done():
            waiting = [task for task in tasks if not task.done()]
            done, _ = await asyncio.wait([*waiting, crew.ended], return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                # Neither a keeper nor what goes on beside the rounds fails but with what ends the task.
                one.result()
        ended = playing.result()
        await close(ended)  # whatever ends a keeper now, the task is complete
        return ended
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()
        await crew.close()
