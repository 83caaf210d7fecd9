"""DNS, the client's side: one name to its addresses (RFC 1034 section 5.3, RFC 5452 for what is believed)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bootwire.engine import MS, Ns, S
from bootwire.wire import dns
from bootwire.wire.dns import AAAA, CNAME, IN, OPT, A, Message, Name, Question, Record
from bootwire.wire.reader import WireError

WAITS: Final = (500 * MS, 1 * S, 2 * S, 4 * S)  # of each send; iPXE waits 0.25 to 10 s, resolv.conf(5) 5 s twice
TCP_WAIT: Final = 5 * S  # for an answer over TCP, connecting included
MAX_ALIASES: Final = 16  # CNAMEs followed; iPXE follows 32, BIND 16
MAX_SEARCH: Final = 6  # domains of a search list (resolv.conf(5): MAXDNSRCH)
UDP_SIZE: Final = 1232  # octets we take over UDP: no fragments on any path (DNS flag day 2020)


@dataclass(frozen=True, slots=True)
class Ask:
    """Send `data` to port 53 of `server`, over UDP from a fresh random port (RFC 5452 section 10), or over TCP in a
    frame of its own. What comes back goes to `receive` with the same `tcp`.
    """

    server: str
    data: bytes
    tcp: bool


@dataclass(frozen=True, slots=True)
class Found:
    """addresses: text, IPv4 and IPv6 in the order asked; canonical: the name that has them; ttl: seconds, the least of
    all records used."""

    addresses: tuple[str, ...]
    canonical: str
    ttl: int


@dataclass(frozen=True, slots=True)
class NotFound:
    """why: "no such name" (somebody who knows says so), "no address" (the name has none of that kind), "no answer",
    "refused" (every server said that it cannot), "alias loop", "name" (it is none)."""

    why: Literal["no such name", "no address", "no answer", "refused", "alias loop", "name"]
    detail: str = ""


@dataclass(slots=True)
class _Pending:
    """A question of one kind under way. server: index of the one asked; answer: None until it came."""

    kind: int
    name: Name
    id: int
    server: int = 0
    sends: int = 0
    deadline: Ns = 0
    tcp: bool = False
    aliases: int = 0
    failed: int = 0  # servers that said they cannot
    ttl: int = 0xFFFFFFFF
    result: tuple[str, ...] | NotFound | None = None


class Lookup:
    """Finds the addresses of one name. `start`, then `receive` and `tick` until `outcome` is set.

    servers  addresses as text; asked in turn, the next when one is silent or cannot
    kinds    dns.A, dns.AAAA or both, asked at the same time
    search   domains to try behind a name with fewer than `ndots` dots before it is tried as it is (others: after it);
             a name that ends in a dot is tried as it is and nothing else
    ids      a fresh random number 0..65535 for each question
    """

    def __init__(
        self,
        name: str,
        servers: Sequence[str],
        ids: Callable[[], int],
        *,
        kinds: Sequence[int] = (A, AAAA),
        search: Sequence[str] = (),
        ndots: int = 1,
        waits: Sequence[Ns] = WAITS,
    ) -> None:
        self._name = name
        self._servers = tuple(servers)
        self._ids = ids
        self._kinds = tuple(kinds)
        self._search = tuple(search[:MAX_SEARCH])
        self._ndots = ndots
        self._waits = tuple(waits)
        self._candidates: list[Name] = []
        self._pending: list[_Pending] = []
        self._reasons: list[NotFound] = []
        self.outcome: Found | NotFound | None = None

    @property
    def deadline(self) -> Ns | None:
        if self.outcome is not None:
            return None
        return min((one.deadline for one in self._pending if one.result is None), default=None)

    def start(self, now: Ns) -> list[Ask]:
        literal = _literal(self._name)
        if literal:
            self.outcome = Found((literal,), literal, 0)
            return []
        try:
            self._candidates = _candidates(self._name, self._search, self._ndots)
        except WireError as error:
            self.outcome = NotFound("name", error.what)
            return []
        if not self._servers:
            self.outcome = NotFound("no answer", "no name server is known")
            return []
        return self._try_next(now)

    def receive(self, data: bytes, source: str, now: Ns, *, tcp: bool = False) -> list[Ask]:
        """An answer, or what claims to be one: it must come from the server asked, with the id and the question."""
        try:
            message = dns.parse(data)
        except WireError:
            return []
        for one in self._pending:
            if self._answers(one, message, source, tcp):
                asks = self._answered(one, message, now)
                return asks or self._settle(now)
        return []

    def tick(self, now: Ns) -> list[Ask]:
        asks: list[Ask] = []
        for one in self._pending:
            if one.result is None and now >= one.deadline:
                asks += self._ask_next(one, now)
        return asks + ([] if asks else self._settle(now))

    def unreachable(self, server: str, now: Ns) -> list[Ask]:
        """ICMP or TCP says that nobody listens there."""
        asks: list[Ask] = []
        for one in self._pending:
            if one.result is None and self._servers[one.server] == server:
                asks += self._ask_next(one, now)
        return asks + ([] if asks else self._settle(now))

    # --- asking -------------------------------------------------------------------------------------------------

    def _try_next(self, now: Ns) -> list[Ask]:
        name = self._candidates.pop(0)
        self._pending = [_Pending(kind, name, 0) for kind in self._kinds]
        return [self._ask(one, now) for one in self._pending]

    def _ask(self, one: _Pending, now: Ns, *, tcp: bool = False) -> Ask:
        one.id, one.tcp = self._ids() & 0xFFFF, tcp
        one.deadline = now + (TCP_WAIT if tcp else self._waits[min(one.sends, len(self._waits) - 1)])
        one.sends += 1
        message = Message(
            one.id, dns.RECURSION_DESIRED, (Question(one.name, one.kind),),
            additionals=(Record((), OPT, UDP_SIZE, 0, b""),),
        )  # fmt: skip
        return Ask(self._servers[one.server], dns.emit(message), tcp)

    def _ask_next(self, one: _Pending, now: Ns) -> list[Ask]:
        """The next server; each gets as many sends as there are waits, all in turn."""
        if one.sends >= len(self._waits) * len(self._servers):
            one.result = NotFound("no answer", f"none of {', '.join(self._servers)} answered")
            return []
        one.server = (one.server + 1) % len(self._servers)
        return [self._ask(one, now)]

    # --- answers ------------------------------------------------------------------------------------------------

    def _answers(self, one: _Pending, message: Message, source: str, tcp: bool) -> bool:
        if one.result is not None or message.id != one.id or source != self._servers[one.server] or tcp != one.tcp:
            return False
        if not message.flags & dns.RESPONSE or len(message.questions) != 1:
            return False
        asked = message.questions[0]
        return (asked.kind, asked.klass) == (one.kind, IN) and dns.fold(asked.name) == dns.fold(one.name)

    def _answered(self, one: _Pending, message: Message, now: Ns) -> list[Ask]:
        if message.flags & dns.TRUNCATED and not one.tcp:
            return [self._ask(one, now, tcp=True)]
        if message.code == dns.NO_NAME:
            one.result = NotFound("no such name", dns.text_of(one.name))
            return []
        if message.code != dns.NO_ERROR:
            one.failed += 1
            if one.failed >= len(self._servers):
                one.result = NotFound("refused", f"{self._servers[one.server]} answered with code {message.code}")
                return []
            return self._ask_next(one, now)
        name = one.name
        while True:
            found = dns.addresses(message.answers, name, one.kind)
            if found:
                one.name = name
                one.ttl = min([one.ttl, *_ttls(message, name, one.kind)])
                one.result = tuple(str(ipaddress.ip_address(octets)) for octets in found)
                return []
            alias = _alias(message, name)
            if alias is None:
                break
            one.ttl = min([one.ttl, *_ttls(message, name, CNAME)])
            one.aliases += 1
            if one.aliases > MAX_ALIASES:
                one.result = NotFound("alias loop", dns.text_of(one.name))
                return []
            name = alias
        if dns.fold(name) != dns.fold(one.name):  # the alias is known, its address is not: ask for that
            one.name, one.sends = name, 0
            return [self._ask(one, now)]
        one.result = NotFound("no address", dns.text_of(name))
        return []

    def _settle(self, now: Ns) -> list[Ask]:
        """When every kind has its result: the end, or the next name of the search list."""
        if self.outcome is not None or any(one.result is None for one in self._pending):
            return []
        found = [one for one in self._pending if isinstance(one.result, tuple)]
        if found:
            texts = tuple(text for one in found if isinstance(one.result, tuple) for text in one.result)
            self.outcome = Found(texts, dns.text_of(found[0].name), min(one.ttl for one in found))
            return []
        self._reasons += [one.result for one in self._pending if isinstance(one.result, NotFound)]
        if self._candidates:
            return self._try_next(now)
        self.outcome = min(self._reasons, key=lambda reason: _WORTH.index(reason.why))
        return []


# --- helpers ----------------------------------------------------------------------------------------------------

_WORTH = ("alias loop", "no address", "refused", "no answer", "no such name", "name")
"""Which of several reasons tells most."""


def _literal(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return ""


def _candidates(text: str, search: Sequence[str], ndots: int) -> list[Name]:
    """The names to try, in order (resolv.conf(5)). Raises WireError where the name itself is none."""
    plain = dns.name_of(text)
    if text.endswith(".") or not plain:
        return [plain]
    longer = []
    for domain in search:
        try:
            longer.append(dns.name_of(f"{text}.{domain}"))
        except WireError:
            continue
    return [plain, *longer] if text.count(".") >= ndots else [*longer, plain]


def _alias(message: Message, name: Name) -> Name | None:
    wanted = dns.fold(name)
    for record in message.answers:
        if record.kind == CNAME and record.klass == IN and dns.fold(record.name) == wanted:
            try:
                return dns.parse_name(record.data)
            except WireError:
                return None
    return None


def _ttls(message: Message, name: Name, kind: int) -> list[int]:
    wanted = dns.fold(name)
    return [record.ttl for record in message.answers if record.kind == kind and dns.fold(record.name) == wanted]
