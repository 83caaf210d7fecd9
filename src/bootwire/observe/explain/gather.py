"""Packets into conversations: per machine what it asked and heard, and what went on around it. Bounded throughout."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace

from bootwire.observe.explain.layers import Fragment, Layers, Peeled
from bootwire.observe.explain.transfers import Connection, Exchange, Transfer, request
from bootwire.policy.client import Client, Kind, classify
from bootwire.wire import arp, dhcp4, dhcp6, dns, icmp, ip, ip6, pcap, syslog, tcp
from bootwire.wire.dhcp4 import Message
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

MACHINES, MESSAGES, TRANSFERS, CONNECTIONS = 1_024, 400, 400, 400
"""Kept at most: machines of a capture; of each its DHCP messages, TFTP transfers, HTTP connections."""

TOTAL = 20_000
"""The same for all machines together: at most some 50 MB."""

_OTHERS = 4_096  # addresses, DNS questions, fragments, ARP questions kept
_RELAYS = 8  # HOP_COUNT_LIMIT, RFC 8415 section 7.6
SECOND = 1_000_000_000

DNS_PORT, TFTP_PORT, HTTP_PORT, HTTPS_PORT, SYSLOG_PORT = 53, 69, 80, 443, 514  # IANA


@dataclass(frozen=True, slots=True)
class Said:
    """One DHCP message on the wire."""

    at: int
    message: Message
    client: Client
    source: str
    sport: int
    destination: str
    dport: int
    mac: str
    data: bytes
    vlan: int = -1

    @property
    def from_client(self) -> bool:
        return self.message.op == dhcp4.REQUEST

    @property
    def server(self) -> str:
        """Who a reply is from: option 54, else where it came from."""
        return dhcp4.address(self.message.option(dhcp4.SERVER_ID)) or self.source


@dataclass(frozen=True, slots=True)
class Said6:
    """One DHCPv6 message on the wire, out of its relays' envelopes. relay: the nearest one's address, "" without."""

    at: int
    message: dhcp6.Message
    source: str
    from_client: bool
    relay: str = ""


def wants_file(message: dhcp6.Message) -> bool:
    """A DHCPv6 client that netboots: it tells its architecture or asks for the boot file's URL (RFC 5970)."""
    if message.option(dhcp6.ARCHITECTURE):
        return True
    asked = message.option(dhcp6.REQUEST_LIST) or b""
    return dhcp6.BOOT_URL in (int.from_bytes(asked[at : at + 2], "big") for at in range(0, len(asked), 2))


@dataclass(slots=True)
class Lookup:
    at: int
    client: str
    name: str
    answered: bool = False
    code: int = 0
    found: bool = False


@dataclass(slots=True)
class Machine:
    """Everything of one machine, in the order of the capture. addresses: its own, as DHCP gave them."""

    mac: str
    said: list[Said] = field(default_factory=list)
    said6: list[Said6] = field(default_factory=list)
    addresses: dict[str, None] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    problems: list[tuple[int, str, icmp.Problem]] = field(default_factory=list)
    console: list[tuple[int, str]] = field(default_factory=list)
    arp_asked: dict[str, int] = field(default_factory=dict)
    last: int = 0

    @property
    def exchanges(self) -> list[Exchange]:
        return [one for connection in self.connections for one in connection.exchanges]

    def of(self, *types: int, client: bool | None = None) -> list[Said]:
        """Its DHCP messages of these types."""
        return [one for one in self.said if one.message.type in types and client in (None, one.from_client)]

    @property
    def boots(self) -> bool:
        """It netboots: it said so, or took files."""
        if self.transfers or any(one.from_client and wants_file(one.message) for one in self.said6):
            return True
        plain = (Kind.HOST, Kind.BOOTP)
        return any(one.from_client and one.client.kind not in plain for one in self.said)


@dataclass(slots=True)
class Capture:
    """What was seen. damage: why reading ended early, "" if it did not."""

    machines: dict[str, Machine] = field(default_factory=dict)
    packets: int = 0
    octets: int = 0
    cut: int = 0
    began: int = 0
    ended: int = 0
    strangers: int = 0
    bad_dhcp: list[tuple[int, str, str]] = field(default_factory=list)
    owners: dict[str, dict[str, int]] = field(default_factory=dict)  # IPv4 -> MACs that claimed it
    arp_answered: dict[str, None] = field(default_factory=dict)
    fragments: dict[tuple[str, str, int], int] = field(default_factory=dict)  # not whole yet -> pieces
    lost_fragments: dict[tuple[str, str], int] = field(default_factory=dict)  # (from, to) -> datagrams
    damage: str = ""


class Gatherer:
    """Feeds on packets; `capture` is what is known so far."""

    def __init__(self) -> None:
        self.capture = Capture()
        self._layers = Layers()
        self._kept = 0
        self._by_address: dict[str, str] = {}
        self._transfers: dict[tuple[str, int], Transfer] = {}
        self._connections: dict[tuple[str, int, str, int], Connection] = {}
        self._lookups: dict[tuple[str, int], Lookup] = {}
        self._by_duid: dict[bytes, str] = {}

    def take(self, packet: pcap.Packet) -> None:
        """One packet. Never raises for what is in it."""
        capture = self.capture
        if not packet.at:  # pcapng's simple packets have no time: that of the one before
            packet = replace(packet, at=capture.ended)
        capture.packets += 1
        capture.octets += packet.size
        capture.began = min(capture.began or packet.at, packet.at)  # merged files are not in order
        capture.ended = max(capture.ended, packet.at)
        capture.cut += packet.size > len(packet.data)
        seen = self._layers.peel(packet)
        if isinstance(seen, Fragment):
            if len(capture.fragments) < _OTHERS:
                capture.fragments[seen.key] = capture.fragments.get(seen.key, 0) + 1
            return
        if seen is None:
            return
        if seen.key is not None:
            capture.fragments.pop(seen.key, None)
        if isinstance(seen.body, bytes):
            self._datagram(seen, seen.body)
        elif isinstance(seen.body, tcp.Segment):
            self._segment(seen, seen.body, max(0, packet.size - len(packet.data)))
        elif isinstance(seen.body, arp.Message):
            self._arp(seen, seen.body)
        elif isinstance(seen.body, icmp.Problem):
            self._problem(seen, seen.body)

    def end(self) -> Capture:
        """No more packets."""
        for source, destination, _ in self.capture.fragments:
            pair = (source, destination)
            self.capture.lost_fragments[pair] = self.capture.lost_fragments.get(pair, 0) + 1
        return self.capture

    # --- UDP ----------------------------------------------------------------------------------------------------

    def _datagram(self, seen: Peeled, data: bytes) -> None:
        ports = (seen.sport, seen.dport)
        if seen.cut and not {dhcp4.SERVER_PORT, dhcp4.CLIENT_PORT, dhcp4.PXE_PORT}.isdisjoint(ports):
            return  # half a DHCP message would be read as a bad one
        if not {dhcp4.SERVER_PORT, dhcp4.CLIENT_PORT, dhcp4.PXE_PORT}.isdisjoint(ports):
            self._dhcp(seen, data)
        elif not seen.cut and not {dhcp6.SERVER_PORT, dhcp6.CLIENT_PORT}.isdisjoint(ports):
            self._dhcp6(seen, data)
        elif seen.dport == TFTP_PORT:
            self._tftp_request(seen, data)
        elif DNS_PORT in ports:
            self._dns(seen, data)
        elif seen.dport == SYSLOG_PORT:
            self._syslog(seen, data)
        elif (found := self._transfers.get((seen.source, seen.sport))) is not None:
            self._on(found, seen, data, of_client=True)
        elif (found := self._transfers.get((seen.destination, seen.dport))) is not None:
            self._on(found, seen, data, of_client=False)

    def _on(self, found: Transfer, seen: Peeled, data: bytes, *, of_client: bool) -> None:
        found.fragments = max(found.fragments, seen.fragments)
        port = seen.dport if of_client else seen.sport
        found.take(seen.at, of_client, data, seen.source, port)
        if (machine := self._owner(found.client)) is not None:
            machine.last = seen.at

    def _dhcp(self, seen: Peeled, data: bytes) -> None:
        try:
            message = dhcp4.parse(data)
        except WireError as error:
            if len(self.capture.bad_dhcp) < 64 and len(data) > 240:
                self.capture.bad_dhcp.append((seen.at, seen.source, str(error)))
            return
        mac = message.mac or (message.chaddr[: message.hlen].hex(":") if message.hlen else seen.source_mac)
        machine = self._machine(mac)
        if machine is None:
            return
        machine.last = seen.at
        said = Said(
            seen.at, message, classify(message), seen.source, seen.sport, seen.destination, seen.dport,
            seen.source_mac, data, seen.vlan,
        )  # fmt: skip
        last = machine.said[-1] if machine.said else None
        same = last is not None and (last.data, last.source, last.destination) == (data, seen.source, seen.destination)
        if same and last is not None and seen.at - last.at < SECOND // 20:
            return  # the same frame heard twice, at two places of a bridge
        if len(machine.said) < MESSAGES and self._kept < TOTAL:
            self._kept += 1
            machine.said.append(said)
        if message.type == dhcp4.ACK and message.yiaddr != "0.0.0.0":
            self._claim(machine, message.yiaddr)
        elif said.from_client and message.ciaddr != "0.0.0.0":
            self._claim(machine, message.ciaddr)

    def _dhcp6(self, seen: Peeled, data: bytes) -> None:
        relay = mac = ""
        try:
            message = dhcp6.parse(data)
            for _ in range(_RELAYS):
                if not isinstance(message, dhcp6.Relay):
                    break
                relay, mac = ip6.text(message.link), _behind(message) or mac
                inner = next((value for code, value in message.options if code == dhcp6.RELAYED), b"")
                message = dhcp6.parse(inner)
        except WireError:
            return
        if isinstance(message, dhcp6.Relay):
            return
        of_client = message.kind not in (dhcp6.ADVERTISE, dhcp6.REPLY, dhcp6.RECONFIGURE)
        duid = message.option(dhcp6.CLIENT_ID) or b""
        known = self._by_duid.get(duid, "")
        if not known and of_client:
            known = (mac or _mac_of(duid) if relay else seen.source_mac) or seen.source
            if duid and len(self._by_duid) < _OTHERS:
                self._by_duid[duid] = known
        machine = self._machine(known) if known else self._owner(seen.destination)
        if machine is None:
            return
        machine.last = seen.at
        if len(machine.said6) < MESSAGES and self._kept < TOTAL:
            self._kept += 1
            machine.said6.append(Said6(seen.at, message, seen.source, of_client, relay))
        if message.kind == dhcp6.REPLY:
            for address in _given6(message):
                self._claim(machine, address)

    def _tftp_request(self, seen: Peeled, data: bytes) -> None:
        asked = request(data)
        key = (seen.source, seen.sport)
        if asked is None:
            if (found := self._transfers.get(key)) is not None:
                self._on(found, seen, data, of_client=True)  # a server that answers from port 69 itself
            return
        name, raw, options = asked
        machine = self._talker(seen)
        if machine is None:
            return
        machine.last = seen.at
        found = self._transfers.get(key)
        again = found is not None and found.raw == raw and found.asked == options and found.highest <= 1
        if again and found is not None and not found.who:
            found.repeats += 1
            found.ended = seen.at
            return
        made = Transfer(seen.source, seen.sport, seen.destination, name, seen.at, raw=raw, asked=options)
        if len(machine.transfers) < TRANSFERS and self._kept < TOTAL:
            self._kept += 1
            machine.transfers.append(made)
            self._transfers[key] = made

    def _dns(self, seen: Peeled, data: bytes) -> None:
        try:
            message = dns.parse(data)
        except WireError:
            return
        if seen.dport == DNS_PORT and message.questions:
            machine = self._known(seen)
            if machine is None or len(self._lookups) >= _OTHERS:
                return
            key = (seen.source, message.id)
            if key not in self._lookups:
                name = printable(dns.text_of(message.questions[0].name), 120)
                self._lookups[key] = Lookup(seen.at, seen.source, name)
                machine.lookups.append(self._lookups[key])
        elif (found := self._lookups.get((seen.destination, message.id))) is not None:
            found.answered, found.code, found.found = True, message.code, bool(message.answers)

    def _syslog(self, seen: Peeled, data: bytes) -> None:
        machine = self._known(seen)
        if machine is not None and len(machine.console) < MESSAGES:
            machine.console.append((seen.at, printable(syslog.parse(data).text, 200)))
            machine.last = seen.at

    # --- others -------------------------------------------------------------------------------------------------

    def _segment(self, seen: Peeled, segment: tcp.Segment, missing: int) -> None:
        key = (seen.source, seen.sport, seen.destination, seen.dport)
        back = key[2:] + key[:2]
        found, of_client = self._connections.get(key), True
        if found is None:
            found, of_client = self._connections.get(back), False
        if found is not None and of_client and segment.flags & (tcp.SYN | tcp.ACK) == tcp.SYN and found.exchanges:
            found = None  # the same ports again: another connection
        if found is None:
            if segment.flags & (tcp.SYN | tcp.ACK) != tcp.SYN:
                return  # began before the capture
            machine = self._known(seen)
            if machine is None or len(machine.connections) >= CONNECTIONS or self._kept >= TOTAL:
                return
            self._kept += 1
            found, of_client = Connection(seen.source, seen.destination, seen.dport, seen.at), True
            machine.connections.append(found)
            self._connections[key] = found
        if (owner := self._owner(found.client)) is not None:
            owner.last = seen.at
        found.take(seen.at, of_client, segment, missing)

    def _arp(self, seen: Peeled, message: arp.Message) -> None:
        sender = ip.v4_text(message.sender)
        mac = message.sender_mac.hex(":")
        if message.sender != ip.ANY_V4:
            if sender in self.capture.owners or len(self.capture.owners) < _OTHERS:
                macs = self.capture.owners.setdefault(sender, {})
                if mac in macs or len(macs) < 8:
                    macs[mac] = macs.get(mac, 0) + 1
            if message.operation == arp.REPLY and len(self.capture.arp_answered) < _OTHERS:
                self.capture.arp_answered[sender] = None
        machine = self.capture.machines.get(mac)
        if message.operation == arp.REQUEST and machine is not None and message.sender not in (
            ip.ANY_V4, message.target,
        ):  # fmt: skip
            target = ip.v4_text(message.target)
            if target in machine.arp_asked or len(machine.arp_asked) < 64:
                machine.arp_asked[target] = machine.arp_asked.get(target, 0) + 1

    def _problem(self, seen: Peeled, message: icmp.Problem) -> None:
        machine = self._owner(seen.destination) or self._owner(seen.source)
        if machine is None:
            with contextlib.suppress(IndexError, ValueError):
                machine = self._owner(ip.v4_text(message.quote[12:16])) or self._owner(ip.v4_text(message.quote[16:20]))
        if machine is not None and len(machine.problems) < 64:
            machine.problems.append((seen.at, seen.source, message))

    # --- who is who ---------------------------------------------------------------------------------------------

    def _machine(self, mac: str) -> Machine | None:
        found = self.capture.machines.get(mac)
        if found is None:
            if len(self.capture.machines) >= MACHINES:
                self.capture.strangers += 1
                return None
            found = self.capture.machines[mac] = Machine(mac)
        return found

    def _claim(self, machine: Machine, address: str) -> None:
        if len(self._by_address) < _OTHERS and len(machine.addresses) < 16:
            self._by_address[address] = machine.mac
            machine.addresses[address] = None

    def _owner(self, address: str) -> Machine | None:
        return self.capture.machines.get(self._by_address.get(address, ""))

    def _known(self, seen: Peeled) -> Machine | None:
        """The machine that sent this, if it is one that spoke DHCP or TFTP here."""
        return self._owner(seen.source) or self.capture.machines.get(seen.source_mac)

    def _talker(self, seen: Peeled) -> Machine | None:
        """The same, made if need be: captures begin anywhere."""
        found = self._known(seen)
        if found is None:
            found = self._machine(seen.source_mac or seen.source)
            if found is not None:
                self._claim(found, seen.source)
        return found


def _mac_of(duid: bytes) -> str:
    """The Ethernet address in a DUID that is made of one (RFC 8415 sections 11.2 and 11.4), "" in others."""
    size = {b"\0\1\0\1": 14, b"\0\3\0\1": 10}.get(duid[:4], 0)
    return duid[-6:].hex(":") if size and len(duid) == size else ""


def _behind(message: dhcp6.Relay) -> str:
    """Who a relay speaks for: option 79 (RFC 6939), else the MAC that a link-local address is made of (RFC 4291)."""
    told = next((value for code, value in message.options if code == 79), b"")
    if len(told) == 8 and told[:2] == b"\0\1":
        return told[2:].hex(":")
    if message.peer[:8] == b"\xfe\x80" + bytes(6) and message.peer[11:13] == b"\xff\xfe":
        return (bytes((message.peer[8] ^ 2,)) + message.peer[9:11] + message.peer[13:]).hex(":")
    return ""


def _given6(message: dhcp6.Message) -> list[str]:
    """Addresses of a REPLY that may be used."""
    found: list[str] = []
    for value in message.every(dhcp6.IA_NA)[:4]:
        with contextlib.suppress(WireError):
            found += [ip6.text(one.address) for one in dhcp6.parse_association(value).addresses[:4] if one.valid]
    return found
