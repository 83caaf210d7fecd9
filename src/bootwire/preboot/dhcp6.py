"""DHCPv6 for our own stack: an address for a `Host`, checked and kept renewed, or only what goes with one.

No I/O of its own: it rides on the host's UDP port 546, in real or in virtual time. Routers, and what is on the link,
come from router advertisements (`Host.start_ipv6`), never from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from bootwire.engine import Ns
from bootwire.engine import dhcp6_client as dhcp
from bootwire.engine.ip import Host, UdpPort
from bootwire.wire import dhcp6, ip6
from bootwire.wire.reader import WireError


@dataclass(frozen=True, slots=True)
class Network6:
    """What a DHCPv6 server told us, read. Addresses as RFC 5952 writes them; names and URLs are the peer's text.

    address  "" when only the rest was asked for; valid: its lifetime in seconds
    boot_url, boot_parameters   RFC 5970; "" and () if not said
    """

    address: str
    valid: int
    dns: tuple[str, ...]
    domains: tuple[str, ...]
    boot_url: str
    boot_parameters: tuple[str, ...]
    reply: dhcp6.Message


class Dhcp6:
    """Configures `host`. Call `turn` after every frame and when `deadline` is due; `network` is there when done.

    duid: who we are; DUID-LL of the host's MAC if not given (UEFI uses DUID-UUID).
    """

    def __init__(self, host: Host, wants: dhcp.Wants | None = None, duid: bytes = b"") -> None:
        self.network: Network6 | None = None
        self.failed = False
        self.because = ""
        self._host = host
        iaid = int.from_bytes(host.mac[2:], "big")
        self._client = dhcp.Client(wants or dhcp.Wants(), duid or dhcp6.duid_from_mac(host.mac), iaid, host.draw)
        self._port: UdpPort | None = None
        self._probing: dhcp.Leased | None = None
        self._address = b""

    def start(self, now: Ns) -> None:
        """Begin, whatever was before. ValueError if port 546 is taken."""
        if self._port is None:
            self._port = self._host.bind_udp(dhcp6.CLIENT_PORT)
        self._forget()
        self.failed = False
        self._perform(self._client.start(now), now)

    def stop(self, now: Ns) -> None:
        """Give the lease back, without waiting for the server to say so."""
        self._perform(self._client.release(now), now)
        self._forget()
        if self._port is not None:
            self._host.close_udp(self._port)
            self._port = None

    @property
    def deadline(self) -> Ns | None:
        """When `turn` is due, if no frame comes first."""
        return None if self._port is None else self._client.deadline

    def turn(self, now: Ns) -> None:
        """Take what has come, and do what is due."""
        if self._port is None:
            return
        while (found := self._port.take()) is not None:
            try:
                message = dhcp6.parse(found[0])
            except WireError:
                message = None
            if isinstance(message, dhcp6.Message):
                self._perform(self._client.receive(message, now), now)
            else:
                self._host.dropped["unreadable DHCPv6 message"] += 1
        due = self._client.deadline
        if due is not None and due <= now:
            self._perform(self._client.tick(now), now)
        if self._probing is not None:
            self._check_probe(self._probing, now)

    def _perform(self, effects: list[dhcp.Effect], now: Ns) -> None:
        for effect in effects:
            match effect:
                case dhcp.Send(message):
                    # without a link-local address yet this fails, and is said again a second later
                    self._host.send_udp(dhcp6.emit(message), dhcp6.SERVERS, dhcp6.SERVER_PORT, dhcp6.CLIENT_PORT, now)
                case dhcp.Leased():
                    self._leased(effect, now)
                case dhcp.Lost(because):
                    self.because = because
                    self._forget()
                case dhcp.Failed(because):
                    self.because, self.failed = because, True

    def _leased(self, lease: dhcp.Leased, now: Ns) -> None:
        if lease.association is None:
            self.network = read(lease)
            return
        address = lease.association.addresses[0].address
        if address == self._address:
            self.network = read(lease)
            return
        self._forget()
        self._address, self._probing = address, lease
        self._host.add_address(address, 128, now, probe=True)

    def _check_probe(self, lease: dhcp.Leased, now: Ns) -> None:
        mine = self._host.owns(self._address)
        if mine is None:
            return
        self._probing = None
        if mine:
            self.network = read(lease)
        else:
            self._address = b""
            self._perform(self._client.decline(now), now)

    def _forget(self) -> None:
        if self._address:
            self._host.remove_address(self._address)
        self._address, self._probing, self.network = b"", None, None


def read(lease: dhcp.Leased) -> Network6:
    """What the reply says. Nothing raises: what cannot be read is as if it had not been said."""
    reply, association = lease.reply, lease.association
    try:
        domains = dhcp6.domains(reply.option(dhcp6.DOMAINS) or b"")
    except WireError:
        domains = ()
    try:
        parameters = dhcp6.parameters(reply.option(dhcp6.BOOT_PARAMETERS) or b"")
    except WireError:
        parameters = ()
    first = association.addresses[0] if association is not None else None
    return Network6(
        ip6.text(first.address) if first else "",
        first.valid if first else 0,
        tuple(ip6.text(a) for a in dhcp6.addresses(reply.option(dhcp6.DNS) or b"")[:8]),
        tuple(_text(name) for name in domains),
        _text(reply.option(dhcp6.BOOT_URL) or b""),
        tuple(_text(p) for p in parameters),
        reply,
    )


def _text(octets: bytes) -> str:
    return octets.decode("ascii", "backslashreplace")
