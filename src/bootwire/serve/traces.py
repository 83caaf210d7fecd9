"""Boots as OpenTelemetry traces: a span for the boot, one below it for each thing that took its time.

Optional (`pip install 'bootwire[otel]'`), and set up as everywhere else, by OTEL_EXPORTER_OTLP_ENDPOINT and its kin
(OpenTelemetry specification, "OTLP exporter configuration"). A boot is told when there is a verdict on it, once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bootwire import __version__
from bootwire.facts import Record, Verdict

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

KEPT = 1_024
"""Numbers of boots that were told, so that a second verdict makes no second trace."""

Json = dict[str, Any]


def wanted() -> bool:
    """Whether the environment says where traces go."""
    return any(os.environ.get(name) for name in VARIABLES) and os.environ.get("OTEL_SDK_DISABLED") != "true"


class Traces:
    """`take` is for the journal's thread; sending is the library's own thread's.

    boot       all of a boot by its number (`Timeline.boot`)
    processor  where spans go; None: as the environment says. Raises ImportError where the library is missing
    """

    def __init__(self, boot: Callable[[int], Json | None], processor: SpanProcessor | None = None) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._boot = boot
        self._told: dict[int, None] = {}
        resource = Resource.create({"service.name": "bootwire", "service.version": __version__})
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor or _from_environment())
        self._tracer = self._provider.get_tracer("bootwire", __version__)

    def take(self, record: Record) -> None:
        """A record of the journal."""
        fact = record.fact
        if not isinstance(fact, Verdict) or fact.boot in self._told or (found := self._boot(fact.boot)) is None:
            return
        self._told[fact.boot] = None
        while len(self._told) > KEPT:
            del self._told[next(iter(self._told))]
        self._tell(found)

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

    def _tell(self, boot: Json) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        start = boot["started"]
        names = ("boot", "machine", "client", "address", "what", "state", "stage", "cause", "octets", "resent")
        values = {f"bootwire.{name}": boot[name] for name in names if boot[name] not in ("", None)}
        span = self._tracer.start_span("boot", kind=SpanKind.SERVER, start_time=_ns(start), attributes=values)
        below = set_span_in_context(span)
        for bar in boot["bars"]:
            values = {"bootwire.name": bar["label"], "bootwire.note": bar["note"]}
            part = self._tracer.start_span(bar["kind"], below, start_time=_ns(start + bar["began"]), attributes=values)
            if bar["failed"]:
                part.set_status(Status(StatusCode.ERROR, bar["failed"]))
            part.end(_ns(start + (boot["last"] if bar["ended"] is None else bar["ended"])))
        if boot["state"] in ("stuck", "silent"):
            span.set_status(Status(StatusCode.ERROR, boot["because"]))
        span.end(_ns(start + boot["last"]))


def _from_environment() -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _ns(seconds: float) -> int:
    """Nanoseconds since the Unix epoch."""
    return int(seconds * 1e9)
