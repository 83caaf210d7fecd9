"""Boots as OpenTelemetry traces, read back from the library's own exporter."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from boot_stories import WALL, booted, mac, records, refused
from bootwire.facts import Record, Verdict
from bootwire.observe.boots import Boots
from bootwire.observe.story import Json, whole
from bootwire.serve.traces import Traces


def traced(*stories: list[tuple[float, object]]) -> tuple[ReadableSpan, ...]:
    boots, spans = Boots(), InMemorySpanExporter()

    def boot(number: int) -> Json | None:
        found = boots.numbered(number)
        return whole(found) if found else None

    traces = Traces(boot, SimpleSpanProcessor(spans))
    told: list[Verdict] = []
    for number, story in enumerate(stories):
        for record in records(story, number * 100):  # type: ignore[arg-type]
            told += boots.take(record)
    told += boots.tick(10**15 + 10**12)
    for verdict in told + told:
        traces.take(Record(0, 0, verdict))
    traces.close()
    return spans.get_finished_spans()


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
