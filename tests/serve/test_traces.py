"""Boots as OpenTelemetry traces: what the library is told, and what a collector gets, read by OTLP's own schema."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest
from google.protobuf import json_format
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from boot_stories import WALL, booted, mac, records, refused
from bootwire.facts import Record, TransferDone, Verdict
from bootwire.observe.boots import Boots
from bootwire.observe.story import Json, whole
from bootwire.serve.traces import Traces, wanted


def traced(*stories: list[tuple[float, object]]) -> tuple[ReadableSpan, ...]:
    spans = InMemorySpanExporter()
    tell(SimpleSpanProcessor(spans), *stories)
    return spans.get_finished_spans()


def tell(processor: SpanProcessor | None, *stories: list[tuple[float, object]]) -> None:
    boots = Boots()

    def boot(number: int) -> Json | None:
        found = boots.numbered(number)
        return whole(found) if found else None

    traces = Traces(boot, processor)
    told: list[Verdict] = []
    for number, story in enumerate(stories):
        for record in records(story, number * 100):  # type: ignore[arg-type]
            told += boots.take(record)
    told += boots.tick(10**15 + 10**12)
    for verdict in told + told:
        traces.take(Record(0, 0, verdict))
    traces.close()


def test_a_boot_is_one_trace_with_a_span_for_all_that_took_its_time() -> None:
    spans = traced(booted(1))
    (root,) = (span for span in spans if span.parent is None)
    assert root.attributes
    assert (root.name, root.attributes["bootwire.machine"], root.attributes["bootwire.state"]) == (
        "boot", mac(1), "booted")  # fmt: skip
    assert root.start_time == int(WALL * 1e9)
    assert {span.context.trace_id for span in spans if span.context} == {root.context.trace_id}  # type: ignore[union-attr]
    (initrd,) = (span for span in spans if span.name == "initrd")
    assert initrd.parent
    assert initrd.parent.span_id == root.context.span_id  # type: ignore[union-attr]
    assert abs((initrd.end_time or 0) - (initrd.start_time or 0) - 2.9e9) < 1e6
    assert root.resource.attributes["service.name"] == "bootwire"


def test_a_boot_that_got_stuck_is_an_error_with_its_cause() -> None:
    (root,) = (span for span in traced(refused(1)) if span.parent is None)
    assert root.status.status_code.name == "ERROR"
    assert root.attributes
    assert root.attributes["bootwire.cause"] == "loader-refused"
    assert "shows no sign of life" in (root.status.description or "")


def test_a_boot_is_told_once() -> None:
    assert sum(span.parent is None for span in traced(booted(1), booted(2))) == 2


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes what is posted, as it came, and answers as OTLP/HTTP says (specification 1.9, "OTLP/HTTP Response")."""

    taken: ClassVar[list[tuple[str, str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.path, self.headers["Content-Type"], body))
        said = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, bytes]]]:
    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        Collector.taken.clear()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield Collector.taken
        server.shutdown()
        thread.join()


def test_what_arrives_at_a_collector_is_the_boots_by_the_schema(collector: list[tuple[str, str, bytes]]) -> None:
    assert wanted()
    tell(None, booted(1), refused(2))
    spans: list[Span] = []
    for path, kind, body in collector:
        assert (path, kind) == ("/v1/traces", "application/x-protobuf")
        request = ExportTraceServiceRequest()
        assert request.ParseFromString(body) == len(body)
        strict = ExportTraceServiceRequest()
        json_format.Parse(json_format.MessageToJson(request), strict, ignore_unknown_fields=False)
        assert strict == request
        (resource,) = request.resource_spans
        names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        assert names["service.name"] == "bootwire"
        (scope,) = resource.scope_spans
        assert scope.scope.name == "bootwire"
        for message in (request, resource, resource.resource, scope, scope.scope, *scope.spans):
            assert len(UnknownFieldSet(message)) == 0
        spans += scope.spans
    roots = {attributes(span)["bootwire.machine"]: span for span in spans if not span.parent_span_id}
    assert set(roots) == {mac(1), mac(2)}
    assert (roots[mac(1)].status.code, roots[mac(2)].status.code) == (
        Status.STATUS_CODE_UNSET,
        Status.STATUS_CODE_ERROR,
    )
    assert attributes(roots[mac(2)])["bootwire.cause"] == "loader-refused"
    assert attributes(roots[mac(1)])["bootwire.octets"] == sum(
        fact.octets for _, fact in booted(1) if isinstance(fact, TransferDone)
    )
    by_trace = {span.trace_id: span for span in roots.values()}
    for span in spans:  # what the specification wants of each (opentelemetry/proto/trace/v1/trace.proto)
        root = by_trace[span.trace_id]
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert any(span.trace_id)
        assert any(span.span_id)
        assert span.name
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
        assert span is root or span.parent_span_id == root.span_id
    below = {span.name for span in spans if span.trace_id == roots[mac(1)].trace_id}
    assert below >= {"boot", "discover", "loader", "kernel", "initrd"}


def attributes(span: Span) -> dict[str, str | int]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in span.attributes}
