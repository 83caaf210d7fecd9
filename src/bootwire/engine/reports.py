"""Reports of bare machines, the server's side: parts become whole reports, every part is acknowledged.

Bounded whoever sends: reports under way, parts of each, and how often one address is answered. A copy of a part is
acknowledged again and changes nothing; an acknowledgement is never larger than what it acknowledges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bootwire.engine import Ns, S
from bootwire.engine.lru import Lru
from bootwire.wire import report
from bootwire.wire.reader import WireError
from bootwire.wire.report import Acknowledgement, Report

REPORTS: Final = 256  # under way or just over, at most 23 KiB each; the one begun longest ago goes first
SOURCES: Final = 4_096  # addresses whose rate is remembered
RATE: Final = 32  # datagrams a second from one address: two whole reports of the largest kind
BURST: Final = 128


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: answer the source."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Complete:
    """Effect: all parts of a report are here, in order."""

    parts: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Effect: it was not taken. because: a sentence fragment."""

    because: str


Effect = Send | Complete | Refused


@dataclass(slots=True)
class _Rate:
    left: float
    when: Ns
    dropped: bool = False


@dataclass(slots=True)
class _Open:
    parts: dict[int, Report] = field(default_factory=dict)
    over: bool = False


class Reports:
    """One server's reports."""

    def __init__(self) -> None:
        self._open: Lru[tuple[str, int, int], _Open] = Lru(REPORTS)
        self._rates: Lru[str, _Rate] = Lru(SOURCES)

    def receive(self, datagram: bytes, source: str, now: Ns) -> list[Effect]:
        """Take one datagram. source: the sender's address."""
        rate = self._rates.get(source) or _Rate(BURST, now)
        rate.left, rate.when = min(BURST, rate.left + (now - rate.when) * RATE / S), now
        self._rates.put(source, rate)
        if rate.left < 1:
            told, rate.dropped = rate.dropped, True
            return [] if told else [Refused(f"more than {RATE} datagrams a second: the others are dropped")]
        rate.left -= 1
        rate.dropped = False
        try:
            message = report.parse(datagram)
        except WireError as error:
            return [Refused(str(error))]
        if not isinstance(message, Report):
            return [Refused("an acknowledgement, sent to a server")]
        return self._part(message, source)

    def _part(self, message: Report, source: str) -> list[Effect]:
        key = (source, message.nonce, message.parts)
        kept = self._open.get(key)
        if kept is None:
            kept = _Open()
            self._open.put(key, kept)
        answer = Acknowledgement(message.nonce, message.firmware, message.architecture, (), message.part, message.parts)
        effects: list[Effect] = [Send(report.emit(answer))]
        if kept.over:
            return effects
        kept.parts.setdefault(message.part, message)
        if len(kept.parts) == message.parts:
            effects.append(Complete(tuple(kept.parts[number] for number in range(message.parts))))
            kept.parts, kept.over = {}, True
        return effects
