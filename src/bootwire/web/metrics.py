"""Numbers for Prometheus, out of facts. Labels are words of ours, so the number of series is bounded (some 150).

A storm brings tens of thousands of facts a second: counting is a dictionary's affair, the library's only when asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bootwire import facts
from bootwire.facts import KINDS, Fact, Record
from bootwire.observe.boots import STAGES
from bootwire.observe.names import stage_of
from bootwire.observe.rules import CAUSES

_SERVICES = ("dhcp", "pxe", "tftp", "http", "bootinfo", "syslog")
_BOOT_SECONDS = (2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 300, 600)
_TRANSFER_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300)

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "facts": ("Lines of the journal", ("kind",)),
    "verdicts": ("What became of boots", ("state", "cause")),
    "transfers": ("Files asked for", ("protocol", "outcome")),
    "transfer_octets": ("Octets delivered, each once", ("protocol", "file")),
    "resent_octets": ("Octets sent more than once", ("protocol",)),
    "refusals": ("Requests that could not be taken", ("service",)),
    "silences": ("Requests that were understood and not answered", ("service",)),
}
"""Name after "bootwire_" (Prometheus sees "_total" behind it), what it counts, labels."""

Json = dict[str, Any]


class Metrics(Collector):
    """`take` is for the journal's thread, `text` for any.

    briefs  every machine's last boot in one line; losses: name -> how many were lost there until now
    """

    def __init__(self, briefs: Callable[[], list[Json]], losses: Callable[[], dict[str, int]]) -> None:
        self._briefs = briefs
        self._losses = losses
        self._kinds: Counter[type[Fact]] = Counter(dict.fromkeys(KINDS, 0))
        self._counts: Counter[tuple[str, ...]] = Counter()  # name, then its labels
        self._boots = _Histogram(_BOOT_SECONDS)
        self._seconds = {protocol: _Histogram(_TRANSFER_SECONDS) for protocol in ("tftp", "http")}
        self._takes: dict[type[Fact], Callable[[Any], None]] = {
            facts.TransferDone: self._done,
            facts.TransferFailed: lambda fact: self._count("transfers", fact.protocol, "failed"),
            facts.NotFound: lambda fact: self._count("transfers", fact.protocol, "not found"),
            facts.SizeProbed: lambda fact: self._count("transfers", fact.protocol, "size asked"),
            facts.Refused: lambda fact: self._count("refusals", _service(fact.service)),
            facts.Silent: lambda fact: self._count("silences", _service(fact.service)),
            facts.Verdict: self._verdict,
        }
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def take(self, record: Record) -> None:
        """A record of the journal."""
        fact = record.fact
        self._kinds[type(fact)] += 1
        if (take := self._takes.get(type(fact))) is not None:
            take(fact)

    def text(self) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        counts: dict[tuple[str, ...], int] = {**self._counts}
        counts |= {("facts", kind.kind): self._kinds[kind] for kind in KINDS}
        for name, (text, labels) in COUNTERS.items():
            family = CounterMetricFamily(f"bootwire_{name}", text, labels=labels)
            for key in sorted(key for key in counts if key[0] == name):
                family.add_metric(key[1:], counts[key])
            yield family
        boots = HistogramMetricFamily("bootwire_boot_seconds", "From a machine's first packet to its kernel's start")
        boots.add_metric([], *self._boots.buckets())
        yield boots
        seconds = HistogramMetricFamily("bootwire_transfer_seconds", "How long files took", labels=["protocol"])
        for protocol, histogram in self._seconds.items():
            seconds.add_metric([protocol], *histogram.buckets())
        yield seconds
        yield from self._now()

    def describe(self) -> list[Metric]:
        """For prometheus_client: nothing is asked before there is something to tell."""
        return []

    def _now(self) -> Iterator[Metric]:
        briefs = self._briefs()
        states = Counter(brief["state"] for brief in briefs)
        stages = Counter(brief["stage"] for brief in briefs if brief["state"] == "running")
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
        yield from (machines, running, active, lost)

    def _count(self, *key: str) -> None:
        self._counts[key] += 1

    def _done(self, fact: facts.TransferDone) -> None:
        self._counts["transfers", fact.protocol, "done"] += 1
        self._counts["transfer_octets", fact.protocol, stage_of(fact.name) or "other"] += fact.octets
        self._seconds[fact.protocol].add(fact.seconds)
        if fact.resent:
            self._counts["resent_octets", fact.protocol] += fact.resent

    def _verdict(self, fact: facts.Verdict) -> None:
        cause = fact.cause if fact.cause in CAUSES or not fact.cause else "other"
        self._count("verdicts", fact.state, cause)
        if fact.state == "booted":
            self._boots.add(fact.seconds)


class _Histogram:
    def __init__(self, limits: tuple[float, ...]) -> None:
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._limits, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Counts up to each limit, each with all below; the sum of all values."""
        found: list[tuple[str, float]] = []
        below = 0
        for limit, count in zip((*map(str, self._limits), "+Inf"), self._counts, strict=True):
            below += count
            found.append((limit, below))
        return found, self._sum


def _service(name: str) -> str:
    return name if name in _SERVICES else "other"
