"""Traces, for whoever collects them: a span a round, with a child for every propose, test and accept of a learner.

Nothing is traced unless OTEL_EXPORTER_OTLP_ENDPOINT (or the one for traces alone) names a collector; then OpenTelemetry
is imported, an optional extra, and all its own variables apply. A collector that is away costs spans and nothing else:
a thread of the SDK sends them. Spans are given on by hand and not by context variables, because a learner's stream is
an asynchronous generator, which may be closed in another context than it began in.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

LOG = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MS = 1000

Attribute = str | int | float | bool


class Span(Protocol):
    """Something that takes time, and may have parts."""

    def child(self, name: str, **attributes: Attribute) -> AbstractContextManager[Span]:
        """Begin a part, which ends with the context; an exception that leaves it is its error."""

    def note(self, **attributes: Attribute) -> None:
        """Say what came of it."""


class Untraced:
    """A span that nobody looks at."""

    @contextlib.contextmanager
    def child(self, name: str, **attributes: Attribute) -> Iterator[Span]:
        """Begin a part, likewise unseen."""
        del name, attributes
        yield self

    def note(self, **attributes: Attribute) -> None:
        """Do nothing."""


class _Traced:
    """A span of OpenTelemetry's; without one, the root under which rounds begin."""

    def __init__(self, tracer: Tracer, span: OtelSpan | None) -> None:
        self._tracer = tracer
        self._span = span

    @contextlib.contextmanager
    def child(self, name: str, **attributes: Attribute) -> Iterator[Span]:
        from opentelemetry.trace import Status, StatusCode, set_span_in_context  # noqa: PLC0415 - an optional extra

        context = None if self._span is None else set_span_in_context(self._span)
        span = self._tracer.start_span(name, context=context, attributes=_prefixed(attributes))
        try:
            yield _Traced(self._tracer, span)
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, str(error)))
            raise
        finally:
            span.end()

    def note(self, **attributes: Attribute) -> None:
        if self._span is not None:
            self._span.set_attributes(_prefixed(attributes))


@contextlib.contextmanager
def tracing(*, namespace: str, task: str) -> Iterator[Span]:
    """Give the span that a task's rounds begin under; on the way out, what has not been sent is, within a second."""
    if not any(os.environ.get(variable) for variable in _ENDPOINTS):
        yield Untraced()
        return
    try:
        root, shut_down = _open(namespace=namespace, task=task)
    except ModuleNotFoundError as error:
        LOG.warning("nothing is traced: %s; pip install 'collective-operator[tracing]' brings it", error)
        yield Untraced()
        return
    try:
        yield root
    finally:
        shut_down()


def _open(*, namespace: str, task: str) -> tuple[Span, Callable[[], None]]:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": "collective-coordinator",
                "service.namespace": namespace,
                "collective.task": task,
            }
        ),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=1)))

    def shut_down() -> None:
        provider.force_flush(_FLUSH_MS)

    return _Traced(provider.get_tracer("collective_coordinator"), None), shut_down


def _prefixed(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"collective.{name}": value for name, value in attributes.items()}
