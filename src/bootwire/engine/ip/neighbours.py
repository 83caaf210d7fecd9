"""Who is at which MAC address on the link: the cache behind ARP (RFC 826, RFC 1122 section 2.3.2) and neighbour
discovery (RFC 4861 section 7.3), with ageing.

It asks nobody itself: `Ask` says what to ask, and the host puts it into the protocol's words.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bootwire.engine import Ns, S

ENTRIES_MAX = 512  # addresses; the one not used for longest gives way
WAITING_MAX = 64  # packets held for one address while it is asked for: 45 are one datagram of 64 KiB in fragments
TRIES = 3  # questions before giving up (RFC 4861 section 10: MAX_MULTICAST_SOLICIT)
INTERVAL: Ns = 1 * S  # between questions (RFC 4861: RETRANS_TIMER; RFC 1122 asks for at most one a second)
FRESH: Ns = 60 * S  # an answer is believed so long without asking again (RFC 1122 section 2.3.2.1: about a minute)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for `address`. mac: where it was last seen, to ask there only; None: ask everybody."""

    address: bytes
    mac: bytes | None


@dataclass(slots=True)
class _Entry:
    mac: bytes | None = None
    heard: Ns = 0
    tries: int = 0
    due: Ns | None = None  # when to ask again, or to give up
    waiting: list[object] = field(default_factory=list)


class Neighbours:
    """Packets that wait are opaque here: whatever `resolve` was given comes back from `heard` or `tick`."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}  # least recently used first
        self.asks: list[Ask] = []

    @property
    def deadline(self) -> Ns | None:
        return min((e.due for e in self._entries.values() if e.due is not None), default=None)

    def table(self) -> list[tuple[bytes, bytes | None, Ns]]:
        """(address, MAC or None while asking, when last heard), for people to read."""
        return [(address, entry.mac, entry.heard) for address, entry in self._entries.items()]

    def resolve(self, address: bytes, packet: object, now: Ns) -> bytes | None:
        """The MAC of `address`, or None: `packet` waits for it."""
        entry = self._entries.get(address)
        if entry is None:
            if len(self._entries) >= ENTRIES_MAX:
                del self._entries[next(iter(self._entries))]
            entry = self._entries[address] = _Entry()
        if entry.mac is not None:
            if now - entry.heard > FRESH and entry.due is None:
                self._ask(address, entry, now)
            return entry.mac
        if len(entry.waiting) >= WAITING_MAX:
            entry.waiting.pop(0)  # RFC 1122 section 2.3.2.2: the newest is the one to keep
        entry.waiting.append(packet)
        if entry.due is None:
            self._ask(address, entry, now)
        return None

    def heard(self, address: bytes, mac: bytes, now: Ns, *, create: bool = False) -> list[object]:
        """`address` says it is at `mac`. Returns the packets that waited for that.

        create: also remember an address nobody asked for; false keeps strangers from filling the table.
        """
        entry = self._entries.get(address)
        if entry is None:
            if not create:
                return []
            if len(self._entries) >= ENTRIES_MAX:
                del self._entries[next(iter(self._entries))]
            entry = _Entry()
        else:
            del self._entries[address]
        self._entries[address] = entry
        entry.mac, entry.heard, entry.tries, entry.due = mac, now, 0, None
        waiting, entry.waiting = entry.waiting, []
        return waiting

    def forget(self, address: bytes) -> None:
        self._entries.pop(address, None)

    def tick(self, now: Ns) -> list[object]:
        """Ask again, or give up: returns the packets that cannot be delivered."""
        lost: list[object] = []
        for address, entry in list(self._entries.items()):
            if entry.due is None or entry.due > now:
                continue
            if entry.tries >= TRIES:
                lost += entry.waiting
                del self._entries[address]
            else:
                self._ask(address, entry, now)
        return lost

    def _ask(self, address: bytes, entry: _Entry, now: Ns) -> None:
        # somebody we knew is asked alone at first, so that others are not bothered (RFC 1122 section 2.3.2.1 (2))
        self.asks.append(Ask(address, entry.mac if entry.tries < TRIES - 1 else None))
        entry.tries += 1
        entry.due = now + INTERVAL
