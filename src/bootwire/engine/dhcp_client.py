"""DHCPv4, the client's side: from the first DISCOVER to a lease and its renewals (RFC 2131 section 4.4), and the
question to a boot server (PXE 2.1 section 2.2.4). What one firmware does differently from the next is a `Rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootwire.engine import MS, Ns, S
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Options

ANY = "0.0.0.0"
EVERYONE = "255.255.255.255"

MAX_HEARD = 16
"""Offers kept of one exchange; later ones are lost (edk2 NetworkPkg DHCP4_MAX_OFFERS, UefiPxeBcDxe)."""

DECLINE_PAUSE: Ns = 10 * S  # RFC 2131 section 3.1 (5): at least ten seconds before a client starts again
ENDLESS = 0xFFFFFFFF  # a lease without end (RFC 2131 section 3.3)


@dataclass(frozen=True, slots=True)
class Heard:
    """A message from a server, and the address and port it came from."""

    message: Message
    source: str
    port: int

    @property
    def server(self) -> str:
        """Who it is from: option 54, else siaddr, else the address it came from (iPXE's pseudo-id, dhcp.c)."""
        said = dhcp4.address(self.message.option(dhcp4.SERVER_ID))
        if said:
            return said
        return self.message.siaddr if self.message.siaddr != ANY else self.source


@dataclass(frozen=True, slots=True)
class Choice:
    """The DHCP offer to request, and the ProxyDHCP offer that goes with it, if any (they may be the same message).

    others: further ProxyDHCP offers, to be tried if that one's sender does not answer on port 4011.
    """

    offer: Heard
    proxy: Heard | None = None
    others: tuple[Heard, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a message is being built for.

    count   how many of its kind came before it; sent: how many of any kind in this exchange
    heard: what has come so far, for firmware that tells (iPXE does, in the secs field).
    """

    kind: int
    count: int
    elapsed: Ns
    server: str = ""
    address: str = ""
    heard: tuple[Heard, ...] = ()
    sent: int = 0


Choose = Callable[[Sequence[Heard], Ns], Choice | None]


@dataclass(frozen=True, slots=True)
class Rules:
    """One kind of client.

    options   what a message carries, option 53 included, in the order sent
    choose    which of the offers heard so far to take, None to go on waiting; the second argument is nanoseconds
              since the first DISCOVER
    discover  how long each DISCOVER waits; as many sends as entries
    request   the same for REQUEST
    eager     ask `choose` at every offer; False: only when a wait is over
    flags     of every message
    secs      of a message
    renews    keep the lease: False for firmware, which boots within it
    on_nak    "fail", "ignore", or "restart"
    nak_pause nanoseconds before a restart
    restarts  after a NAK or a DECLINE, before it gives up; None: it never does, as a host must not
    ports     source ports an ACK or NAK is believed from, empty: any; of offers `choose` decides
    """

    options: Callable[[Ask], Options]
    choose: Choose
    discover: tuple[Ns, ...] = (4 * S, 8 * S, 16 * S, 32 * S)
    request: tuple[Ns, ...] = (4 * S, 8 * S, 16 * S, 32 * S)
    eager: bool = True
    flags: int = 0
    secs: Callable[[Ask], int] = lambda ask: min(ask.elapsed // S, 0xFFFF)
    renews: bool = False
    on_nak: str = "restart"
    nak_pause: Ns = 1 * S
    restarts: int | None = None
    ports: tuple[int, ...] = (dhcp4.SERVER_PORT,)


# --- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """A message to put on the wire from `port` of the client; from its address if it has one, else from 0.0.0.0."""

    message: Message
    to: str
    to_port: int
    port: int = dhcp4.CLIENT_PORT


@dataclass(frozen=True, slots=True)
class Leased:
    """The address is ours: check that nobody else has it (then `decline` or go on), configure it, boot.

    seconds: of the lease, ENDLESS for ever. renewed: an earlier lease goes on, nothing else is new.
    """

    address: str
    mask: str
    router: str
    server: str
    seconds: int
    ack: Heard
    choice: Choice
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ended or was refused: stop using the address. A new exchange has begun."""

    because: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The client has given up.

    stage    "discover", "request" or "nak" (of an address that could not be agreed on)
    heard    every offer that came: none, or none that would do
    """

    stage: str
    heard: tuple[Heard, ...]


Effect = Send | Leased | Lost | Failed


# --- states -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pausing:
    until: Ns


@dataclass(slots=True)
class _Selecting:
    since: Ns
    until: Ns
    sent: int
    heard: list[Heard]


@dataclass(slots=True)
class _Requesting:
    since: Ns
    until: Ns
    sent: int
    choice: Choice
    heard: tuple[Heard, ...]
    discovers: int


@dataclass(slots=True)
class _Bound:
    """until: when the next renewal is due; None for a lease that is left to run out or never does."""

    lease: Leased
    t1: Ns
    t2: Ns
    end: Ns
    until: Ns | None
    sent: int


_State = _Pausing | _Selecting | _Requesting | _Bound | None


class Client:
    """One exchange after another, until there is a lease; then its renewals, if the rules want them.

    chaddr  6 octets (or 16: EDK2 can put its GUID there)
    xids    the next transaction number; called for each new exchange
    """

    __slots__ = ("_chaddr", "_restarts", "_rules", "_state", "_xid", "_xids")

    def __init__(self, rules: Rules, chaddr: bytes, xids: Callable[[], int]) -> None:
        self._rules = rules
        self._chaddr = chaddr
        self._xids = xids
        self._xid = 0
        self._restarts = 0
        self._state: _State = None

    @property
    def deadline(self) -> Ns | None:
        return None if self._state is None else self._state.until

    def start(self, now: Ns) -> list[Effect]:
        """Begin with a DISCOVER, whatever was before."""
        self._xid = self._xids()
        self._state = state = _Selecting(now, now + self._rules.discover[0], 1, [])
        return [self._discover(state, now)]

    def receive(self, heard: Heard, now: Ns) -> list[Effect]:
        """Take a message that came to port 68; one of another exchange is ignored (RFC 2131 section 4.4.1)."""
        message, rules = heard.message, self._rules
        if message.op != dhcp4.REPLY or message.xid != self._xid or message.chaddr[: len(self._chaddr)] != self._chaddr:
            return []
        if rules.ports and heard.port not in rules.ports and self._state.__class__ is not _Selecting:
            return []
        match self._state:
            case _Selecting() as state:
                return self._offered(state, heard, now)
            case _Requesting() as state:
                return self._answered(state, heard, now)
            case _Bound() as state if state.sent:
                return self._renewed(state, heard, now)
        return []

    def tick(self, now: Ns) -> list[Effect]:
        match self._state:
            case _Pausing(until) if now >= until:
                return self.start(now)
            case _Selecting() as state if now >= state.until:
                return self._slice_over(state, now)
            case _Requesting() as state if now >= state.until:
                if state.sent == len(self._rules.request):
                    self._state = None
                    return [Failed("request", state.heard)]
                state.until = now + self._rules.request[state.sent]
                state.sent += 1
                return [self._request(state, now)]
            case _Bound() as state if state.until is not None and now >= state.until:
                return self._renew(state, now)
        return []

    def decline(self, now: Ns) -> list[Effect]:
        """Somebody else answers for the leased address: tell the server, and begin again after a while."""
        state = self._state
        if not isinstance(state, _Bound):
            return []
        self._state = _Pausing(now + DECLINE_PAUSE)
        ask = Ask(dhcp4.DECLINE, 0, 0, state.lease.server, state.lease.address)
        return [Send(self._message(ask), EVERYONE, dhcp4.SERVER_PORT), Lost("another machine has this address")]

    def release(self) -> list[Effect]:
        """Give the lease back (RFC 2131 section 4.4.6); the client is then at rest."""
        state, self._state = self._state, None
        if not isinstance(state, _Bound):
            return []
        lease = state.lease
        ask = Ask(dhcp4.RELEASE, 0, 0, lease.server)
        return [Send(self._message(ask, ciaddr=lease.address), lease.server, dhcp4.SERVER_PORT)]

    # --- selecting ----------------------------------------------------------------------------------------------

    def _offered(self, state: _Selecting, heard: Heard, now: Ns) -> list[Effect]:
        if len(state.heard) < MAX_HEARD:
            state.heard.append(heard)
        if self._rules.eager and (choice := self._rules.choose(state.heard, now - state.since)):
            return self._take(state, choice, now)
        return []

    def _slice_over(self, state: _Selecting, now: Ns) -> list[Effect]:
        if choice := self._rules.choose(state.heard, now - state.since):
            return self._take(state, choice, now)
        if state.sent == len(self._rules.discover):
            self._state = None
            return [Failed("discover", tuple(state.heard))]
        state.until = now + self._rules.discover[state.sent]
        state.sent += 1
        return [self._discover(state, now)]

    def _take(self, state: _Selecting, choice: Choice, now: Ns) -> list[Effect]:
        if choice.offer.message.type == dhcp4.BOOTP:  # the address is ours without asking (RFC 1534 section 2)
            return self._bind(choice, choice.offer, now)
        self._state = request = _Requesting(
            now, now + self._rules.request[0], 1, choice, tuple(state.heard), state.sent
        )
        return [self._request(request, now)]

    # --- requesting ---------------------------------------------------------------------------------------------

    def _answered(self, state: _Requesting, heard: Heard, now: Ns) -> list[Effect]:
        offer = state.choice.offer
        if heard.server != offer.server:
            return []
        if heard.message.type == dhcp4.NAK:
            return self._refused(state.heard, now)
        if heard.message.type != dhcp4.ACK:
            return []
        if heard.message.yiaddr != offer.message.yiaddr:
            ask = Ask(dhcp4.DECLINE, 0, 0, offer.server, heard.message.yiaddr)
            declined = Send(self._message(ask), EVERYONE, dhcp4.SERVER_PORT)
            return [declined, *self._start_over(state.heard, now + DECLINE_PAUSE)]
        return self._bind(state.choice, heard, now)

    def _refused(self, heard: tuple[Heard, ...], now: Ns) -> list[Effect]:
        if self._rules.on_nak == "ignore":
            return []
        if self._rules.on_nak == "fail":
            self._state = None
            return [Failed("nak", heard)]
        return self._start_over(heard, now + self._rules.nak_pause)

    def _start_over(self, heard: tuple[Heard, ...], at: Ns) -> list[Effect]:
        if self._restarts == self._rules.restarts:
            self._state = None
            return [Failed("nak", heard)]
        self._restarts += 1
        self._state = _Pausing(at)
        return []

    # --- bound --------------------------------------------------------------------------------------------------

    def _bind(self, choice: Choice, ack: Heard, now: Ns) -> list[Effect]:
        lease = _lease(choice, ack)
        self._state = _bound(lease, now, self._rules.renews)
        return [lease]

    def _renew(self, state: _Bound, now: Ns) -> list[Effect]:
        """REQUEST to the server from T1 on, to everybody from T2 on, each time at half of what is left, 60 s at least
        (RFC 2131 section 4.4.5)."""
        if now >= state.end:
            return [Lost("the lease ran out"), *self.start(now)]
        if not state.sent:
            self._xid = self._xids()
        rebinding = now >= state.t2
        until = state.end if rebinding else state.t2
        state.until = min(until, now + max((until - now) // 2, 60 * S))
        ask = Ask(dhcp4.REQUEST_LEASE, state.sent, now - state.t1)
        state.sent += 1
        to = EVERYONE if rebinding else state.lease.server
        return [Send(self._message(ask, ciaddr=state.lease.address), to, dhcp4.SERVER_PORT)]

    def _renewed(self, state: _Bound, heard: Heard, now: Ns) -> list[Effect]:
        kind = heard.message.type
        if kind == dhcp4.NAK:
            return [Lost("the server refused to renew"), *self.start(now)]
        if kind != dhcp4.ACK or heard.message.yiaddr != state.lease.address:
            return []
        lease = _lease(state.lease.choice, heard, renewed=True)
        self._state = _bound(lease, now, self._rules.renews)
        return [lease]

    # --- messages -----------------------------------------------------------------------------------------------

    def _discover(self, state: _Selecting, now: Ns) -> Send:
        number = state.sent - 1
        ask = Ask(dhcp4.DISCOVER, number, now - state.since, heard=tuple(state.heard), sent=number)
        return Send(self._message(ask), EVERYONE, dhcp4.SERVER_PORT)

    def _request(self, state: _Requesting, now: Ns) -> Send:
        offer = state.choice.offer
        number, before = state.sent - 1, state.discovers + state.sent - 1
        address = offer.message.yiaddr
        ask = Ask(dhcp4.REQUEST_LEASE, number, now - state.since, offer.server, address, state.heard, before)
        return Send(self._message(ask), EVERYONE, dhcp4.SERVER_PORT)

    def _message(self, ask: Ask, ciaddr: str = ANY) -> Message:
        return request(
            self._chaddr, self._xid, self._rules.options(ask), self._rules.secs(ask), self._rules.flags, ciaddr
        )


def request(
    chaddr: bytes, xid: int, options: Options, secs: int = 0, flags: int = 0, ciaddr: str = ANY, file: bytes = b""
) -> Message:
    """A message of a client, Ethernet, with what is the same in all of them filled in."""
    return Message(
        op=dhcp4.REQUEST, htype=1, hlen=len(chaddr), hops=0, xid=xid, secs=secs, flags=flags, ciaddr=ciaddr,
        yiaddr=ANY, siaddr=ANY, giaddr=ANY, chaddr=chaddr.ljust(16, b"\0"), sname=b"", file=file, options=options,
    )  # fmt: skip


def _lease(choice: Choice, ack: Heard, *, renewed: bool = False) -> Leased:
    message = ack.message
    routers = message.option(dhcp4.ROUTER) or b""
    time = message.option(dhcp4.LEASE_TIME) or b""
    return Leased(
        message.yiaddr,
        dhcp4.address(message.option(dhcp4.SUBNET_MASK)),
        dhcp4.address(routers[:4]),
        ack.server,
        int.from_bytes(time, "big") if len(time) == 4 else ENDLESS,
        ack,
        choice,
        renewed,
    )


def _bound(lease: Leased, now: Ns, renews: bool) -> _Bound:
    """T1 and T2 as the server says, where that makes sense; else half and seven eighths (RFC 2131 section 4.4.5)."""
    total = lease.seconds * S
    t1 = _seconds(lease.ack.message.option(dhcp4.RENEWAL_TIME), total // 2)
    t2 = _seconds(lease.ack.message.option(dhcp4.REBINDING_TIME), total * 7 // 8)
    if not 0 < t1 <= t2 <= total:
        t1, t2 = total // 2, total * 7 // 8
    until = now + max(t1, MS) if renews and lease.seconds != ENDLESS else None
    return _Bound(lease, now + t1, now + t2, now + total, until, 0)


def _seconds(value: bytes | None, default: Ns) -> Ns:
    return int.from_bytes(value, "big") * S if value is not None and len(value) == 4 else default


# --- the boot server --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The boot server's answer."""

    ack: Heard


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Nobody answered in time with anything that would do."""


class Inquiry:
    """DHCPREQUEST to a boot server, until it answers (PXE 2.1 sections 2.2.4 and 2.2.5).

    message  made anew for each send, from its count: some firmware counts in `secs`
    waits    how long each send waits; as many sends as entries
    accepts  which answers will do
    patient  believe an answer only when the wait is over, as EDK2 does (PxeBcDhcp4.c, PxeBcDhcp4Discover)
    """

    __slots__ = ("_accepts", "_best", "_message", "_patient", "_port", "_sent", "_to", "_to_port", "_waits", "deadline")

    def __init__(
        self,
        message: Callable[[int], Message],
        to: str,
        *,
        to_port: int = dhcp4.PXE_PORT,
        port: int = dhcp4.CLIENT_PORT,
        waits: tuple[Ns, ...],
        accepts: Callable[[Heard], bool],
        patient: bool = False,
    ) -> None:
        self._message = message
        self._to = to
        self._to_port = to_port
        self._port = port
        self._waits = waits
        self._accepts = accepts
        self._patient = patient
        self._sent = 0
        self._best: Heard | None = None
        self.deadline: Ns | None = None

    def start(self, now: Ns) -> list[Send | Answered | Unanswered]:
        self.deadline = now + self._waits[self._sent]
        self._sent += 1
        return [Send(self._message(self._sent - 1), self._to, self._to_port, self._port)]

    def receive(self, heard: Heard, now: Ns) -> list[Send | Answered | Unanswered]:
        asked = self._message(0)
        message = heard.message
        if message.op != dhcp4.REPLY or message.xid != asked.xid or message.chaddr != asked.chaddr:
            return []
        if self.deadline is None or self._best is not None or not self._accepts(heard):
            return []
        if self._patient:
            self._best = heard
            return []
        self.deadline = None
        return [Answered(heard)]

    def tick(self, now: Ns) -> list[Send | Answered | Unanswered]:
        if self.deadline is None or now < self.deadline:
            return []
        if self._best is not None:
            self.deadline = None
            return [Answered(self._best)]
        if self._sent < len(self._waits):
            return self.start(now)
        self.deadline = None
        return [Unanswered()]
