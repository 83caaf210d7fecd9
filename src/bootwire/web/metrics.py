"""Numbers for Prometheus, out of facts. Labels are words of ours, so the number of series is bounded (some 150)."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bootwire import facts
from bootwire.facts import KINDS, Record
from bootwire.observe.boots import STAGES
from bootwire.observe.names import stage_of
from bootwire.observe.rules import CAUSES

_SERVICES = ("dhcp", "pxe", "tftp", "http", "bootinfo", "syslog")
_BOOT_SECONDS = (2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 600)
_TRANSFER_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)

Json = dict[str, Any]


class Metrics:
    """`take` is for the journal's thread, `text` for any.

    briefs  every machine's last boot in one line; losses: name -> how many were lost there until now
    """

    def __init__(self, briefs: Callable[[], list[Json]], losses: Callable[[], dict[str, int]]) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Now(briefs, losses))

        def count(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bootwire_{name}", text, labels, registry=registry)

        self._facts = count("facts", "Lines of the journal", "kind")
        self._verdicts = count("verdicts", "What became of boots", "state", "cause")
        self._transfers = count("transfers", "Files asked for", "protocol", "outcome")
        self._octets = count("transfer_octets", "Octets delivered, each once", "protocol", "file")
        self._resent = count("resent_octets", "Octets sent more than once")
        self._refusals = count("refusals", "Requests that could not be taken", "service")
        self._silences = count("silences", "Requests that were understood and not answered", "service")
        self._boot_seconds = Histogram(
            "bootwire_boot_seconds", "From a machine's first packet to its kernel's start",
            buckets=_BOOT_SECONDS, registry=registry,
        )  # fmt: skip
        self._transfer_seconds = Histogram(
            "bootwire_transfer_seconds", "How long files took", ("protocol",),
            buckets=_TRANSFER_SECONDS, registry=registry,
        )  # fmt: skip
        for kind in KINDS:
            self._facts.labels(kind.kind)

    def take(self, record: Record) -> None:
        """A record of the journal."""
        fact = record.fact
        self._facts.labels(fact.kind).inc()
        match fact:
            case facts.TransferDone():
                self._transfers.labels(fact.protocol, "done").inc()
                self._octets.labels(fact.protocol, stage_of(fact.name) or "other").inc(fact.octets)
                self._transfer_seconds.labels(fact.protocol).observe(fact.seconds)
                if fact.resent:
                    self._resent.inc(fact.resent)
            case facts.TransferFailed():
                self._transfers.labels(fact.protocol, "failed").inc()
            case facts.NotFound():
                self._transfers.labels(fact.protocol, "not found").inc()
            case facts.SizeProbed():
                self._transfers.labels(fact.protocol, "size asked").inc()
            case facts.Refused():
                self._refusals.labels(_service(fact.service)).inc()
            case facts.Silent():
                self._silences.labels(_service(fact.service)).inc()
            case facts.Verdict():
                cause = fact.cause if fact.cause in CAUSES else "" if not fact.cause else "other"
                self._verdicts.labels(fact.state, cause).inc()
                if fact.state == "booted":
                    self._boot_seconds.observe(fact.seconds)
            case _:
                pass

    def text(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Now(Collector):
    """What is counted when it is asked for."""

    def __init__(self, briefs: Callable[[], list[Json]], losses: Callable[[], dict[str, int]]) -> None:
        self._briefs = briefs
        self._losses = losses

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        briefs = self._briefs()
        states = Tally(brief["state"] for brief in briefs)
        stages = Tally(brief["stage"] for brief in briefs if brief["state"] == "running")
        machines = GaugeMetricFamily("bootwire_machines", "Machines by the state of their last boot", labels=["state"])
        for state in ("running", "booted", "stuck", "silent", "declined"):
            machines.add_metric([state], states[state])
        running = GaugeMetricFamily("bootwire_boots_running", "Boots under way by their last stage", labels=["stage"])
        for stage in STAGES:
            running.add_metric([stage], stages[stage])
        active = GaugeMetricFamily("bootwire_transfers_running", "Machines with a file on its way to them")
        active.add_metric([], sum(brief["running"] is not None for brief in briefs))
        lost = CounterMetricFamily("bootwire_lost", "Facts, writes and readers that found no room", labels=["where"])
        for where, number in self._losses().items():
            lost.add_metric([where], number)
        return [machines, running, active, lost]


def _service(name: str) -> str:
    return name if name in _SERVICES else "other"
