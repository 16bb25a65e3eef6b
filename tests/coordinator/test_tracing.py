"""Traces, as a collector gets them over OTLP from a real coordinator."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra tracing")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@pytest.fixture
def collector() -> Iterator[tuple[str, list]]:
    spans: list = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            spans.extend(
                span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()


def test_a_round_is_a_span_with_a_child_for_each_call(plain, coordinated, collector, monkeypatch):
    endpoint, spans = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    task = coordinated(plain({}, {}), rounds=2, threshold=0.0)
    assert task.run()["phase"] == "Complete", task.log
    rounds = [span for span in spans if span.name == "round"]
    assert len(rounds) == 3 and len({span.trace_id for span in rounds}) == 3
    for span in rounds:
        children = sorted(child.name for child in spans if child.parent_span_id == span.span_id)
        assert children == ["accept", "accept", "propose", "test", "test"]
        attributes = {attribute.key: attribute.value for attribute in span.attributes}
        assert attributes["collective.accepted"].bool_value and attributes["collective.strategy"].string_value == "Vote"


def test_a_collector_that_is_away_changes_nothing(plain, coordinated, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert coordinated(plain({}), rounds=2).run()["phase"] == "Complete"
