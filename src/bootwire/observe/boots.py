"""Facts folded into boots: which stages each machine reached, when, and what they took.

Pure: records in, summaries out. The demo and the tests read it; timelines and verdicts are to build on it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from bootwire import facts
from bootwire.facts import Record

STAGES = ("discover", "address", "loader", "script", "kernel", "initrd", "hand-over")
"""In the order in which a boot passes them; initrds are one stage, however many there are."""

KEPT = 4_096
"""Boots remembered, the oldest forgotten first: 200 machines, 20 times each."""

_LOADER_ENDINGS = (".efi", ".kpxe", ".kkpxe", ".pxe", ".0")


@dataclass(slots=True)
class Stage:
    """began, ended: seconds since the boot's first fact; octets: sent for it; transfers: 0 for a moment."""

    name: str
    began: float
    ended: float
    octets: int = 0
    transfers: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(slots=True)
class Boot:
    """One attempt of one machine, from its first fact on.

    machine    MAC
    started    monotonic nanoseconds of its first fact
    client     a short reading of its firmware, "" if it was never seen asking
    address    dotted, "" if not known
    stages     by name, those that were reached, as they were first reached
    discovers  DISCOVERs of all its programs: firmware, loader
    resent     octets sent more than once
    failures   transfers that did not end well, size probes left out
    """

    machine: str
    started: int
    client: str = ""
    address: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)
    discovers: int = 0
    resent: int = 0
    failures: int = 0

    @property
    def handed_over(self) -> bool:
        return "hand-over" in self.stages

    @property
    def loader_transfers(self) -> int:
        """How often the loader was sent whole; more than once means a loop, or a firmware that asks twice."""
        return self.stages["loader"].transfers if "loader" in self.stages else 0

    @property
    def seconds(self) -> float:
        """Until the last thing that was seen of it."""
        return max((stage.ended for stage in self.stages.values()), default=0.0)


class Boots:
    """The boots of all machines. Takes records in the order in which they happened, from one thread."""

    def __init__(self, kept: int = KEPT) -> None:
        self._boots: deque[Boot] = deque(maxlen=kept)
        self._current: dict[str, Boot] = {}

    def take(self, record: Record) -> None:
        machine = record.fact.machine
        if not machine:
            return
        boot = self._current.get(machine)
        if boot is None or _begins_anew(record, boot):
            boot = self._begin(machine, record)
        _fold(record, boot)

    def all(self) -> tuple[Boot, ...]:
        """Those remembered, in the order in which they began."""
        return tuple(self._boots)

    def latest(self, machine: str) -> Boot | None:
        """The last boot of a machine."""
        return self._current.get(machine)

    def _begin(self, machine: str, record: Record) -> Boot:
        if len(self._boots) == self._boots.maxlen:
            oldest = self._boots[0]
            if self._current.get(oldest.machine) is oldest:
                del self._current[oldest.machine]
        boot = self._current[machine] = Boot(machine, _start(record))
        self._boots.append(boot)
        return boot


def stage_of(name: str) -> str:
    """What a file is for, by the name it is served under: loader, script, kernel, initrd, or "" for others."""
    if name == "kernel" or name.endswith("/kernel"):
        return "kernel"
    if name == "initrd" or "initrd/" in name:
        return "initrd"
    if name.endswith(".ipxe"):
        return "script"
    return "loader" if name.lower().endswith(_LOADER_ENDINGS) else ""


def _begins_anew(record: Record, boot: Boot) -> bool:
    """Whether a fact is the first of the next boot: a DISCOVER of what comes earlier than what was reached.

    The firmware asks before its loader is there; iPXE, loaded or in the ROM, asks before the kernel is there.
    """
    fact = record.fact
    if not isinstance(fact, facts.Discovered):
        return False
    if boot.handed_over or "kernel" in boot.stages:
        return True
    is_ipxe = "ipxe" in (fact.client + fact.user_class).lower()
    return not is_ipxe and ("loader" in boot.stages or "script" in boot.stages)


def _start(record: Record) -> int:
    fact = record.fact
    seconds = fact.seconds if isinstance(fact, facts.TransferDone | facts.TransferFailed) else 0.0
    return record.at - int(seconds * 1e9)


def _fold(record: Record, boot: Boot) -> None:
    now = (record.at - boot.started) / 1e9
    match record.fact:
        case facts.Discovered() as fact:
            boot.discovers += 1
            boot.client = boot.client or fact.client
            boot.stages.setdefault("discover", Stage("discover", now, now))
        case facts.Offered():
            if (stage := boot.stages.get("discover")) and not stage.seconds:
                stage.ended = now
        case facts.AddressSeen() as fact:
            boot.address = fact.address
            if "address" not in boot.stages:
                since = boot.stages["discover"].ended if "discover" in boot.stages else now
                boot.stages["address"] = Stage("address", since, now)
        case facts.TransferDone() as fact:
            boot.address = boot.address or fact.peer
            boot.resent += fact.resent
            if name := stage_of(fact.name):
                began = max(0.0, now - fact.seconds)
                stage = boot.stages.setdefault(name, Stage(name, began, now))
                stage.began, stage.ended = min(stage.began, began), now
                stage.octets += fact.octets
                stage.transfers += 1
        case facts.TransferFailed():
            boot.failures += 1
        case facts.ScriptServed() as fact:
            boot.address = boot.address or fact.peer
            boot.stages.setdefault("script", Stage("script", now, now)).ended = now
        case facts.HandedOver():
            boot.stages.setdefault("hand-over", Stage("hand-over", now, now))
        case _:
            pass
