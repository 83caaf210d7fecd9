"""DHCP for our own stack: obtains an address for a `Host`, makes sure that nobody else has it, keeps it renewed.

No I/O of its own: it rides on the host's UDP port 68, in real or in virtual time.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.engine import Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.engine.ip import Host, UdpPort
from bootwire.wire import dhcp4, ip
from bootwire.wire.dhcp4 import Options
from bootwire.wire.reader import WireError

PROXY_WAIT: Ns = 2 * S  # how long a ProxyDHCP offer is waited for (iPXE config/dhcp.h, DHCP_DISC_PROXY_TIMEOUT_SEC)
_INQUIRY = (1 * S, 2 * S, 3 * S, 4 * S)  # waits for a boot server: PXE 2.1 section 2.2.5 without its random part
_MAX_SIZE = 1472  # octets of IP datagram that we take, option 57; what iPXE says
_LEAST_MTU = 576  # RFC 791: every host takes that much; less is not believed
_ROUTES_MAX = 64
# What is asked for: IANA "BOOTP Vendor Extensions and DHCP Options"
_MTU, _DOMAIN, _NTP, _ROOT_PATH, _SEARCH, _CLASSLESS = 26, 15, 42, 17, 119, 121
_WANTED = bytes((
    dhcp4.SUBNET_MASK, _CLASSLESS, dhcp4.ROUTER, dhcp4.DNS, dhcp4.HOST_NAME, _DOMAIN, _ROOT_PATH, _MTU, _NTP,
    dhcp4.VENDOR_SPECIFIC, dhcp4.VENDOR_CLASS, dhcp4.TFTP_SERVER, dhcp4.BOOT_FILE, 72, _SEARCH,
))  # fmt: skip


class Stage(enum.Enum):
    """How far a configuration is."""

    IDLE = "not started"
    ASKING = "asking for an address"
    PROBING = "checking that nobody else has the address"
    BOOT_SERVER = "asking the boot server"
    DONE = "configured"
    FAILED = "no usable answer"


@dataclass(frozen=True, slots=True)
class Network:
    """What a DHCP server told us, read. Addresses are dotted.

    routes       (network, prefix length, gateway or "" for on the link); the default one among them
    boot_server  where the boot file is: of the ProxyDHCP or boot server's answer if one named a file
    boot_file    the peer's text, "" for none
    """

    address: str
    prefix: int
    server: str
    seconds: int
    routes: tuple[tuple[str, int, str], ...]
    dns: tuple[str, ...]
    ntp: tuple[str, ...]
    domain: str
    host_name: str
    root_path: str
    mtu: int
    boot_server: str
    boot_file: str
    lease: dhcp.Leased
    boot_answer: dhcp.Heard | None


class Dhcp:
    """Configures `host`. Call `turn` after every frame and when `deadline` is due; `network` is there in stage DONE.

    vendor_class  "" for an ordinary host; "PXEClient:Arch:00007:UNDI:003016" also hears ProxyDHCP servers, asks one
                  that named no file on port 4011, and sends the options that PXE wants with `machine_id`
    machine_id    option 97: 17 octets, a zero and the UUID
    """

    def __init__(self, host: Host, *, host_name: str = "", vendor_class: str = "", machine_id: bytes = b"") -> None:
        self.stage = Stage.IDLE
        self.network: Network | None = None
        self.because = ""  # what went wrong last
        self.heard = 0  # messages from servers
        self._host, self._host_name, self._vendor_class, self._machine_id = host, host_name, vendor_class, machine_id
        rules = dhcp.Rules(
            options=self._options, choose=self._choose, renews=True, flags=dhcp4.BROADCAST,
            discover=(1 * S, 2 * S, 4 * S, 8 * S), request=(1 * S, 2 * S, 4 * S),
        )  # fmt: skip
        self._client = dhcp.Client(rules, host.mac, host.draw)
        self._port: UdpPort | None = None
        self._lease: dhcp.Leased | None = None
        self._inquiry: dhcp.Inquiry | None = None
        self._routes: list[tuple[bytes, int]] = []

    def start(self, now: Ns) -> None:
        """Begin, whatever was before. ValueError if port 68 is taken."""
        if self._port is None:
            self._port = self._host.bind_udp(dhcp4.CLIENT_PORT)
        self._forget()
        self.stage = Stage.ASKING
        self._perform(self._client.start(now), now)

    def stop(self, now: Ns) -> None:
        """Give the lease back, and the address with it."""
        self._perform(self._client.release(), now)
        self._forget()
        if self._port is not None:
            self._host.close_udp(self._port)
            self._port = None
        self.stage = Stage.IDLE

    @property
    def deadline(self) -> Ns | None:
        """When `turn` is due, if no frame comes first."""
        times = [self._client.deadline, self._inquiry.deadline if self._inquiry else None]
        return min((t for t in times if t is not None), default=None)

    def turn(self, now: Ns) -> None:
        """Take what has come, and do what is due."""
        if self._port is None:
            return
        while (found := self._port.take()) is not None:
            data, source, port, _ = found
            try:
                message = dhcp4.parse(data)
            except WireError:
                self._host.dropped["unreadable DHCP message"] += 1
                continue
            self.heard += 1
            heard = dhcp.Heard(message, ip.v4_text(source), port)
            if self._inquiry is not None:
                self._inquired(self._inquiry.receive(heard, now), now)
            else:
                self._perform(self._client.receive(heard, now), now)
        due = self._client.deadline
        if due is not None and due <= now:
            self._perform(self._client.tick(now), now)
        if self._inquiry is not None:
            self._inquired(self._inquiry.tick(now), now)
        if self.stage is Stage.PROBING:
            self._check_probe(now)

    # --- the exchange ---------------------------------------------------------------------------------------------

    def _perform(self, effects: list[dhcp.Effect], now: Ns) -> None:
        for effect in effects:
            match effect:
                case dhcp.Send():
                    self._send(effect, now)
                case dhcp.Leased():
                    self._lease = effect
                    if effect.renewed and self.network is not None:
                        self._configure(self.network.boot_answer, now)
                    else:
                        self.stage = Stage.PROBING
                        self._host.add_address(dhcp4.packed(effect.address), _prefix(effect.mask), now, probe=True)
                case dhcp.Lost():
                    self.because = effect.because
                    self._forget()
                    self.stage = Stage.ASKING
                case dhcp.Failed():
                    self.stage = Stage.FAILED
                    self.because = _why(effect)

    def _send(self, send: dhcp.Send, now: Ns) -> None:
        source = dhcp4.packed(send.message.ciaddr)
        to = dhcp4.packed(send.to)
        if source == ip.ANY_V4:
            to = ip.BROADCAST_V4
        self._host.send_udp(dhcp4.emit(send.message), to, send.to_port, send.port, now, source)

    def _check_probe(self, now: Ns) -> None:
        """Is the address ours by now, or has somebody else answered for it (RFC 5227 section 2.1)?"""
        lease = self._lease
        assert lease is not None
        mine = self._host.owns(dhcp4.packed(lease.address))
        if mine is False:
            self.stage = Stage.ASKING
            self._perform(self._client.decline(now), now)
        elif mine:
            proxy = lease.choice.proxy
            if proxy is None or proxy.message.boot_file:
                self._configure(proxy, now)
            else:
                self._ask_boot_server(lease, proxy, now)

    def _ask_boot_server(self, lease: dhcp.Leased, proxy: dhcp.Heard, now: Ns) -> None:
        """A ProxyDHCP server that named no file names it on port 4011 (PXE 2.1 section 2.2.4)."""
        self.stage = Stage.BOOT_SERVER
        self._install(lease)
        xid = self._host.draw()
        ask = dhcp.Ask(dhcp4.REQUEST_LEASE, 0, 0)
        options = self._options(ask)
        self._inquiry = dhcp.Inquiry(
            lambda _: dhcp.request(self._host.mac, xid, options, ciaddr=lease.address),
            proxy.server,
            waits=_INQUIRY,
            accepts=lambda heard: heard.message.type in (dhcp4.ACK, dhcp4.OFFER) and bool(heard.message.boot_file),
        )
        self._inquired(self._inquiry.start(now), now)

    def _inquired(self, effects: list[dhcp.Send | dhcp.Answered | dhcp.Unanswered], now: Ns) -> None:
        for effect in effects:
            match effect:
                case dhcp.Send():
                    self._send(effect, now)
                case dhcp.Answered(ack):
                    self._inquiry = None
                    self._configure(ack, now)
                case dhcp.Unanswered():
                    self._inquiry = None
                    self.because = "the boot server on port 4011 does not answer"
                    self._configure(None, now)

    # --- the result -----------------------------------------------------------------------------------------------

    def _configure(self, boot: dhcp.Heard | None, now: Ns) -> None:
        assert self._lease is not None
        self.network = network = read(self._lease, boot)
        self._install(self._lease)
        if network.mtu:
            self._host.mtu = min(self._host.mtu, network.mtu)
        self.stage = Stage.DONE

    def _install(self, lease: dhcp.Leased) -> None:
        """Put the lease's routes into the host's table, in place of those of the last one."""
        for network, prefix in self._routes:
            self._host.routes.delete(network, prefix, metric=0)
        self._routes = []
        for text, prefix, gateway in read(lease, None).routes:
            network = dhcp4.packed(text)
            self._host.routes.add(network, prefix, dhcp4.packed(gateway) if gateway else None)
            self._routes.append((network, prefix))

    def _forget(self) -> None:
        for network, prefix in self._routes:
            self._host.routes.delete(network, prefix, metric=0)
        self._routes = []
        if self._lease is not None:
            self._host.remove_address(dhcp4.packed(self._lease.address))
        self._lease = self.network = self._inquiry = None

    # --- the rules ------------------------------------------------------------------------------------------------

    def _options(self, ask: dhcp.Ask) -> Options:
        options = [
            (dhcp4.MESSAGE_TYPE, bytes((ask.kind,))),
            (dhcp4.CLIENT_ID, b"\1" + self._host.mac),
            (dhcp4.REQUESTED_ADDRESS, dhcp4.packed(ask.address) if ask.address else b""),
            (dhcp4.SERVER_ID, dhcp4.packed(ask.server) if ask.server else b""),
        ]
        if ask.kind in (dhcp4.DISCOVER, dhcp4.REQUEST_LEASE):
            options += [
                (dhcp4.MAX_SIZE, _MAX_SIZE.to_bytes(2, "big")),
                (dhcp4.HOST_NAME, self._host_name.encode("ascii", "replace")),
                (dhcp4.REQUEST_LIST, _WANTED),
            ]
            if self._vendor_class:
                architecture = int(self._vendor_class[15:20]) if self._vendor_class[9:15] == ":Arch:" else 0
                options += [
                    (dhcp4.VENDOR_CLASS, self._vendor_class.encode()),
                    (dhcp4.ARCHITECTURE, architecture.to_bytes(2, "big")),
                    (dhcp4.NIC_INTERFACE, b"\1\3\x10"),  # UNDI 3.16: UEFI's (EDK2, PxeBcDhcp4.c)
                    (dhcp4.MACHINE_ID, self._machine_id),
                ]
        return dhcp4.arrange(options)

    def _choose(self, heard: Sequence[dhcp.Heard], elapsed: Ns) -> dhcp.Choice | None:
        """The first offer of an address; for PXE the first ProxyDHCP offer with it, if one comes within two seconds."""
        offer = next((h for h in heard if h.port == dhcp4.SERVER_PORT and _is_offer(h)), None)
        if offer is None:
            return None
        if not self._vendor_class or offer.message.boot_file:
            return dhcp.Choice(offer)
        proxy = next((h for h in heard if h.message.yiaddr == dhcp.ANY and _is_pxe(h)), None)
        if proxy is None and elapsed < PROXY_WAIT:
            return None
        return dhcp.Choice(offer, proxy)


def read(lease: dhcp.Leased, boot: dhcp.Heard | None) -> Network:
    """What the answers say. boot: who names the boot file, None for the DHCP server itself. Nothing raises."""
    message = lease.ack.message
    named = boot.message if boot is not None and boot.message.boot_file else message
    server = named.option(dhcp4.TFTP_SERVER)
    boot_server = named.siaddr if named.siaddr != dhcp.ANY else _text(server)
    mtu = message.option(_MTU) or b""
    size = int.from_bytes(mtu, "big") if len(mtu) == 2 else 0
    return Network(
        lease.address, _prefix(lease.mask), lease.server, lease.seconds, _routes(lease),
        _addresses(message.option(dhcp4.DNS)), _addresses(message.option(_NTP)), _text(message.option(_DOMAIN)),
        _text(message.option(dhcp4.HOST_NAME)), _text(message.option(_ROOT_PATH)),
        size if size >= _LEAST_MTU else 0,
        boot_server or (boot.server if boot is not None and named is boot.message else lease.server),
        _text(named.boot_file), lease, boot,
    )  # fmt: skip


def classless_routes(value: bytes) -> tuple[tuple[str, int, str], ...]:
    """Option 121 (RFC 3442): (network, prefix length, gateway or ""). What cannot be read ends it."""
    found: list[tuple[str, int, str]] = []
    at = 0
    while at < len(value) and len(found) < _ROUTES_MAX:
        prefix = value[at]
        size = (prefix + 7) // 8
        if prefix > 32 or at + 1 + size + 4 > len(value):
            break
        network = value[at + 1 : at + 1 + size].ljust(4, b"\0")
        gateway = value[at + 1 + size : at + 5 + size]
        found.append((ip.v4_text(network), prefix, ip.v4_text(gateway) if gateway != ip.ANY_V4 else ""))
        at += 5 + size
    return tuple(found)


def _routes(lease: dhcp.Leased) -> tuple[tuple[str, int, str], ...]:
    """Option 121 takes the place of option 3 (RFC 3442). A gateway beyond the link gets a route of its own."""
    value = lease.ack.message.option(_CLASSLESS)
    if value is not None:
        return classless_routes(value)
    if not lease.router:
        return ()
    routes = [(dhcp.ANY, 0, lease.router)]
    shift = 32 - _prefix(lease.mask)
    mine, there = (int.from_bytes(dhcp4.packed(a), "big") >> shift for a in (lease.address, lease.router))
    if mine != there:
        routes.insert(0, (lease.router, 32, ""))
    return tuple(routes)


def _prefix(mask: str) -> int:
    """The length of a mask; one with holes, or none, counts as /32: only the gateway is believed to be near."""
    number = int.from_bytes(dhcp4.packed(mask), "big") if mask else 0xFFFFFFFF
    length = number.bit_count()
    return length if number == (0xFFFFFFFF << 32 - length) & 0xFFFFFFFF and length else 32


def _addresses(value: bytes | None) -> tuple[str, ...]:
    value = value or b""
    return tuple(ip.v4_text(value[i : i + 4]) for i in range(0, len(value) // 4 * 4, 4))[:8]


def _text(value: bytes | None) -> str:
    """The peer's octets as text, cut at NUL; what is no ASCII is shown as escapes."""
    return (value or b"").split(b"\0", 1)[0].decode("ascii", "backslashreplace")


def _is_offer(heard: dhcp.Heard) -> bool:
    return heard.message.type in (dhcp4.OFFER, dhcp4.BOOTP) and heard.message.yiaddr != dhcp.ANY


def _is_pxe(heard: dhcp.Heard) -> bool:
    return (heard.message.option(dhcp4.VENDOR_CLASS) or b"").startswith(b"PXEClient")


def _why(failed: dhcp.Failed) -> str:
    if failed.stage == "discover":
        return "no DHCP server answered" if not failed.heard else "no DHCP server offered an address"
    return "the DHCP server offered an address and then said no more" if failed.stage == "request" else "refused"
