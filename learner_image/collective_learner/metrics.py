"""What a learner tells over plain HTTP: its calls, how fast it trains, its GPUs, and whether it is well.

No name of a task, learner or round is a label: the scrape knows which pod it asked, and pods come and go.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app

from collective_learner.gpus import GpuCollector
from collective_learner.health import LIVENESS, Health
from collective_learner.pages import serve_pages
from collective_learner.progress import Training, TrainingProgress

if TYPE_CHECKING:
    from collective_learner.mli import MachineLearningInterface

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)


class LearnerMetrics:
    """The series of one learner, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rpcs = Counter(
            "collective_rpc", "Calls that this learner answered.", ["method", "code"], registry=self.registry
        )
        self.train_seconds = Histogram(
            "collective_train_seconds", "Time to train a proposal.", buckets=_SECONDS, registry=self.registry
        )
        self.test_seconds = Histogram(
            "collective_test_seconds", "Time to test a proposal.", buckets=_SECONDS, registry=self.registry
        )
        self._progress = TrainingProgress()
        self.registry.register(self._progress)
        self.registry.register(GpuCollector())
        self._served: tuple[WSGIServer, threading.Thread] | None = None

    def training(self, mli: MachineLearningInterface) -> AbstractContextManager[Training]:
        """Count the examples of a training while it goes on."""
        return self._progress.training(mli)

    def serve(self, *, host: str, port: int, health: Health) -> None:
        """Answer /metrics, /healthz and /readyz; call it from the event loop that `health` belongs to.

        Raises
        ------
        OSError
            The port cannot be had.
        """
        probes = {"/healthz": lambda: health.is_serving(LIVENESS), "/readyz": lambda: health.is_serving("")}
        self._served = serve_pages(host, port, metrics=make_wsgi_app(self.registry), probes=probes)

    def stop(self) -> None:
        """Stop answering."""
        if self._served is not None:
            server, thread = self._served
            self._served = None
            server.shutdown()
            server.server_close()
            thread.join()
