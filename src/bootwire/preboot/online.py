"""A network card of our own, configured and with names resolved: what a client needs before it can fetch anything."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from bootwire.engine import Ns, S
from bootwire.engine.dns import WAITS, Ask, Found, Lookup, NotFound
from bootwire.preboot.dhcp import Network
from bootwire.preboot.nic import Nic, PacketNic, PcapTee, TapNic, random_mac
from bootwire.preboot.personas.steps import Outcome
from bootwire.preboot.power_on import Player
from bootwire.preboot.sockets import Socket, create_connection
from bootwire.preboot.stack import Stack, packed
from bootwire.preboot.transport import StackTransport
from bootwire.wire import dns, ethernet
from bootwire.wire.reader import WireError

_PORT_OPEN = 5.0  # seconds to connect to a name server over TCP


@dataclass(frozen=True, slots=True)
class Card:
    """How to get on a network.

    nic      "eth0": a packet socket beside the machine's own stack on that interface; "tap:bw0": a new TAP device
    mac      ours, "" for a random one
    address  "10.0.0.2/24" or "2001:db8::2/64", "" asks DHCP
    gateway  for a fixed address, "" for none
    dns      name servers, besides those that DHCP tells
    pcap     file that records all that passes, "" for none
    vlan     the 802.1Q VLAN to be on, 1..4094, 0 for frames without a tag
    bare     no address at all: a firmware persona will see to that
    """

    nic: str
    mac: str = ""
    address: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    pcap: str = ""
    vlan: int = 0
    bare: bool = False


def wrong(card: Card) -> str:
    """What is wrong with how a card is described, and what to do, named as the command's options; "" if nothing is."""
    there = [name for _, name in socket.if_nameindex()]
    if not card.nic.startswith("tap:") and card.nic not in there:
        return f"no interface named {card.nic}; there are: {', '.join(there)}\n  try  --nic with one of them"
    if card.mac:
        try:
            ethernet.mac_octets(card.mac)
        except WireError:
            return f"--mac {card.mac} is no MAC address\n  try  --mac 52:54:00:12:34:56"
    plain, _, bits = card.address.partition("/")
    given = {"--address": (plain,), "--gateway": (card.gateway,), "--dns": card.dns}
    for option, address in ((option, one) for option, all_of in given.items() for one in all_of if one):
        try:
            packed(address)
        except ValueError:
            return f"{option} {address} is no address"
    if card.address and not (bits.isdecimal() and int(bits) <= (128 if ":" in plain else 32)):
        return f"--address {card.address} needs the length of its network's prefix\n  try  --address {plain}/24"
    if card.gateway and not card.address:
        return "--gateway goes with a fixed address; DHCP tells its own\n  try  --address ADDRESS/BITS"
    return ""


class Online:
    """A stack on a card, from `with` to its end. OSError says why it cannot be; ValueError what is no address.

    network  what DHCP told, None with a fixed address
    """

    def __init__(self, card: Card, *, timeout: float = 20.0, threaded: bool = False) -> None:
        """timeout: seconds for DHCP. threaded: the stack lives while nobody waits for it (see `Stack`)."""
        self._card, self._timeout, self._threaded = card, timeout, threaded
        self._file: BinaryIO | None = None
        self.network: Network | None = None
        self.servers: tuple[str, ...] = card.dns
        self.search: tuple[str, ...] = ()
        self.stack: Stack

    def __enter__(self) -> Online:
        card = self._card
        nic = inner = _nic(card)
        with contextlib.ExitStack() as undo:
            if card.pcap:
                self._file = undo.enter_context(open(card.pcap, "wb"))
                nic = PcapTee(inner, self._file, as_wired=False)
            self.stack = Stack(nic, threaded=self._threaded, vlan=card.vlan or None)
            undo.callback(self.stack.close)
            self.stack.start()
            if isinstance(inner, TapNic):
                inner.carrier()
            self._configure(card)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        if self._file is not None:
            self._file.close()

    def transport(self) -> StackTransport:
        """For `fetch`."""
        return StackTransport(self.stack, lambda name: list(self.resolve(name).addresses))

    def resolve(self, name: str, kinds: Sequence[int] = ()) -> Found:
        """The addresses of `name`. kinds: dns.A, dns.AAAA; those that we have addresses of by default.

        OSError with the reason where there are none.
        """
        if not kinds:
            sizes = {len(address) for address, _ in self.stack.host.addresses if address[:2] != b"\xfe\x80"}
            kinds = [kind for kind, size in ((dns.AAAA, 16), (dns.A, 4)) if size in sizes] or [dns.A]
        return look_up(self.stack, name, self.servers, self.search, kinds)

    def obtain(self) -> Network:
        """Ask DHCP for an address (again), and take what it tells. OSError with the reason."""
        self.network = network = self.stack.obtain(self._timeout)
        self.servers = self._card.dns + network.dns
        self.search = (network.domain,) if network.domain else ()
        return network

    def power_on(self, firmware: str, say: Callable[[str], object]) -> tuple[Outcome, dict[str, bytes]]:
        """Be a machine with this firmware (of `power_on.FIRMWARE`), from power-on to its end: how that was, and every
        file that it fetched, by its SHA-256. What was configured before is given up."""
        self.stack.give_up()
        self.network, self.servers, self.search = None, self._card.dns, ()
        player = Player(self.stack, say)
        return player.run(firmware), player.files

    def _configure(self, card: Card) -> None:
        if card.bare:
            return
        if card.address:
            self.stack.add_address(card.address)
            if card.gateway:
                self.stack.add_route("::/0" if ":" in card.gateway else "0.0.0.0/0", card.gateway)
            return
        self.obtain()


class Unresolved(OSError):
    """A name without addresses. why: as `engine.dns.NotFound` has it."""

    def __init__(self, name: str, why: str, detail: str) -> None:
        super().__init__(errno.EHOSTUNREACH, f"{name}: {detail or why}")
        self.why = why


def look_up(
    stack: Stack, name: str, servers: Sequence[str], search: Sequence[str] = (), kinds: Sequence[int] = (dns.A,),
    waits: Sequence[Ns] = WAITS,
) -> Found:  # fmt: skip
    """Ask `servers` for the addresses of `name`, over UDP, and over TCP where an answer is too long. waits: for the
    answer to each send over UDP. Raises Unresolved."""
    engine = Lookup(name, servers, lambda: secrets.randbits(16), kinds=kinds, search=search, waits=waits)
    waiting: dict[Socket, Ask] = {}
    asks = engine.start(time.monotonic_ns())
    try:
        while engine.outcome is None:
            if asks:
                asks = [more for ask in asks for more in _ask(stack, engine, ask, waiting)]
                continue
            due = engine.deadline
            patience = 0.0 if due is None else max(0.0, (due - time.monotonic_ns()) / S)
            stack.wait(lambda: any(sock.readable for sock in waiting), patience)
            for sock in [sock for sock in waiting if sock.readable]:
                asks += _hear(engine, sock, waiting)
            asks += engine.tick(time.monotonic_ns())
    finally:
        for sock in waiting:
            sock.close()
    match engine.outcome:
        case Found() as found:
            return found
        case NotFound(why, detail):
            raise Unresolved(name, why, detail)
        case _:
            raise Unresolved(name, "no answer", "")


def _hear(engine: Lookup, sock: Socket, waiting: dict[Socket, Ask]) -> list[Ask]:
    """Take an answer, or the news that nobody listens there."""
    server = waiting[sock].server
    try:
        return engine.receive(sock.recv(65_535), server, time.monotonic_ns())
    except BlockingIOError:  # a stranger's datagram
        return []
    except OSError:
        del waiting[sock]
        sock.close()
        return engine.unreachable(server, time.monotonic_ns())


def _ask(stack: Stack, engine: Lookup, ask: Ask, waiting: dict[Socket, Ask]) -> list[Ask]:
    """Put one question on its way; over TCP also wait for the answer. Returns what is to be asked next."""
    try:
        if not ask.tcp:
            sock = Socket(stack, socket.SOCK_DGRAM)
            sock.settimeout(0)
            waiting[sock] = ask
            sock.connect((ask.server, dns.PORT))
            sock.send(ask.data)
            return []
        with create_connection(stack, (ask.server, dns.PORT), _PORT_OPEN) as stream:
            stream.sendall(dns.frame(ask.data))
            got = b""
            while (whole := dns.unframe(got)) is None:
                piece = stream.recv(65_535)
                if not piece:
                    raise ConnectionResetError(errno.ECONNRESET, "the name server hung up")
                got += piece
        return engine.receive(whole[0], ask.server, time.monotonic_ns(), tcp=True)
    except (OSError, WireError):
        return engine.unreachable(ask.server, time.monotonic_ns())


def _nic(card: Card) -> Nic:
    mac = ethernet.mac_octets(card.mac) if card.mac else random_mac()
    if card.nic.startswith("tap:"):
        return TapNic(card.nic[4:], mac)
    for text in (card.address.partition("/")[0], card.gateway):
        if text:
            packed(text)  # what is no address is said before anything is opened
    return PacketNic(card.nic, mac, tagged=card.vlan > 0)
