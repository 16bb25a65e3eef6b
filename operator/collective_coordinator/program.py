"""The coordinator as a program: configuration in, verdict out, and an orderly end when told to stop.

A verdict, Complete or Failed, is work done: the exit status is 0, so that nothing starts the program again. It is kept
in ``verdict.json``, and a program that is started again for the same configuration repeats it and does nothing else. A
configuration that says that it is another try (``task.retry``) is not the same, nor one that was changed: the verdict
goes then, and the rounds go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collective_coordinator import http, results
from collective_coordinator.board import Board, Document, write_last_word
from collective_coordinator.config import Config, ConfigError, parse_config
from collective_coordinator.dialing import Dialer
from collective_coordinator.durable import write_durably
from collective_coordinator.errors import TaskFailedError
from collective_coordinator.history import ROUNDS
from collective_coordinator.metrics import Metrics
from collective_coordinator.pulse import Timing
from collective_coordinator.results import serving_results
from collective_coordinator.task import drive
from collective_coordinator.tracing import tracing
from collective_coordinator.tracking.tracking import tracking
from collective_learner.tls import TlsError, TlsFiles
from collective_web.open_port import listening

LOG = logging.getLogger(__name__)

VERDICT = "verdict.json"
EXIT_VERDICT, EXIT_CRASH, EXIT_INPUT = 0, 1, 2

_STOP_WITHIN_S = 1.7
"""After a signal; what still hangs then (a disk, a thread) is left to the system. Nothing is lost by that."""

_LOCK_WITHIN_S = 10.0


async def run_program(
    *,
    config_path: Path,
    state_dir: Path,
    host: str,
    port: int,
    last_word: Path,
    results_port: int | None = None,
    timing: Timing | None = None,
    tls: TlsFiles | None = None,
    domain: str = "",
) -> int:
    """Run to the verdict, or to a signal.

    Returns
    -------
    int
        The exit status: 0 with a verdict, 1 when the program could not run, 2 for a configuration that cannot be read
        and nowhere to say so, 128 + n after signal n.
    """
    try:
        config = read_config(config_path)
    except (OSError, UnicodeError, ConfigError) as error:
        LOG.error("%s: %s", config_path, error)
        return EXIT_VERDICT if _say(last_word, _refusal(f"{config_path.name}: {error}")) else EXIT_INPUT
    try:
        dialer = Dialer(tls, domain=domain)
    except TlsError as error:
        LOG.error("%s", error)
        return EXIT_CRASH
    timing = timing or Timing(round_s=config.policy.round_timeout_s)
    board, metrics = Board(config), Metrics()
    stopped: list[int] = []

    async def to_verdict() -> Document:
        async with contextlib.AsyncExitStack() as stack:
            if results_port is not None:
                await stack.enter_async_context(serving_results(results.application(state_dir), port=results_port))
            return await _to_verdict(
                config,
                config_path=config_path,
                state_dir=state_dir,
                board=board,
                metrics=metrics,
                timing=timing,
                host=host,
                port=port,
                dialer=dialer,
            )

    work = asyncio.create_task(to_verdict())
    with _signals(work, stopped):
        try:
            document = await work
        except asyncio.CancelledError:
            if not stopped:
                raise
            LOG.info("stopped by %s after round %d", signal.Signals(stopped[0]).name, board.round)
            return 128 + stopped[0]
        except (OSError, InUseError) as error:
            LOG.error("%s", error)
            return EXIT_CRASH
    _say(last_word, document)
    return EXIT_VERDICT


def read_config(path: Path) -> Config:
    """Read the configuration's file."""
    return parse_config(path.read_text(encoding="utf-8"))


async def _to_verdict(
    config: Config,
    *,
    config_path: Path,
    state_dir: Path,
    board: Board,
    metrics: Metrics,
    timing: Timing,
    host: str,
    port: int,
    dialer: Dialer,
) -> Document:
    in_force = config

    def reconfigured(now: Config) -> None:
        nonlocal in_force
        in_force = now

    try:
        with contextlib.ExitStack() as held:
            pages = http.application(board, metrics, rounds=state_dir / ROUNDS)
            async with listening(pages, host=host, port=port) as bound:
                LOG.info(
                    "task %s/%s: %d learners, %d rounds; http on port %d",
                    config.namespace,
                    config.name,
                    len(config.learners),
                    config.rounds,
                    bound,
                )
                try:
                    os.makedirs(state_dir, exist_ok=True)
                    held.enter_context(await _locked(state_dir / ".lock"))
                    earlier = _earlier(state_dir / VERDICT, config)
                except OSError as error:
                    raise TaskFailedError(
                        "StorageFailed", f"the state directory {state_dir} cannot be used: {error.strerror or error}"
                    ) from error
                if earlier is not None:
                    LOG.info("the verdict has been given before: %s", earlier["phase"])
                    return {**earlier, "uid": config.uid}
                with tracing(namespace=config.namespace, task=config.name) as span:
                    async with tracking(
                        config, state_dir=state_dir, metrics=metrics, within_s=timing.round_s
                    ) as trackers:
                        reason, message = await drive(
                            config,
                            state_dir=state_dir,
                            board=board,
                            metrics=metrics,
                            timing=timing,
                            span=span,
                            config_path=config_path,
                            reconfigured=reconfigured,
                            dialer=dialer,
                        )
                        if config.trackers:
                            board.uploading(", ".join(config.trackers))
                board.verdict("Complete", reason, message + trackers.trouble())
    except TaskFailedError as error:
        board.verdict("Failed", error.reason, error.message)
    document = board.document()
    LOG.log(
        logging.INFO if board.phase == "Complete" else logging.ERROR,
        "%s (%s): %s",
        document["phase"],
        document["reason"],
        document["message"],
    )
    _keep(state_dir / VERDICT, in_force, document)
    return document


async def _locked(path: Path) -> contextlib.AbstractContextManager[None]:
    """Take the state directory for this process alone; one that is just being killed may hold it a little longer."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    give_up = asyncio.get_running_loop().time() + _LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() > give_up:
                os.close(descriptor)
                raise InUseError(f"{path.parent} is in use by another coordinator") from None
            await asyncio.sleep(0.1)
            continue
        break

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        try:
            yield
        finally:
            os.close(descriptor)

    return hold()


class InUseError(Exception):
    """Another coordinator works on this state directory; it may be gone at the next start."""


def _earlier(path: Path, config: Config) -> Document | None:
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        LOG.warning("%s cannot be read, the verdict is found again", path)
        return None
    if not isinstance(kept, dict) or kept.get("config") != config.fingerprint():
        # Gone at once: should the configuration be what it was again, this verdict would still be an earlier try's.
        path.unlink()
        return None
    status: Any = kept.get("status")
    return status if isinstance(status, dict) else None


def _keep(path: Path, config: Config, document: Document) -> None:
    content = json.dumps({"config": config.fingerprint(), "status": document}, indent=1).encode()
    try:
        write_durably(path, content)
    except OSError as error:
        LOG.error("%s cannot be written: %s", path, error.strerror)


def _say(path: Path, document: Document) -> bool:
    try:
        write_last_word(path, document)
    except OSError as error:
        LOG.warning("the last word cannot be written to %s: %s", path, error.strerror)
        return False
    return True


def _refusal(message: str) -> Document:
    return {
        "version": 1,
        "uid": "",
        "phase": "Failed",
        "reason": "InvalidConfig",
        "message": message,
        "round": {"current": 0, "total": 0, "accepted": 0},
        "latest": None,
        "learners": [],
        "result": None,
    }


@contextlib.contextmanager
def _signals(work: asyncio.Task[Document], stopped: list[int]) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a cancellation that ends in time, whatever hangs."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if not stopped:
            stopped.append(number)
            # A thread of its own: the end must not hang on the loop, nor on the threads that Python waits for at exit.
            timer = threading.Timer(_STOP_WITHIN_S, os._exit, (128 + number,))
            timer.daemon = True
            timer.start()
            work.cancel()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        if not stopped:
            for number in numbers:
                loop.remove_signal_handler(number)
