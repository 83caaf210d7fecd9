"""Captures written frame by frame with the wire code: what a machine and its servers say to each other."""

from __future__ import annotations

from dataclasses import replace

from bootwire.observe import explain
from bootwire.observe.explain import signatures
from bootwire.wire import arp, checksum, dhcp4, dhcp6, dns, ethernet, icmp, ip, ip6, pcap, tcp, tftp
from bootwire.wire.dhcp4 import Message
from bootwire.wire.ip import Ipv4, Udp
from dhcp_samples import vector

BEGAN = 1_700_000_000 * 10**9
SERVER, PROXY, OWN = "192.0.2.1", "192.0.2.10", "192.0.2.57"
EVERYONE, NOBODY = "255.255.255.255", "0.0.0.0"
MASK, HERE = (1, b"\xff\xff\xff\0"), (54, bytes((192, 0, 2, 1)))
THERE, PXE = (54, bytes((192, 0, 2, 10))), (60, b"PXEClient")
UEFI, BIOS, IPXE, HTTP = "edk2-x64-discover", "intel-bios-discover", "ipxe-efi-x64-discover", "edk2-http-x64-discover"
PE = (b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0").ljust(512, b"\x90")
SERVER6, OWN6 = "2001:db8::1", "2001:db8::57"
DUID = b"\0\4" + bytes(range(16))
SERVER_DUID = (dhcp6.SERVER_ID, dhcp6.duid_from_mac(b"\2\0\0\0\0\6"))
ELAPSED6 = (dhcp6.ELAPSED, b"\0\0")
NO_ADDRESS6 = (dhcp6.IA_NA, dhcp6.emit_association(dhcp6.Association(9, 0, 0)))
ADDRESS6 = (
    dhcp6.IA_NA,
    dhcp6.emit_association(dhcp6.Association(9, 60, 105, (dhcp6.Address(ip6.octets(OWN6), 120, 240),))),
)
ASKED6 = (
    (dhcp6.REQUEST_LIST, b"\0\x3b\0\x3c\0\x17\0\x10"), (dhcp6.NIC_INTERFACE, b"\1\3\x10"),
    (dhcp6.ARCHITECTURE, b"\0\7"), (dhcp6.VENDOR_CLASS, b"\0\0\1\x57\0\x20PXEClient:Arch:00007:UNDI:003016"),
)  # fmt: skip
FILE6 = (dhcp6.BOOT_URL, b"tftp://[2001:db8::1]/snponly.efi")
NO_ADDRESSES6 = (dhcp6.STATUS, b"\0\2no addresses available")


def pe(machine: int) -> bytes:
    """The first block of a file for a processor (PE/COFF machine type)."""
    return PE[:68] + machine.to_bytes(2, "little") + PE[70:]


def relinked(packet: pcap.Packet, link: int) -> pcap.Packet:
    """An Ethernet packet as another link layer has it; ARP is lost where there is none (tcpdump.org/linktypes)."""
    frame = ethernet.parse(packet.data)
    kind = frame.ethertype.to_bytes(2, "big")
    body = ip_only = frame.payload if frame.ethertype == ethernet.IPV4 else b""
    if link == pcap.LINUX_SLL:
        body = b"\0\0\0\1\0\6" + frame.source + b"\0\0" + kind + frame.payload
    elif link == pcap.LINUX_SLL2:
        body = kind + b"\0\0\0\0\0\2\0\1\0\6" + frame.source + b"\0\0" + frame.payload
    elif link in (pcap.NULL, pcap.LOOP):
        body = (2).to_bytes(4, "little" if link == pcap.NULL else "big") + ip_only
    return replace(packet, data=body, size=len(body), link=link)


class Capture:
    """A capture under way. Moments are seconds from its beginning."""

    def __init__(self, kind: str = UEFI) -> None:
        self.packets: list[pcap.Packet] = []
        self.asked = dhcp4.parse(vector(kind))
        self.now = 0.0
        self.mac = self.asked.chaddr[:6]

    # --- frames ---------------------------------------------------------------------------------------------------

    def frame(self, source: bytes, ethertype: int, payload: bytes, wait: float = 0.01) -> Capture:
        self.now += wait
        whole = ethernet.emit(ethernet.Frame(b"\xff" * 6, source, ethertype, payload))
        self.packets.append(pcap.Packet(BEGAN + round(self.now * 10**9), whole, len(whole)))
        return self

    def packet(self, source: str, to: str, protocol: int, payload: bytes, wait: float = 0.01, **more: int) -> Capture:
        four = Ipv4(ip.v4_octets(source), ip.v4_octets(to), protocol, payload, **more)
        return self.frame(self._mac(source), ethernet.IPV4, ip.emit_ipv4(four), wait)

    def udp(self, source: tuple[str, int], to: tuple[str, int], payload: bytes, wait: float = 0.01) -> Capture:
        sent = ip.emit_udp(Udp(source[1], to[1], payload), ip.v4_octets(source[0]), ip.v4_octets(to[0]))
        return self.packet(source[0], to[0], ip.UDP, sent, wait)

    def _mac(self, source: str) -> bytes:
        return self.mac if source in (NOBODY, OWN) else b"\2\0" + ip.v4_octets(source)

    # --- DHCP -----------------------------------------------------------------------------------------------------

    def discover(self, times: int = 1, wait: float = 4.0, giaddr: str = NOBODY, **more: object) -> Capture:
        for _ in range(times):
            message = replace(self.asked, giaddr=giaddr, secs=int(self.now), **more)  # type: ignore[arg-type]
            source = NOBODY if giaddr == NOBODY else giaddr
            self.udp((source, 68), (EVERYONE, 67), dhcp4.emit(message), wait)
        return self

    def reply(
        self, kind: int, *options: tuple[int, bytes], who: str = SERVER, to: tuple[str, int] = (EVERYONE, 68),
        port: int = 67, wait: float = 0.01, cut: int = 0, **more: object,
    ) -> Capture:  # fmt: skip
        message = replace(
            self.asked, op=2, options=((53, bytes((kind,))), *options), yiaddr=OWN, siaddr=NOBODY, file=b"", secs=0
        )
        message = replace(message, **more)  # type: ignore[arg-type]
        octets = dhcp4.emit(message)
        return self.udp((who, port), to, octets[: octets.rindex(b"\xff")] if cut else octets, wait)

    def offer(self, *options: tuple[int, bytes], **more: object) -> Capture:
        """An address, and nothing to boot."""
        return self.reply(dhcp4.OFFER, MASK, HERE, *options, **more)  # type: ignore[arg-type]

    def proxy(self, *options: tuple[int, bytes], file: bytes = b"snponly.efi", **more: object) -> Capture:
        """Something to boot, and no address."""
        given = {"yiaddr": NOBODY, "siaddr": PROXY, "who": PROXY, **more}
        return self.reply(dhcp4.OFFER, THERE, PXE, *options, file=file, **given)  # type: ignore[arg-type]

    def request(self, port: int = 67, to: str = EVERYONE, wait: float = 0.01) -> Capture:
        ciaddr = OWN if port != 67 else NOBODY
        options = tuple((c, b"\3" if c == 53 else v) for c, v in self.asked.options)
        more = () if port != 67 else (HERE, (50, ip.v4_octets(OWN)))
        message: Message = replace(self.asked, options=options + more, ciaddr=ciaddr)
        source = (OWN, 4011) if port != 67 else (NOBODY, 68)
        return self.udp(source, (to, port), dhcp4.emit(message), wait)

    def lease(self, *options: tuple[int, bytes], **more: object) -> Capture:
        """From DISCOVER to ACK, with a proxy's offer where `proxied`."""
        self.discover(wait=0.1).offer(*options, **more)
        return self.request().reply(dhcp4.ACK, MASK, HERE, *options)

    def booted(self) -> Capture:
        """The same, beside a proxy."""
        self.discover(wait=0.1).offer().proxy()
        return self.request().reply(dhcp4.ACK, MASK, HERE)

    # --- DHCPv6 ---------------------------------------------------------------------------------------------------

    def dhcp6(self, kind: int, *options: tuple[int, bytes], relay: bytes = b"", xid: int = 7) -> Capture:
        """A message of the machine (SOLICIT …) or of the DHCPv6 server; relay: the link's address, 16 octets."""
        of_server = kind in (dhcp6.ADVERTISE, dhcp6.REPLY)
        own, server = ip6.link_local(self.mac), ip6.octets(SERVER6)
        ends = (server, own) if of_server else (own, dhcp6.SERVERS)
        message: dhcp6.Message | dhcp6.Relay = dhcp6.Message(kind, xid, ((dhcp6.CLIENT_ID, DUID), *options))
        if relay:
            envelope = dhcp6.RELAY_REPLY if of_server else dhcp6.RELAY_FORWARD
            message = dhcp6.Relay(envelope, 0, relay, own, ((dhcp6.RELAYED, dhcp6.emit(message)),))
            ends = (server, relay) if of_server else (relay, server)
        ports = (dhcp6.SERVER_PORT, dhcp6.CLIENT_PORT) if of_server else (dhcp6.CLIENT_PORT, dhcp6.SERVER_PORT)
        sent = ip.emit_udp(Udp(*ports, dhcp6.emit(message)), *ends)
        source = b"\2\0\0\0\0\6" if of_server or relay else self.mac
        return self.frame(source, ethernet.IPV6, ip6.emit(ip6.Ipv6(*ends, ip.UDP, sent)))

    def solicit(self, relay: bytes = b"") -> Capture:
        """PXE over IPv6, as EDK2 begins it."""
        return self.dhcp6(dhcp6.SOLICIT, ELAPSED6, NO_ADDRESS6, *ASKED6, relay=relay)

    # --- TFTP -----------------------------------------------------------------------------------------------------

    def rrq(self, name: bytes, port: int = 2000, wait: float = 0.01, server: str = PROXY, **asked: int) -> Capture:
        options = tuple((k.encode(), str(v).encode()) for k, v in asked.items())
        return self.udp((OWN, port), (server, 69), tftp.emit(tftp.ReadRequest(name, b"octet", options)), wait)

    def oack(self, port: int = 2000, **agreed: int) -> Capture:
        options = tuple((k.encode(), str(v).encode()) for k, v in agreed.items())
        return self.serve(tftp.OptionAck(options), port)

    def serve(self, message: tftp.Message, port: int = 2000, wait: float = 0.01) -> Capture:
        return self.udp((PROXY, 3000), (OWN, port), tftp.emit(message), wait)

    def say(self, message: tftp.Message, port: int = 2000, wait: float = 0.01) -> Capture:
        return self.udp((OWN, port), (PROXY, 3000), tftp.emit(message), wait)

    def file(self, name: bytes, port: int = 2000, first: bytes = b"x" * 512, wait: float = 0.1) -> Capture:
        """Two blocks, fetched whole."""
        self.rrq(name, port, wait).serve(tftp.Data(1, first), port).say(tftp.Ack(1), port)
        return self.serve(tftp.Data(2, b"end"), port).say(tftp.Ack(2), port)

    # --- others ---------------------------------------------------------------------------------------------------

    def tcp(
        self, of_client: bool, flags: int, seq: int, payload: bytes = b"", port: int = 80, wait: float = 0.01
    ) -> Capture:
        ends = (OWN, PROXY) if of_client else (PROXY, OWN)
        ports = (40000, port) if of_client else (port, 40000)
        segment = tcp.Segment(ports[0], ports[1], seq, 0, flags, 8192, payload)
        octets = [ip.v4_octets(end) for end in ends]
        size = tcp.HEADER + len(payload)
        return self.packet(*ends, ip.TCP, tcp.emit(segment, checksum.pseudo(*octets, ip.TCP, size)), wait)

    def http(self, request: bytes, response: bytes, agent: bytes = b"iPXE/2.0.0") -> Capture:
        """One exchange on a connection of its own."""
        head = request + b" HTTP/1.1\r\nHost: x\r\nUser-Agent: " + agent + b"\r\n\r\n"
        self.tcp(True, tcp.SYN, 100).tcp(False, tcp.SYN | tcp.ACK, 500).tcp(True, tcp.ACK | tcp.PSH, 101, head)
        return self.tcp(False, tcp.ACK | tcp.PSH, 501, response).tcp(True, tcp.ACK, 101 + len(head))

    def dns(self, code: int | None) -> Capture:
        asked = dns.Message(7, 0x0100, (dns.Question((b"boot", b"example"), 1),))
        self.udp((OWN, 5353), (SERVER, 53), dns.emit(asked))
        if code is not None:
            self.udp((SERVER, 53), (OWN, 5353), dns.emit(replace(asked, flags=0x8180 | code)))
        return self

    def icmp(self, code: int, port: int, value: int = 0) -> Capture:
        quote = Ipv4(ip.v4_octets(OWN), ip.v4_octets(PROXY), ip.UDP, bytes((8, 0)) + port.to_bytes(2, "big") + bytes(4))
        problem = icmp.Problem(3, code, value, ip.emit_ipv4(quote))
        return self.packet(PROXY, OWN, ip.ICMP, icmp.emit4(problem))

    def arp(self, who: bytes, sender: str, target: str, operation: int = arp.REQUEST) -> Capture:
        message = arp.Message(operation, who, ip.v4_octets(sender), bytes(6), ip.v4_octets(target))
        return self.frame(who, arp.ETHERTYPE, arp.emit(message))

    def quiet(self, seconds: float = 30.0) -> Capture:
        """Something else, later."""
        return self.frame(b"\2" * 6, 0x88CC, b"LLDP", seconds)

    # --- what is said of it ---------------------------------------------------------------------------------------

    def octets(self, link: int = pcap.ETHERNET, *, nanoseconds: bool = True) -> bytes:
        """As a pcap file; with another link than Ethernet, as `relinked` makes it."""
        packets = self.packets if link == pcap.ETHERNET else [relinked(one, link) for one in self.packets]
        records = (pcap.record(one.at, one.data, one.size, nanoseconds=nanoseconds) for one in packets)
        return pcap.file_header(link, nanoseconds=nanoseconds) + b"".join(records)

    def tagged(self, *tags: ethernet.Tag) -> Capture:
        """The same frames with VLAN tags."""
        made = Capture()
        for one in self.packets:
            data = ethernet.emit(replace(ethernet.parse(one.data), tags=tags))
            made.packets.append(replace(one, data=data, size=len(data)))
        return made

    def causes(self) -> dict[str, signatures.Finding]:
        found = signatures.findings(explain.gathered(pcap.read([self.octets()])))
        return {one.cause: one for one in found}
