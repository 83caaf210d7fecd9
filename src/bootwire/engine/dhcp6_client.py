"""DHCPv6, the client's side (RFC 8415 section 18.2): an address and what goes with it, or, stateless, only the latter.

One address (IA_NA) at a time; prefix delegation, temporary addresses and reconfiguration are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bootwire.engine import MS, Ns, S
from bootwire.wire import dhcp6
from bootwire.wire.dhcp6 import Association, Message, Options
from bootwire.wire.reader import WireError

MAX_HEARD = 16  # advertisements kept of one exchange

# RFC 8415 section 7.6: initial time-out, longest time-out (0: no limit), sends (0: no limit)
_SOLICIT = (1 * S, 3600 * S, 0)
_REQUEST = (1 * S, 30 * S, 10)
_RENEW = (10 * S, 600 * S, 0)
_REBIND = (10 * S, 600 * S, 0)
_INFORM = (1 * S, 3600 * S, 0)
_RELEASE = (1 * S, 0, 4)
_DECLINE = (1 * S, 0, 4)
_SOLICIT_DELAY: Ns = 1 * S  # SOL_MAX_DELAY: the first message waits up to so long, so that a storm spreads
_DEFAULT_T1, _DEFAULT_T2 = (1, 2), (4, 5)  # parts of the preferred lifetime (section 21.4)


@dataclass(frozen=True, slots=True)
class Wants:
    """One kind of client.

    address   True: an address (SOLICIT); False: the rest only (INFORMATION-REQUEST)
    options   what every message carries besides identifiers, time and IA: user class, architecture …
    request   option codes asked for
    patience  without an answer for so long the first exchange fails; 0: never
    """

    address: bool = True
    options: Options = ()
    request: tuple[int, ...] = (dhcp6.DNS, dhcp6.DOMAINS, dhcp6.BOOT_URL, dhcp6.BOOT_PARAMETERS)
    patience: Ns = 60 * S


# --- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """A message from port 546 to dhcp6.SERVERS, port 547."""

    message: Message


@dataclass(frozen=True, slots=True)
class Leased:
    """The server's answer. association: None when no address was asked for; its addresses are usable ones only.

    Check that nobody else has the address, then go on, or `decline`. renewed: an earlier lease goes on.
    """

    reply: Message
    association: Association | None
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The address is not ours any more. A new exchange has begun."""

    because: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The client has given up. heard: advertisements that came, none of which would do."""

    because: str
    heard: int


Effect = Send | Leased | Lost | Failed


@dataclass(slots=True)
class _Exchange:
    """A message that is sent until it is answered (section 15)."""

    kind: int
    rules: tuple[Ns, Ns, int]
    began: Ns
    due: Ns
    timeout: Ns = 0
    sent: int = 0
    heard: list[tuple[int, Message, Association]] = field(default_factory=list)
    server: bytes = b""
    end: Ns | None = None  # the exchange is pointless from here on (T2, or the end of the lease)
    association: Association | None = None  # what is asked for, or given back


@dataclass(slots=True)
class _Bound:
    """An address is ours. t1, t2, end: moments, None for never."""

    association: Association
    server: bytes
    t1: Ns | None
    t2: Ns | None
    end: Ns | None


class Client:
    """One exchange after another, until there is a lease; then its renewals.

    duid  our identifier (dhcp6.duid_from_mac, dhcp6.duid_from_uuid); iaid: of the interface, 0..2**32-1
    draw  32 unpredictable bits
    """

    def __init__(self, wants: Wants, duid: bytes, iaid: int, draw: Callable[[], int]) -> None:
        self._wants, self._duid, self._iaid, self._draw = wants, duid, iaid, draw
        self._xid = 0
        self._exchange: _Exchange | None = None
        self._bound: _Bound | None = None

    @property
    def deadline(self) -> Ns | None:
        """When `tick` is due; None: nothing is under way and nothing expires."""
        if self._exchange is not None:
            return self._exchange.due
        return None if self._bound is None else self._next(self._bound)

    def start(self, now: Ns) -> list[Effect]:
        """Begin anew, whatever was before; the first message goes out within a second."""
        self._bound = None
        delay = self._draw() % _SOLICIT_DELAY
        if self._wants.address:
            self._begin(dhcp6.SOLICIT, _SOLICIT, now, now + delay)
        else:
            self._begin(dhcp6.INFORMATION_REQUEST, _INFORM, now, now + delay)
        return []

    def receive(self, message: Message, now: Ns) -> list[Effect]:
        """Take a message that came to port 546. What is not an answer to ours is ignored (section 16)."""
        exchange = self._exchange
        if exchange is None or not exchange.sent or message.xid != self._xid:
            return []
        server = message.option(dhcp6.SERVER_ID)
        if not server or message.option(dhcp6.CLIENT_ID) != self._duid:
            return []
        match exchange.kind, message.kind:
            case dhcp6.SOLICIT, dhcp6.ADVERTISE:
                return self._advertised(exchange, message, now)
            case dhcp6.INFORMATION_REQUEST, dhcp6.REPLY:
                self._exchange = None
                return [Leased(message, None)]
            case ((dhcp6.REQUEST | dhcp6.RENEW | dhcp6.REBIND), dhcp6.REPLY):
                if exchange.kind != dhcp6.REBIND and server != exchange.server:
                    return []
                return self._replied(exchange, message, server, now)
            case ((dhcp6.RELEASE | dhcp6.DECLINE), dhcp6.REPLY):
                self._exchange = None
                return self.start(now) if exchange.kind == dhcp6.DECLINE else []
            case _:
                return []

    def tick(self, now: Ns) -> list[Effect]:
        """Whatever is due; early or extra calls do nothing."""
        exchange = self._exchange
        if exchange is not None:
            return self._again(exchange, now) if now >= exchange.due else []
        bound = self._bound
        if bound is None:
            return []
        if bound.end is not None and now >= bound.end:
            return [Lost("the lease ran out"), *self.start(now)]
        if bound.t2 is not None and now >= bound.t2:
            return self._extend(dhcp6.REBIND, _REBIND, bound, bound.end, now)
        if bound.t1 is not None and now >= bound.t1:
            return self._extend(dhcp6.RENEW, _RENEW, bound, bound.t2, now)
        return []

    def decline(self, now: Ns) -> list[Effect]:
        """Somebody else answers for the leased address (section 18.2.8): tell the server, and begin again."""
        return self._give_back(dhcp6.DECLINE, _DECLINE, now)

    def release(self, now: Ns) -> list[Effect]:
        """Give the lease back (section 18.2.7)."""
        return self._give_back(dhcp6.RELEASE, _RELEASE, now)

    # --- answers --------------------------------------------------------------------------------------------------

    def _advertised(self, exchange: _Exchange, message: Message, now: Ns) -> list[Effect]:
        association = self._usable(message)
        if association is None or len(exchange.heard) >= MAX_HEARD:
            return []
        said = message.option(dhcp6.PREFERENCE) or b"\0"
        exchange.heard.append((said[0], message, association))
        # the best one is chosen when the first wait is over; 255, or one that came late, at once (section 18.2.9)
        if said[0] == 255 or exchange.sent > 1:
            return self._choose(exchange, now)
        return []

    def _choose(self, exchange: _Exchange, now: Ns) -> list[Effect]:
        _, message, association = max(exchange.heard, key=lambda heard: heard[0])
        request = self._begin(dhcp6.REQUEST, _REQUEST, now, now)
        request.server = message.option(dhcp6.SERVER_ID) or b""
        request.association = association
        return self._again(request, now)

    def _replied(self, exchange: _Exchange, message: Message, server: bytes, now: Ns) -> list[Effect]:
        association = self._usable(message)
        if association is None:
            if exchange.kind == dhcp6.REQUEST:
                return self.start(now)
            # section 18.2.10.1: the server has no such lease; with another one the address would change anyway
            return [Lost("the server does not know the lease"), *self.start(now)]
        longest = max(a.valid for a in association.addresses)
        preferred = min(a.preferred for a in association.addresses)
        t1, t2 = association.t1, association.t2
        if not 0 < t1 <= t2:
            t1 = preferred * _DEFAULT_T1[0] // _DEFAULT_T1[1] if preferred != dhcp6.FOREVER else dhcp6.FOREVER
            t2 = preferred * _DEFAULT_T2[0] // _DEFAULT_T2[1] if preferred != dhcp6.FOREVER else dhcp6.FOREVER
        self._exchange = None
        self._bound = _Bound(association, server, _at(now, t1), _at(now, t2), _at(now, longest))
        return [Leased(message, association, exchange.kind != dhcp6.REQUEST)]

    def _usable(self, message: Message) -> Association | None:
        """Our IA_NA with the addresses that may be used, None if there are none."""
        try:
            status = message.option(dhcp6.STATUS)
            if status is not None and dhcp6.parse_status(status)[0] != dhcp6.SUCCESS:
                return None
            for value in message.every(dhcp6.IA_NA):
                found = dhcp6.parse_association(value)
                if found.iaid != self._iaid or (found.status and found.status[0] != dhcp6.SUCCESS):
                    continue
                good = tuple(
                    a for a in found.addresses
                    if a.valid and a.preferred <= a.valid and not (a.status and a.status[0] != dhcp6.SUCCESS)
                )  # fmt: skip
                if good:
                    return Association(found.iaid, found.t1, found.t2, good, found.status)
        except WireError:
            pass
        return None

    # --- messages -------------------------------------------------------------------------------------------------

    def _begin(self, kind: int, rules: tuple[Ns, Ns, int], now: Ns, due: Ns) -> _Exchange:
        self._xid = self._draw() & 0xFFFFFF
        self._exchange = made = _Exchange(kind, rules, now, due)
        return made

    def _extend(self, kind: int, rules: tuple[Ns, Ns, int], bound: _Bound, end: Ns | None, now: Ns) -> list[Effect]:
        exchange = self._begin(kind, rules, now, now)
        exchange.server = bound.server if kind == dhcp6.RENEW else b""
        exchange.association, exchange.end = bound.association, end
        return self._again(exchange, now)

    def _give_back(self, kind: int, rules: tuple[Ns, Ns, int], now: Ns) -> list[Effect]:
        bound, self._bound, self._exchange = self._bound, None, None
        if bound is None:
            return []
        exchange = self._begin(kind, rules, now, now)
        exchange.server, exchange.association = bound.server, bound.association
        effects = self._again(exchange, now)
        return [*effects, Lost("another machine has this address")] if kind == dhcp6.DECLINE else effects

    def _again(self, exchange: _Exchange, now: Ns) -> list[Effect]:
        """Send for the first time or again, or see that it is pointless (section 15)."""
        first, longest, sends = exchange.rules
        if exchange.heard:
            return self._choose(exchange, now)
        if exchange.end is not None and now >= exchange.end:
            self._exchange = None  # T2, or the end, takes over
            return self.tick(now)
        if sends and exchange.sent >= sends:
            return self._gave_up(exchange, now)
        patience = self._wants.patience
        if (
            patience
            and exchange.kind in (dhcp6.SOLICIT, dhcp6.INFORMATION_REQUEST)
            and now - exchange.began >= patience
        ):
            self._exchange = None
            return [Failed("no DHCPv6 server answered", len(exchange.heard))]
        if not exchange.sent:
            # the first wait of a SOLICIT is never shorter than its time-out (section 18.2.1)
            spread = abs(self._spread(first)) if exchange.kind == dhcp6.SOLICIT else self._spread(first)
            exchange.timeout = first + spread
        else:
            exchange.timeout = 2 * exchange.timeout + self._spread(exchange.timeout)
        if longest and exchange.timeout > longest:
            exchange.timeout = longest + self._spread(longest)
        exchange.sent += 1
        exchange.due = now + exchange.timeout
        if exchange.end is not None:
            exchange.due = min(exchange.due, exchange.end)
        return [Send(self._message(exchange, now))]

    def _gave_up(self, exchange: _Exchange, now: Ns) -> list[Effect]:
        self._exchange = None
        if exchange.kind in (dhcp6.REQUEST, dhcp6.DECLINE):
            return self.start(now)
        return []

    def _message(self, exchange: _Exchange, now: Ns) -> Message:
        elapsed = 0 if exchange.sent == 1 else min((now - exchange.began) // (10 * MS), 0xFFFF)  # section 21.9
        options: list[tuple[int, bytes]] = [(dhcp6.CLIENT_ID, self._duid)]
        if exchange.server:
            options.append((dhcp6.SERVER_ID, exchange.server))
        options.append((dhcp6.ELAPSED, elapsed.to_bytes(2, "big")))
        if exchange.kind != dhcp6.INFORMATION_REQUEST:
            asked = exchange.association
            mine = asked.addresses if asked is not None else ()
            options.append((dhcp6.IA_NA, dhcp6.emit_association(Association(self._iaid, 0, 0, mine))))
        if exchange.kind not in (dhcp6.RELEASE, dhcp6.DECLINE):
            options.append((dhcp6.REQUEST_LIST, b"".join(code.to_bytes(2, "big") for code in self._wants.request)))
            options += self._wants.options
        return Message(exchange.kind, self._xid, tuple(options))

    def _spread(self, time: Ns) -> Ns:
        """RAND of section 15: up to a tenth more or less."""
        return time * (self._draw() % 201 - 100) // 1000

    @staticmethod
    def _next(bound: _Bound) -> Ns | None:
        return min((t for t in (bound.t1, bound.t2, bound.end) if t is not None), default=None)


def _at(now: Ns, seconds: int) -> Ns | None:
    return None if seconds == dhcp6.FOREVER else now + seconds * S
