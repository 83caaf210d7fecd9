"""A host with one Ethernet interface: frames and time in, frames out.

Longer than other modules because it is where the protocols meet: every packet passes Ethernet, ARP or ND, IP and a
transport here. What has a life of its own is elsewhere: `routes`, `neighbours`, `fragments`, and `engine.tcp`.

Kept to: RFC 826 and 5227 (conflicts), 791, 792, 1122, 768; 8200, 4443, 4861, 4862 (stateless addresses), 8106, 1191
and 8201 (path MTU), 5961 and 6528 by way of `engine.tcp`. It does not forward, and takes redirects from nobody.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from heapq import heappop, heappush

from bootwire.engine import Ns, S
from bootwire.engine.ip.fragments import Reassembly
from bootwire.engine.ip.frame import Frame, Offload, datagrams, plain, tag_of
from bootwire.engine.ip.neighbours import Neighbours
from bootwire.engine.ip.routes import Route, Routes, masked
from bootwire.engine.tcp import Config, Connection, State
from bootwire.wire import arp, checksum, ethernet, icmp, ip, ip6, tcp
from bootwire.wire.reader import WireError

FLOWS_MAX = 4096  # TCP connections, TIME-WAIT included
_EPHEMERAL = (49_152, 65_535)  # RFC 6335 section 6
_EVENTS_MAX = 256  # kept for the user; older ones are lost
_QUEUE_MAX = 256  # datagrams waiting at a UDP port
_QUEUE_OCTETS = 1 << 20
_ERRORS_A_SECOND = 20  # ICMP errors sent (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f) ask for a limit)
_PATHS_MAX = 256  # destinations with a path MTU of their own
_PATH_LIFETIME: Ns = 600 * S  # RFC 1191 section 6.3: ten minutes
_LEAST_MTU4 = 552  # octets: less is not believed (Linux's min_pmtu); RFC 1191 leaves 68
_DEFEND: Ns = 10 * S  # RFC 5227 section 2.4: DEFEND_INTERVAL
_ROUTERS_MAX, _PREFIXES_MAX, _SERVERS_MAX = 8, 16, 8  # learned from router advertisements
_SOLICITS, _SOLICIT_GAP = 3, 4 * S  # RFC 4861 section 10: MAX_RTR_SOLICITATIONS, RTR_SOLICITATION_INTERVAL
_PROBE: Ns = 1 * S  # RFC 4862 section 5.4: one solicitation, then RETRANS_TIMER
_FOREVER = 0xFFFFFFFF  # seconds; a lifetime without end
_TCP_HEADERS = 60  # the longest TCP header
_ECHO = 8  # octets of an echo request before its data
_NO_OFFLOAD = Offload()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Event: `mac` uses an address of ours (RFC 5227 section 2.4; RFC 4862 section 5.4.3)."""

    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class EchoReply:
    """Event: somebody answered a ping."""

    source: bytes
    identifier: int
    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Event: an echo request or a datagram of ours did not arrive. by: who said so, b"" if nobody answers ARP or ND.

    protocol: of the packet that did not arrive; quote: its transport header as far as it came back.
    """

    destination: bytes
    by: bytes
    because: str
    protocol: int
    quote: bytes


Event = Conflict | EchoReply | Undelivered


@dataclass(eq=False, slots=True)
class Flow:
    """A TCP connection and whose it is. Addresses are packed, 4 or 16 octets."""

    connection: Connection
    local: bytes
    remote: bytes
    listener: Listener | None = None
    scheduled: Ns = 0  # the deadline that is in the heap, 0: none

    @property
    def key(self) -> tuple[bytes, int, bytes, int]:
        return self.local, self.connection.local, self.remote, self.connection.remote


@dataclass(eq=False, slots=True)
class Listener:
    """A passive open. `ready` holds connections nobody has accepted yet.

    Bounded on both sides of the handshake: of half-open connections the oldest gives way, and with `backlog`
    connections ready a SYN is dropped (it comes again).
    """

    address: bytes  # b"": any
    port: int
    backlog: int
    config: Config
    half: dict[Flow, None] = field(default_factory=dict)
    ready: deque[Flow] = field(default_factory=deque)


@dataclass(eq=False, slots=True)
class UdpPort:
    """A bound UDP port. `queue`: (payload, source address, source port, destination address), oldest first."""

    address: bytes  # b"": any
    port: int
    queue: deque[tuple[bytes, bytes, int, bytes]] = field(default_factory=deque)
    errors: deque[Undelivered] = field(default_factory=lambda: deque(maxlen=16))
    octets: int = 0
    dropped: int = 0

    def take(self) -> tuple[bytes, bytes, int, bytes] | None:
        """The oldest datagram, None if there is none."""
        if not self.queue:
            return None
        found = self.queue.popleft()
        self.octets -= len(found[0])
        return found


@dataclass(slots=True)
class _Address:
    """An address of ours. tentative: being probed until then, and not used meanwhile; 0: it is ours."""

    address: bytes
    prefix: int
    tentative: Ns = 0
    expires: Ns = 0  # 0: never
    defended: Ns = -_DEFEND


class Host:
    """A host on one link.

    In     receive(frame, now), tick(now), and the calls of the user
    Out    transmit(now) -> frames, in order; call it after every input. `events` for the user to take
    Time   `deadline`: when tick is due next
    Peer   nothing a peer sends raises; `dropped` counts by reason what was not taken

    secret: at least 16 unpredictable octets; ports, sequence numbers and identifications are made of it (RFC 6528,
    RFC 6056). vlan: take and send frames of this 802.1Q VLAN only.
    """

    def __init__(
        self, mac: bytes, secret: bytes, *, mtu: int = 1500, offload: Offload = _NO_OFFLOAD, vlan: int | None = None
    ) -> None:
        self.mac, self.mtu, self.offload = mac, mtu, offload
        self.routes = Routes()
        self.neighbours = Neighbours()
        self.events: deque[Event] = deque(maxlen=_EVENTS_MAX)
        self.dropped: Counter[str] = Counter()
        self.dns: list[bytes] = []  # servers that routers advertised
        self.tcp = Config()  # what connections get that are not given one
        self.groups: set[bytes] = set()  # multicast groups listened to
        self.hop_limit = 64
        self._secret = secret
        self._drawn = 0
        self._vlan, self._tag = vlan, tag_of(vlan)
        self._addresses: dict[bytes, _Address] = {}
        self._flows: dict[tuple[bytes, int, bytes, int], Flow] = {}
        self._listeners: dict[tuple[bytes, int], Listener] = {}
        self._udp: dict[tuple[bytes, int], UdpPort] = {}
        self._dirty: dict[Flow, None] = {}
        self._timers: list[tuple[Ns, int, Flow]] = []
        self._count = 0
        self._out: list[Frame] = []
        self._parts = Reassembly()
        self._paths: dict[bytes, tuple[int, Ns]] = {}  # destination -> (MTU, when to forget)
        self._errors_from: Ns = 0
        self._errors_sent = 0
        self._solicit: tuple[Ns, int] | None = None  # (when, how many are left)
        self._routers: dict[bytes, Ns] = {}  # router -> when it stops being one
        self._on_link: dict[tuple[bytes, int], Ns] = {}  # networks that routers say are on the link -> until when
        self._expiry: Ns | None = None  # the next moment at which an address or a router ends

    # --- addresses ------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[tuple[bytes, int]]:
        """(address, prefix length) of what is ours by now, tentative ones left out."""
        return [(a.address, a.prefix) for a in self._addresses.values() if not a.tentative]

    def add_address(self, address: bytes, prefix: int, now: Ns, *, probe: bool = False) -> None:
        """Take an address, with the route to its network.

        probe: ask first whether somebody has it (RFC 4862 section 5.4, RFC 5227 section 2.1); it is ours a second
        later unless a Conflict comes.
        """
        self._addresses[address] = _Address(address, prefix, now + _PROBE if probe else 0)
        if prefix < 8 * len(address):
            self.routes.add(masked(address, prefix), prefix)
        if probe:
            if len(address) == 4:
                self._send_arp(arp.REQUEST, ethernet.BROADCAST, ip.ANY_V4, bytes(6), address)
            else:
                group = ip6.solicited_node(address)
                self._send_icmp6(icmp.NeighbourSolicit(address), ip6.ANY, group, now, hop_limit=255)
        else:
            self._announce(address)

    def remove_address(self, address: bytes) -> None:
        """Give an address up, and the route to its network; connections on it are on their own."""
        gone = self._addresses.pop(address, None)
        if gone is not None and gone.prefix < 8 * len(address):
            net = masked(address, gone.prefix)
            if not any(masked(a, gone.prefix) == net for a, p in self.addresses if len(a) == len(address)):
                self.routes.delete(net, gone.prefix)

    def start_ipv6(self, now: Ns) -> None:
        """Take the link-local address, and ask routers for more (RFC 4862)."""
        self.add_address(ip6.link_local(self.mac), 64, now, probe=True)
        self._solicit = (now + _PROBE, _SOLICITS)

    @property
    def routers(self) -> list[bytes]:
        """Routers that advertised themselves as default routers (RFC 4861 section 6.3.4)."""
        return list(self._routers)

    def owns(self, address: bytes) -> bool | None:
        """Whether an address is ours; None: it is being probed."""
        own = self._addresses.get(address)
        return None if own is not None and own.tentative else own is not None

    def draw(self) -> int:
        """32 unpredictable bits."""
        self._drawn += 1
        return int.from_bytes(blake2s(self._drawn.to_bytes(8, "big"), key=self._secret[:32], digest_size=4).digest())

    def source_for(self, destination: bytes) -> bytes | None:
        """The address of ours to talk to `destination` from, None if there is none."""
        size = len(destination)
        own = [a for a in self._addresses.values() if len(a.address) == size and not a.tentative]
        if not own:
            return None
        if size == 16:
            near = destination[:2] == b"\xfe\x80" or destination[:1] == b"\xff"
            own = [a for a in own if (a.address[:2] == b"\xfe\x80") == near] or own
        route = self.routes.find(destination)
        target = route.gateway if route is not None and route.gateway is not None else destination
        for a in own:
            if masked(target, a.prefix) == masked(a.address, a.prefix):
                return a.address
        return own[0].address

    # --- UDP and ping ---------------------------------------------------------------------------------------------

    def bind_udp(self, port: int = 0, address: bytes = b"", size: int = 4) -> UdpPort:
        """Take a UDP port; 0 picks a free one (RFC 6056). OSError-like trouble is ValueError: "port in use"."""
        if port == 0:
            port = self._free_port(lambda p: any((a, p) in self._udp for a in (b"", address)))
        if (address, port) in self._udp:
            raise ValueError(f"UDP port {port} in use")
        bound = self._udp[address, port] = UdpPort(address, port)
        return bound

    def close_udp(self, bound: UdpPort) -> None:
        """Give a port back."""
        self._udp.pop((bound.address, bound.port), None)

    def send_udp(
        self, payload: bytes, destination: bytes, port: int, source_port: int, now: Ns, source: bytes | None = None
    ) -> str:
        """Send a datagram; "" or why it cannot be sent. source: b"" or None picks; 0.0.0.0 is allowed (DHCP)."""
        source = source or self.source_for(destination)
        if source is None:
            return "no address to send from"
        if len(payload) + 8 + 20 > 0xFFFF:
            return "datagram too long"
        datagram = ip.emit_udp(ip.Udp(source_port, port, payload), source, destination)
        return self._send(source, destination, ip.UDP, datagram, now)

    def ping(
        self, destination: bytes, identifier: int, sequence: int, now: Ns, data: bytes = bytes(56), *,
        whole: bool = False,
    ) -> str:  # fmt: skip
        """Send an echo request; "" or why not. The answer comes as EchoReply, or as Undelivered.

        whole: never in fragments, as path MTU discovery wants it; longer than the card's MTU it cannot be sent.
        """
        source = self.source_for(destination)
        if source is None:
            return "no address to send from"
        echo = icmp.Echo(False, identifier, sequence, data)
        if whole and (20 if len(destination) == 4 else ip6.HEADER) + _ECHO + len(data) > self.mtu:
            return "longer than the card's MTU"
        if len(destination) == 4:
            return self._send(source, destination, icmp.PROTOCOL4, icmp.emit4(echo), now, whole=whole)
        octets = icmp.emit6(echo, source, destination)
        return self._send(source, destination, icmp.PROTOCOL6, octets, now, whole=whole)

    # --- TCP ------------------------------------------------------------------------------------------------------

    def connect(
        self, destination: bytes, port: int, now: Ns, *, source: bytes = b"", source_port: int = 0,
        config: Config | None = None,
    ) -> Flow:  # fmt: skip
        """Open actively. Raises ValueError where no packet could go: no address, no route, ports taken."""
        local = source or self.source_for(destination)
        if local is None or self._next_hop(destination) is None:
            raise ValueError("no route to host")
        if source_port == 0:
            source_port = self._free_port(lambda p: (local, p, destination, port) in self._flows)
        key = (local, source_port, destination, port)
        if key in self._flows:
            raise ValueError("address already in use")
        if not self._make_room():
            raise ValueError("too many connections")
        iss, clock = self._numbers(key, now)
        connection = Connection(source_port, port, iss, now, self._config(destination, config, now), clock)
        flow = self._flows[key] = Flow(connection, local, destination)
        self._dirty[flow] = None
        return flow

    def listen(self, port: int, backlog: int = 16, address: bytes = b"", config: Config | None = None) -> Listener:
        """Open passively. Raises ValueError if the port is taken."""
        if port == 0:
            port = self._free_port(lambda p: any((a, p) in self._listeners for a in (b"", address)))
        if (address, port) in self._listeners:
            raise ValueError(f"TCP port {port} in use")
        listener = self._listeners[address, port] = Listener(address, port, max(1, backlog), config or self.tcp)
        return listener

    def close_listener(self, listener: Listener) -> None:
        """No more connections; those that nobody accepted are reset."""
        self._listeners.pop((listener.address, listener.port), None)
        for flow in [*listener.half, *listener.ready]:
            flow.connection.abort()
            self._dirty[flow] = None
        listener.half.clear()
        listener.ready.clear()

    def touch(self, flow: Flow) -> None:
        """The user wrote, read or closed: the next `transmit` looks at this connection."""
        self._dirty[flow] = None

    @property
    def flows(self) -> list[Flow]:
        """Every connection there is, for people to read."""
        return list(self._flows.values())

    @property
    def udp_ports(self) -> list[UdpPort]:
        return list(self._udp.values())

    @property
    def listeners(self) -> list[Listener]:
        return list(self._listeners.values())

    # --- in -------------------------------------------------------------------------------------------------------

    def receive(self, frame: Frame, now: Ns) -> None:
        """A frame arrived."""
        if frame.segment:
            for piece in datagrams(frame):
                self._receive(piece, now)
        else:
            self._receive(frame, now)

    def _receive(self, frame: Frame, now: Ns) -> None:
        octets = frame.octets
        if len(octets) < 14:
            self._drop("short frame")
            return
        destination = octets[:6]
        if destination != self.mac and not destination[0] & 1:
            self._drop("for another station")
            return
        at = 14
        ethertype = octets[12] << 8 | octets[13]
        if ethertype == ethernet.VLAN and len(octets) >= 18:
            vlan = (octets[14] << 8 | octets[15]) & 0xFFF
            if vlan != (self._vlan or 0):
                self._drop("another VLAN")
                return
            ethertype, at = octets[16] << 8 | octets[17], 18
        elif self._vlan:
            self._drop("another VLAN")
            return
        # a frame that was never on a wire has no checksum yet, and one that was may have been checked on the way
        trusted = frame.trusted or frame.checksum_at != 0
        try:
            if ethertype == ethernet.IPV4:
                self._receive_ipv4(octets, at, destination, trusted, now)
            elif ethertype == ethernet.ARP:
                self._receive_arp(arp.parse(octets, at), now)
            elif ethertype == ethernet.IPV6:
                self._receive_ipv6(octets, at, trusted, now)
            else:
                self._drop("unknown ethertype")
        except WireError as error:
            self._drop(error.what.split(" of ")[0])

    # --- time and out ---------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> Ns | None:
        """When `tick` is due next."""
        while self._timers and self._timers[0][2].scheduled != self._timers[0][0]:
            heappop(self._timers)
        times = [
            self._timers[0][0] if self._timers else None,
            self.neighbours.deadline,
            self._parts.deadline,
            self._solicit[0] if self._solicit else None,
            self._expiry,
        ]
        times += [a.tentative for a in self._addresses.values() if a.tentative]
        return min((t for t in times if t is not None), default=None)

    def tick(self, now: Ns) -> None:
        """Whatever is due at `now`; early or extra calls do nothing."""
        while self._timers and self._timers[0][0] <= now:
            due, _, flow = heappop(self._timers)
            if flow.scheduled == due:
                flow.scheduled = 0
                flow.connection.tick(now)
                self._dirty[flow] = None
        for packet in self.neighbours.tick(now):
            self._undeliverable(packet, now)
        late = self._parts.tick(now)
        if late:
            self.dropped["incomplete datagram"] += late
        for a in [a for a in self._addresses.values() if a.tentative and a.tentative <= now]:
            a.tentative = 0
            self._announce(a.address)
        if self._solicit is not None and self._solicit[0] <= now:
            left = self._solicit[1] - 1
            self._solicit = (now + _SOLICIT_GAP, left) if left else None
            source = self.source_for(ip6.ALL_ROUTERS) or ip6.ANY
            link = self.mac if source != ip6.ANY else b""
            self._send_icmp6(icmp.RouterSolicit(link), source, ip6.ALL_ROUTERS, now, hop_limit=255)
        if self._expiry is not None and self._expiry <= now:
            self._expire(now)

    def transmit(self, now: Ns) -> list[Frame]:
        """Everything that may go out at `now`, in order."""
        while self._dirty:
            flow = next(iter(self._dirty))
            del self._dirty[flow]
            self._serve(flow, now)
        if self.neighbours.asks:
            for ask in self.neighbours.asks:
                self._ask(ask.address, ask.mac, now)
            self.neighbours.asks = []
        out, self._out = self._out, []
        return out

    def _serve(self, flow: Flow, now: Ns) -> None:
        """Send what a connection has to send, and note what became of it."""
        connection = flow.connection
        local, remote = flow.local, flow.remote
        for segment in connection.transmit(now):
            size = len(segment.payload)
            whole = tcp.HEADER + size + (tcp.size_of(segment.options) if segment.options is not tcp.NO_OPTIONS else 0)
            start = checksum.pseudo(local, remote, tcp.PROTOCOL, whole)
            octets = tcp.emit_partial(segment, start) if self.offload.checksum else tcp.emit(segment, start)
            cut = connection.mss if size > connection.mss else 0
            self._send(local, remote, tcp.PROTOCOL, octets, now, segment=cut, partial=self.offload.checksum, whole=True)
        if connection.state is State.CLOSED:
            self._flows.pop(flow.key, None)
            flow.scheduled = 0
            if flow.listener is not None:
                flow.listener.half.pop(flow, None)
            return
        due = connection.deadline
        if due is None:
            flow.scheduled = 0
        elif due != flow.scheduled:
            flow.scheduled = due
            self._count += 1
            heappush(self._timers, (due, self._count, flow))
            if len(self._timers) > 64 + 8 * len(self._flows):  # mostly stale: keep what counts
                self._timers = [t for t in self._timers if t[2].scheduled == t[0]]
                self._timers.sort()

    # --- ARP and IPv4 ---------------------------------------------------------------------------------------------

    def _receive_arp(self, message: arp.Message, now: Ns) -> None:
        if message.sender_mac == self.mac:
            return
        own = self._addresses.get(message.sender)
        if own is not None and message.sender != ip.ANY_V4:
            self._conflict(own, message.sender_mac, now)
            return
        target = self._addresses.get(message.target)
        if target is not None and target.tentative and message.sender == ip.ANY_V4:
            self._conflict(target, message.sender_mac, now)  # somebody probes for the same address
            return
        ours = target is not None and not target.tentative
        if message.sender != ip.ANY_V4:
            waiting = self.neighbours.heard(message.sender, message.sender_mac, now, create=ours)
            self._release(waiting, message.sender_mac)
        if ours and message.operation == arp.REQUEST:
            self._send_arp(arp.REPLY, message.sender_mac, message.target, message.sender_mac, message.sender)

    def _receive_ipv4(self, octets: bytes, at: int, station: bytes, trusted: bool, now: Ns) -> None:
        packet = ip.parse_ipv4(octets, at)
        destination = packet.destination
        own = self._addresses.get(destination)
        broadcast = False
        if own is None or own.tentative:
            if destination == ip.BROADCAST_V4 or self._is_broadcast(destination) or destination in self.groups:
                broadcast = True
            elif station == self.mac and packet.protocol == ip.UDP and not any(len(a) == 4 for a, _ in self.addresses):
                pass  # an address on its way to us by DHCP (RFC 2131 section 4.1)
            else:
                self._drop("for another host")
                return
        payload = packet.payload
        if packet.is_fragment:
            key = (packet.source, destination, packet.protocol, packet.identification)
            more = bool(packet.flags & ip.MORE_FRAGMENTS)
            whole = self._parts.put(key, packet.fragment * 8, more, payload, now)
            if not isinstance(whole, bytes):
                if whole is not None:
                    self._drop(whole)
                return
            payload, trusted = whole, False
            packet = replace(packet, payload=b"", flags=0, fragment=0)
        protocol = packet.protocol
        if protocol == tcp.PROTOCOL:
            if broadcast:
                self._drop("TCP to a group")
            else:
                self._receive_tcp(payload, packet.source, destination, trusted, now)
        elif protocol == ip.UDP:
            quote = octets[at : at + 28]
            self._receive_udp(payload, packet.source, destination, trusted, broadcast, quote, now)
        elif protocol == icmp.PROTOCOL4:
            if not checksum.holds(payload):
                raise WireError("wrong ICMP checksum", at)
            self._receive_icmp4(icmp.parse4(payload), packet.source, destination, broadcast, now)
        elif not broadcast:
            self._drop("unknown protocol")
            problem = icmp.Problem(icmp.UNREACHABLE4, icmp.PROTOCOL_CODE4, 0, octets[at : at + 28])
            self._send_error4(problem, packet.source, destination, now)

    def _receive_icmp4(
        self, message: icmp.Message4, source: bytes, destination: bytes, broadcast: bool, now: Ns
    ) -> None:
        match message:
            case icmp.Echo(reply=False):
                if not broadcast:
                    answer = icmp.Echo(True, message.identifier, message.sequence, message.data)
                    self._send(destination, source, icmp.PROTOCOL4, icmp.emit4(answer), now)
            case icmp.Echo():
                self.events.append(EchoReply(source, message.identifier, message.sequence, message.data))
            case icmp.Problem():
                quote = message.quote
                if message.type == icmp.REDIRECT4:
                    self._drop("redirect")
                elif len(quote) >= 28 and quote[0] >> 4 == 4 and len(quote) >= (quote[0] & 15) * 4 + 8:
                    inner = quote[(quote[0] & 15) * 4 :]
                    mtu = 0
                    if (message.type, message.code) == (icmp.UNREACHABLE4, icmp.FRAGMENT_NEEDED4):
                        mtu = max(message.value & 0xFFFF, _LEAST_MTU4)
                    hard = message.type == icmp.UNREACHABLE4 and message.code in (2, 3, 9, 10, 13)
                    because = _reason4(message)
                    self._problem(quote[12:16], quote[16:20], quote[9], inner, source, because, mtu, hard, now)
                else:
                    self._drop("ICMP error with a short quote")
            case icmp.Other():
                self._drop("unknown ICMP type")

    def _send_error4(self, problem: icmp.Problem, destination: bytes, source: bytes, now: Ns) -> None:
        if self._may_complain(now) and destination != ip.ANY_V4 and source in self._addresses:
            self._send(source, destination, icmp.PROTOCOL4, icmp.emit4(problem), now)

    def _send_arp(self, operation: int, station: bytes, sender: bytes, target_mac: bytes, target: bytes) -> None:
        message = arp.emit(arp.Message(operation, self.mac, sender, target_mac, target))
        self._out.append(Frame(plain(station, self.mac, arp.ETHERTYPE, message, self._tag)))

    # --- IPv6 -----------------------------------------------------------------------------------------------------

    def _receive_ipv6(self, octets: bytes, at: int, trusted: bool, now: Ns) -> None:
        packet = ip6.parse(octets, at)
        destination = packet.destination
        group = destination[0] == 0xFF
        own = self._addresses.get(destination)
        if packet.source[0] == 0xFF:
            self._drop("multicast source")
            return
        if group:
            solicited = any(destination == ip6.solicited_node(a) for a in self._addresses if len(a) == 16)
            if destination != ip6.ALL_NODES and not solicited and destination not in self.groups:
                self._drop("for another host")
                return
        elif own is None or own.tentative:
            self._drop("for another host")
            return
        protocol, payload = packet.protocol, packet.payload
        fragment = packet.fragment
        if fragment is not None:
            if fragment.offset or fragment.more:
                key = (packet.source, destination, fragment.identification)
                whole = self._parts.put(key, fragment.offset, fragment.more, payload, now)
                if not isinstance(whole, bytes):
                    if whole is not None:
                        self._drop(whole)
                    return
                payload, trusted = whole, False
            protocol, payload, extensions = ip6.walk(protocol, payload)
            if extensions and extensions[-1][0] == ip6.FRAGMENT:
                self._drop("fragment in a fragment")
                return
        if protocol == tcp.PROTOCOL:
            if not group:
                self._receive_tcp(payload, packet.source, destination, trusted, now)
        elif protocol == ip.UDP:
            quote = octets[at : at + 1200]
            self._receive_udp(payload, packet.source, destination, trusted, group, quote, now)
        elif protocol == icmp.PROTOCOL6:
            start = checksum.pseudo(packet.source, destination, icmp.PROTOCOL6, len(payload))
            if not checksum.holds(payload, start):
                raise WireError("wrong ICMPv6 checksum", at)
            self._receive_icmp6(icmp.parse6(payload), packet, fragment is not None, now)
        else:
            self._drop("unknown protocol")

    def _receive_icmp6(self, message: icmp.Message6, packet: ip6.Ipv6, fragmented: bool, now: Ns) -> None:
        source, destination = packet.source, packet.destination
        discovery = not isinstance(message, icmp.Echo | icmp.Problem | icmp.Other)
        if discovery and (packet.hop_limit != 255 or fragmented):  # RFC 4861 section 6.1, RFC 6980
            self._drop("neighbour discovery from afar")
            return
        match message:
            case icmp.Echo(reply=False):
                sender = destination if destination in self._addresses else self.source_for(source)
                if sender is not None:
                    answer = icmp.Echo(True, message.identifier, message.sequence, message.data)
                    self._send(sender, source, icmp.PROTOCOL6, icmp.emit6(answer, sender, source), now)
            case icmp.Echo():
                self.events.append(EchoReply(source, message.identifier, message.sequence, message.data))
            case icmp.Problem():
                self._receive_problem6(message, source, now)
            case icmp.NeighbourSolicit():
                self._receive_solicit(message, source, now)
            case icmp.NeighbourAdvert():
                own = self._addresses.get(message.target)
                if own is not None:
                    self._conflict(own, message.link, now)
                elif message.link:
                    self._release(self.neighbours.heard(message.target, message.link, now), message.link)
            case icmp.RouterAdvert():
                if source[:2] != b"\xfe\x80":
                    self._drop("router advertisement not from the link")
                else:
                    self._receive_router(message, source, now)
            case icmp.RouterSolicit() | icmp.Other():
                self._drop("unknown ICMPv6 type")

    def _receive_problem6(self, message: icmp.Problem, source: bytes, now: Ns) -> None:
        quote = message.quote
        if len(quote) < 48 or quote[0] >> 4 != 6:
            self._drop("ICMP error with a short quote")
            return
        mtu = max(message.value, ip6.MIN_MTU) if message.type == icmp.TOO_BIG6 else 0
        hard = message.type == icmp.UNREACHABLE6 and message.code in (1, icmp.PORT6, 5, 6)
        because = _reason6(message)
        self._problem(quote[8:24], quote[24:40], quote[6], quote[40:], source, because, mtu, hard, now)

    def _receive_solicit(self, message: icmp.NeighbourSolicit, source: bytes, now: Ns) -> None:
        own = self._addresses.get(message.target)
        if own is None:
            return
        if own.tentative:
            if source == ip6.ANY:
                self._conflict(own, message.link, now)
            return
        if source == ip6.ANY:  # somebody probes for our address: tell everybody that it is taken
            advert = icmp.NeighbourAdvert(message.target, self.mac, override=True)
            self._send_icmp6(advert, message.target, ip6.ALL_NODES, now, hop_limit=255)
            return
        if message.link:
            self._release(self.neighbours.heard(source, message.link, now, create=True), message.link)
        advert = icmp.NeighbourAdvert(message.target, self.mac, solicited=True, override=True)
        self._send_icmp6(advert, message.target, source, now, hop_limit=255)

    def _receive_router(self, message: icmp.RouterAdvert, router: bytes, now: Ns) -> None:
        """RFC 4861 section 6.3.4 and RFC 4862 section 5.5.3."""
        self._solicit = None
        if message.link:
            self._release(self.neighbours.heard(router, message.link, now, create=True), message.link)
        if message.lifetime and (router in self._routers or len(self._routers) < _ROUTERS_MAX):
            self._routers[router] = now + message.lifetime * S
        elif not message.lifetime:
            self._routers.pop(router, None)
        self._choose_router()
        if message.hop_limit:
            self.hop_limit = message.hop_limit
        if ip6.MIN_MTU <= message.mtu < self.mtu:
            self.mtu = message.mtu
        for server in message.dns:
            if server not in self.dns and len(self.dns) < _SERVERS_MAX:
                self.dns.append(server)
        for prefix in message.prefixes:
            if prefix.prefix[:2] == b"\xfe\x80" or prefix.preferred > prefix.valid or prefix.length > 64:
                continue
            if prefix.on_link:
                self._note_prefix(prefix, now)
            if not prefix.autonomous or prefix.length != 64:
                continue
            address = prefix.prefix[:8] + ip6.identifier(self.mac)
            expires = 0 if prefix.valid == _FOREVER else now + prefix.valid * S
            known = self._addresses.get(address)
            if known is not None:
                # two hours are left even if somebody says less (RFC 4862 section 5.5.3 (e))
                if expires == 0 or expires > now + 7200 * S or (known.expires and expires > known.expires):
                    known.expires = expires
            elif prefix.valid and sum(len(a) == 16 for a in self._addresses) < _PREFIXES_MAX:
                self.add_address(address, 64, now, probe=True)
                self._addresses[address].expires = expires
        self._expire(now)

    def _note_prefix(self, prefix: icmp.Prefix, now: Ns) -> None:
        """A network that is on the link (RFC 4861 section 6.3.4)."""
        key = (masked(prefix.prefix, prefix.length), prefix.length)
        if not prefix.valid:
            if self._on_link.pop(key, None) is not None:
                self.routes.delete(*key)
        elif key in self._on_link or len(self._on_link) < _PREFIXES_MAX:
            self._on_link[key] = now + prefix.valid * S
            self.routes.add(*key)

    def _choose_router(self) -> None:
        router = next(iter(self._routers), None)
        if router is None:
            self.routes.delete(ip6.ANY, 0, metric=1024)
        else:
            self.routes.default(router, metric=1024)

    def _expire(self, now: Ns) -> None:
        """End what has ended, and note when the next thing does."""
        for address in [a.address for a in self._addresses.values() if a.expires and a.expires <= now]:
            self.remove_address(address)
        ended = [router for router, until in self._routers.items() if until <= now]
        for router in ended:
            del self._routers[router]
        if ended:
            self._choose_router()
        for key in [key for key, until in self._on_link.items() if until <= now]:
            del self._on_link[key]
            self.routes.delete(*key)
        times = [a.expires for a in self._addresses.values() if a.expires]
        times += [*self._routers.values(), *self._on_link.values()]
        self._expiry = min(times, default=None)

    def _send_icmp6(
        self, message: icmp.Message6, source: bytes, destination: bytes, now: Ns, *, hop_limit: int = 0
    ) -> None:
        octets = icmp.emit6(message, source, destination)
        self._send(source, destination, icmp.PROTOCOL6, octets, now, hop_limit=hop_limit)

    # --- transports -----------------------------------------------------------------------------------------------

    def _receive_tcp(self, octets: bytes, source: bytes, destination: bytes, trusted: bool, now: Ns) -> None:
        if not trusted and not checksum.holds(octets, checksum.pseudo(source, destination, 6, len(octets))):
            raise WireError("wrong TCP checksum", 0)
        segment = tcp.parse(octets)
        key = (destination, segment.destination, source, segment.source)
        flow = self._flows.get(key)
        if flow is not None and flow.connection.supersedes(segment):
            flow.connection.abort()
            del self._flows[key]
            flow = None
        if flow is not None:
            flow.connection.receive(segment, now)
            self._dirty[flow] = None
            if flow.listener is not None and flow in flow.listener.half and flow.connection.established:
                del flow.listener.half[flow]
                flow.listener.ready.append(flow)
            return
        listener = self._listeners.get((destination, segment.destination)) or self._listeners.get(
            (b"", segment.destination)
        )
        if listener is not None and segment.flags & (tcp.SYN | tcp.ACK | tcp.RST) == tcp.SYN:
            self._accept(listener, segment, key, now)
        elif not segment.flags & tcp.RST:
            self._drop("no such TCP connection")
            self._refuse(segment, source, destination, now)

    def _accept(self, listener: Listener, syn: tcp.Segment, key: tuple[bytes, int, bytes, int], now: Ns) -> None:
        if len(listener.ready) >= listener.backlog:
            self._drop("backlog full")
            return
        if len(listener.half) >= listener.backlog:
            oldest = next(iter(listener.half))
            del listener.half[oldest]
            self._flows.pop(oldest.key, None)
            oldest.scheduled = 0
            self._drop("half-open connection gave way")
        if not self._make_room():
            self._drop("too many connections")
            return
        iss, clock = self._numbers(key, now)
        config = self._config(key[2], listener.config, now)
        connection = Connection(key[1], key[3], iss, now, config, clock, syn=syn)
        flow = self._flows[key] = Flow(connection, key[0], key[2], listener)
        listener.half[flow] = None
        self._dirty[flow] = None

    def _refuse(self, segment: tcp.Segment, source: bytes, destination: bytes, now: Ns) -> None:
        """A reset for a segment of no connection (RFC 9293 section 3.10.7.1)."""
        if segment.flags & tcp.ACK:
            reset = tcp.Segment(segment.destination, segment.source, segment.ack, 0, tcp.RST, 0)
        else:
            ack = (segment.seq + segment.length) & 0xFFFFFFFF
            reset = tcp.Segment(segment.destination, segment.source, 0, ack, tcp.RST | tcp.ACK, 0)
        start = checksum.pseudo(destination, source, tcp.PROTOCOL, tcp.HEADER)
        self._send(destination, source, tcp.PROTOCOL, tcp.emit(reset, start), now, whole=True)

    def _receive_udp(
        self, octets: bytes, source: bytes, destination: bytes, trusted: bool, broadcast: bool, quote: bytes, now: Ns
    ) -> None:
        datagram = ip.parse_udp(octets, source, destination, verify=not trusted)
        port = self._udp.get((destination, datagram.destination)) or self._udp.get((b"", datagram.destination))
        if port is None:
            self._drop("no such UDP port")
            if not broadcast:
                if len(source) == 4:
                    problem = icmp.Problem(icmp.UNREACHABLE4, icmp.PORT4, 0, quote)
                    self._send_error4(problem, source, destination, now)
                elif self._may_complain(now):
                    problem = icmp.Problem(icmp.UNREACHABLE6, icmp.PORT6, 0, quote)
                    self._send_icmp6(problem, destination, source, now)
            return
        if len(port.queue) >= _QUEUE_MAX or port.octets + len(datagram.payload) > _QUEUE_OCTETS:
            port.dropped += 1
            self._drop("UDP queue full")
            return
        port.queue.append((datagram.payload, source, datagram.source, destination))
        port.octets += len(datagram.payload)

    def _problem(
        self, local: bytes, remote: bytes, protocol: int, inner: bytes, by: bytes, because: str, mtu: int,
        hard: bool, now: Ns,
    ) -> None:  # fmt: skip
        """An ICMP error about a packet of ours: hand it to whoever sent that."""
        if local not in self._addresses:
            self._drop("ICMP error about somebody else's packet")
            return
        if protocol == tcp.PROTOCOL:
            ports = int.from_bytes(inner[:2], "big"), int.from_bytes(inner[2:4], "big")
            flow = self._flows.get((local, ports[0], remote, ports[1]))
            if flow is None:
                self._drop("ICMP error about no connection")
                return
            seq = int.from_bytes(inner[4:8], "big")
            if mtu:
                before = flow.connection.mss
                flow.connection.path_mtu(mtu - (20 if len(local) == 4 else 40), seq)
                if flow.connection.mss < before:
                    self._remember_path(remote, mtu, now)
            else:
                flow.connection.unreachable(because, hard, seq)
            self._dirty[flow] = None
            return
        if mtu:
            self._remember_path(remote, mtu, now)
        self._tell(Undelivered(remote, by, because, protocol, inner), local)

    def _tell(self, event: Undelivered, local: bytes) -> None:
        if event.protocol == ip.UDP:
            number = int.from_bytes(event.quote[:2], "big")
            port = self._udp.get((local, number)) or self._udp.get((b"", number))
            if port is not None:
                port.errors.append(event)
                return
        self.events.append(event)

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(
        self, source: bytes, destination: bytes, protocol: int, payload: bytes, now: Ns, *, segment: int = 0,
        partial: bool = False, whole: bool = False, hop_limit: int = 0,
    ) -> str:  # fmt: skip
        """Send one packet, in fragments if it must be; "" or why it cannot be sent.

        segment, partial: as in Frame. whole: never in fragments (path MTU discovery).
        """
        version4 = len(destination) == 4
        header = 20 if version4 else ip6.HEADER
        mtu = self.path_mtu(destination, now)
        if header + len(payload) <= mtu or segment or whole:
            if version4:
                flags = ip.DONT_FRAGMENT if whole else 0
                number = 0 if whole and not segment else self.draw() & 0xFFFF
                packet = ip.emit_ipv4(
                    ip.Ipv4(source, destination, protocol, payload, hop_limit or 64, 0, number, flags)
                )
            else:
                packet = ip6.emit(ip6.Ipv6(source, destination, protocol, payload, hop_limit or self.hop_limit))
            at = 14 + len(self._tag) + header if partial else 0
            return self._send_packet(source, destination, packet, now, segment, at)
        number = self.draw()
        size = (mtu - header - (0 if version4 else 8)) // 8 * 8
        for offset in range(0, len(payload), size):
            piece, more = payload[offset : offset + size], offset + size < len(payload)
            if version4:
                packet = ip.emit_ipv4(
                    ip.Ipv4(
                        source, destination, protocol, piece, hop_limit or 64, 0, number & 0xFFFF, more, offset // 8
                    )
                )
            else:
                extension = ip6.fragment_header(ip6.Fragment(offset, more, number))
                packet = ip6.emit(
                    ip6.Ipv6(source, destination, protocol, piece, hop_limit or self.hop_limit, extensions=(extension,))
                )
            trouble = self._send_packet(source, destination, packet, now, 0, 0)
            if trouble:
                return trouble
        return ""

    def _send_packet(
        self, source: bytes, destination: bytes, packet: bytes, now: Ns, segment: int, partial: int
    ) -> str:
        if len(destination) == 4:
            ethertype = ethernet.IPV4
            if destination == ip.BROADCAST_V4 or self._is_broadcast(destination):
                station: bytes | None = ethernet.BROADCAST
            elif destination[0] & 0xF0 == 0xE0:
                station = b"\x01\x00\x5e" + bytes((destination[1] & 0x7F,)) + destination[2:]  # RFC 1112 section 6.4
            else:
                station = None
        else:
            ethertype = ethernet.IPV6
            station = ip6.multicast_mac(destination) if destination[0] == 0xFF else None
        if station is None:
            hop = self._next_hop(destination)
            if hop is None:
                self._drop("no route")
                return "no route to host"
            waiting = (ethertype, packet, segment, partial)
            station = self.neighbours.resolve(hop, waiting, now)
            if station is None:
                return ""
        octets = plain(station, self.mac, ethertype, packet, self._tag)
        self._out.append(Frame(octets, segment, partial))
        return ""

    def _release(self, waiting: list[object], mac: bytes) -> None:
        """Send what waited for the MAC of a neighbour."""
        for packet in waiting:
            assert isinstance(packet, tuple)
            ethertype, payload, segment, partial = packet
            self._out.append(Frame(plain(mac, self.mac, ethertype, payload, self._tag), segment, partial))

    def _undeliverable(self, packet: object, now: Ns) -> None:
        """Nobody answered for the next hop of this packet."""
        assert isinstance(packet, tuple)
        octets: bytes = packet[1]
        if packet[0] == ethernet.IPV4:
            inner, local, remote = octets[(octets[0] & 15) * 4 :], octets[12:16], octets[16:20]
            protocol = octets[9]
        else:
            inner, local, remote, protocol = octets[40:], octets[8:24], octets[24:40], octets[6]
        self._problem(local, remote, protocol, inner, b"", "host unreachable (no answer on the link)", 0, True, now)

    def _ask(self, address: bytes, mac: bytes | None, now: Ns) -> None:
        source = self.source_for(address)
        if len(address) == 4:
            self._send_arp(arp.REQUEST, mac or ethernet.BROADCAST, source or ip.ANY_V4, bytes(6), address)
        elif source is not None:
            group = ip6.solicited_node(address)
            message = icmp.emit6(icmp.NeighbourSolicit(address, self.mac), source, address if mac else group)
            packet = ip6.emit(ip6.Ipv6(source, address if mac else group, icmp.PROTOCOL6, message, 255))
            station = mac or ip6.multicast_mac(group)
            self._out.append(Frame(plain(station, self.mac, ethernet.IPV6, packet, self._tag)))

    def _announce(self, address: bytes) -> None:
        """Tell the link that an address is ours (RFC 5227 section 2.3)."""
        if len(address) == 4:
            self._send_arp(arp.REQUEST, ethernet.BROADCAST, address, bytes(6), address)

    def _conflict(self, own: _Address, mac: bytes, now: Ns) -> None:
        self.events.append(Conflict(own.address, mac))
        if own.tentative:
            self.remove_address(own.address)
        elif len(own.address) == 4 and now - own.defended >= _DEFEND:
            own.defended = now
            self._announce(own.address)

    # --- small things ---------------------------------------------------------------------------------------------

    def path_mtu(self, destination: bytes, now: Ns) -> int:
        """Octets of IP packet that the way to `destination` takes, as far as we know."""
        known = self._paths.get(destination)
        if known is not None:
            if known[1] > now:
                return min(known[0], self.mtu)
            del self._paths[destination]
        return self.mtu

    def _remember_path(self, destination: bytes, mtu: int, now: Ns) -> None:
        if mtu < self.path_mtu(destination, now):
            if len(self._paths) >= _PATHS_MAX:
                del self._paths[next(iter(self._paths))]
            self._paths[destination] = (mtu, now + _PATH_LIFETIME)

    def _config(self, destination: bytes, config: Config | None, now: Ns) -> Config:
        """A connection's numbers on the way to `destination`."""
        header = 20 if len(destination) == 4 else ip6.HEADER
        burst = 0xFFFF - header - _TCP_HEADERS if self.offload.segmentation else 0
        payload = self.path_mtu(destination, now) - header
        return replace(config or self.tcp, mss=self.mtu - header - 20, mtu_payload=payload, burst=burst)

    def _next_hop(self, destination: bytes) -> bytes | None:
        route: Route | None = self.routes.find(destination)
        if route is None:
            return None
        return destination if route.gateway is None else route.gateway

    def _is_broadcast(self, address: bytes) -> bool:
        """Whether this is the directed broadcast address of a network of ours."""
        number = int.from_bytes(address, "big")
        for own in self._addresses.values():
            if len(own.address) == 4 and own.prefix < 31:
                ones = (1 << 32 - own.prefix) - 1
                if number == int.from_bytes(own.address, "big") | ones:
                    return True
        return False

    def _make_room(self) -> bool:
        """Whether another connection fits; one in TIME-WAIT gives way."""
        if len(self._flows) < FLOWS_MAX:
            return True
        for key, flow in self._flows.items():
            if flow.connection.state is State.TIME_WAIT:
                flow.scheduled = 0
                del self._flows[key]
                return True
        return False

    def _numbers(self, key: tuple[bytes, int, bytes, int], now: Ns) -> tuple[int, int]:
        """Initial sequence number (RFC 6528 section 3: a 4 us clock and a keyed hash) and timestamp offset."""
        name = key[0] + key[1].to_bytes(2, "big") + key[2] + key[3].to_bytes(2, "big")
        digest = blake2s(name, key=self._secret[:32], digest_size=8).digest()
        return (int.from_bytes(digest[:4], "big") + now // 4000) & 0xFFFFFFFF, int.from_bytes(digest[4:], "big")

    def _free_port(self, taken: Callable[[int], bool]) -> int:
        """A random free port (RFC 6056 section 3.3.1); ValueError if there is none."""
        first, last = _EPHEMERAL
        count = last - first + 1
        start = self.draw() % count
        for i in range(count):
            port = first + (start + i) % count
            if not taken(port):
                return port
        raise ValueError("no free port")

    def _may_complain(self, now: Ns) -> bool:
        """Whether one more ICMP error may go out."""
        if now - self._errors_from >= S:
            self._errors_from, self._errors_sent = now, 0
        self._errors_sent += 1
        return self._errors_sent <= _ERRORS_A_SECOND

    def _drop(self, because: str) -> None:
        self.dropped[because] += 1


def _reason4(message: icmp.Problem) -> str:
    if message.type == icmp.TIME_EXCEEDED4:
        return "time exceeded"
    if message.type == icmp.UNREACHABLE4:
        names = ("net", "host", "protocol", "port")
        if message.code < len(names):
            return f"{names[message.code]} unreachable"
        return "packet too big" if message.code == icmp.FRAGMENT_NEEDED4 else f"unreachable (code {message.code})"
    return f"parameter problem at octet {message.value >> 24}"


def _reason6(message: icmp.Problem) -> str:
    if message.type == icmp.UNREACHABLE6:
        names = {0: "net unreachable", 1: "prohibited", 3: "host unreachable", icmp.PORT6: "port unreachable"}
        return names.get(message.code, f"unreachable (code {message.code})")
    if message.type == icmp.TOO_BIG6:
        return "packet too big"
    return "time exceeded" if message.type == icmp.TIME_EXCEEDED6 else "parameter problem"
