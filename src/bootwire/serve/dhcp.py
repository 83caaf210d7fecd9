"""Sockets for DHCP (port 67), the PXE boot server (4011), and an ear for other servers' answers (port 68).

Port 67 is taken once for each interface, bound to the device, so that the interface a packet came by is known and
other interfaces' servers are left alone. Where another program owns the port there, a capture socket (AF_PACKET)
reads beside it and replies leave as frames: the other program keeps every packet it had. SO_REUSEADDR is never set,
since the newest socket would take the older one's unicast renewals away.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bootwire.boot_server import Ask, BootServer, Datagram, Effect, Send
from bootwire.facts import Fact, Listening, Warned
from bootwire.policy.target import Traits
from bootwire.serve.brake import Brake, ControlClock
from bootwire.serve.capture_socket import CaptureSocket, Heard, set_receive_buffer
from bootwire.serve.interfaces import Interface
from bootwire.serve.ports import owners, taken

DHCP_PORT, CLIENT_PORT, PXE_PORT = 67, 68, 4011  # RFC 2131 section 4.1; PXE 2.1 section 2.2.3
Service = Literal["dhcp", "pxe"]

LARGEST = 16 * 1024  # octets of a datagram looked at; a DHCP message is at most 1,500 here, jumbo frames allow more
TICK_SECONDS = 1.0  # how often held-back summaries of refusals are looked for
BURST = 64  # datagrams read before other sockets get their turn
RECEIVE_BUFFER = 4 << 20  # octets; a thousand machines ask within a second
IP_PKTINFO = 8  # linux/in.h
FACTS = 500  # facts a second of what others sent, for longer than STORM lasts
STORM = 10_000  # such facts at once: a thousand machines, each with all that its boot sends
ASKING = 4_096  # datagrams that wait for a decision at a time; further ones are dropped, and their machines ask again
ASKING_EACH = 8  # of one machine: the copies that its relays made, and its own repeats
BROADCAST = "ff:ff:ff:ff:ff:ff"


class PortInUse(Exception):
    """A port we cannot do without belongs to another program. what: who; fix: what to do next."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class _Outlet(Protocol):
    """Where replies leave. answering: the frame a reply answers, where it came by a capture socket."""

    def send(self, effect: Send, answering: Heard | None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Held:
    datagram: Datagram
    answering: Heard | None


class DhcpEdge:
    """Carries datagrams between the network and a BootServer, in an asyncio loop.

    multicast: the group that boot server discovery by multicast asks, "" for none
    ask: finds out what a machine shall boot, where the BootServer does not know; bounds its own time, raises nothing.
    `open` raises PortInUse (4011 taken) or PermissionError; after that nothing a peer or the kernel does raises.
    """

    def __init__(
        self,
        server: BootServer,
        interfaces: Sequence[Interface],
        record: Callable[[Fact], None],
        ask: Callable[[Traits], Awaitable[None]] | None = None,
        multicast: str = "",
    ) -> None:
        self._multicast = multicast
        self._server = server
        self._ask = ask
        self._asking: dict[str, list[_Held]] = {}  # by machine: what waits for a decision
        self._tasks: set[asyncio.Task[None]] = set()
        self._interfaces = interfaces
        self._record = record
        self._outlets: dict[tuple[str, str], _Outlet] = {}  # (service, interface) -> where replies leave
        self._sockets: list[socket.socket | CaptureSocket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._brake: Brake | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._trouble: dict[str, int] = {}  # what went wrong with sends -> how often

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._brake = Brake(ControlClock(loop), self._record, "dhcp", FACTS, STORM)
        for interface in self._interfaces:
            self._open_dhcp(interface)
            self._open_pxe(interface)
            if self._multicast:
                self._open_multicast(interface, self._multicast)
            self._open_ear(interface)
        self._ticking = loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._tell(self._server.tick(time.monotonic_ns()))
        if self._loop is not None:
            self._ticking = self._loop.call_later(TICK_SECONDS, self._tick)

    def close(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        for task in self._tasks:
            task.cancel()
        for opened in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(opened.fileno())
            opened.close()
        self._sockets.clear()

    # --- opening ------------------------------------------------------------------------------------------------

    def _open_dhcp(self, interface: Interface) -> None:
        sock = _udp_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode() + b"\0")
        try:
            sock.bind(("0.0.0.0", DHCP_PORT))
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            self._open_dhcp_capture(interface)
            return
        self._outlets["dhcp", interface.name] = _SocketOutlet(sock)
        self._read(sock, lambda data, source, ours: self._receive("dhcp", interface, data, source, ours))
        self._record(Listening("", "dhcp", interface.address, DHCP_PORT, interface.name))

    def _open_dhcp_capture(self, interface: Interface) -> None:
        capture = CaptureSocket(interface, DHCP_PORT)
        self._outlets["dhcp", interface.name] = _CaptureOutlet(capture)
        self._watch_capture(
            capture,
            lambda heard: self._receive(
                "dhcp", interface, heard.payload, (heard.source, heard.source_port), heard.destination, heard
            ),
        )
        holders = " and ".join(dict.fromkeys(str(owner) for owner in owners("udp", DHCP_PORT))) or "another program"
        how = f"capture socket beside {holders}"
        self._record(Listening("", "dhcp", interface.address, DHCP_PORT, interface.name, how))

    def _open_pxe(self, interface: Interface) -> None:
        sock = _udp_socket()
        try:
            sock.bind((interface.address, PXE_PORT))
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            what, fix = taken("udp", PXE_PORT)
            raise PortInUse(f"{what}: another network boot server runs here", fix) from None
        self._outlets["pxe", interface.name] = _SocketOutlet(sock)
        self._read(sock, lambda data, source, ours: self._receive("pxe", interface, data, source, ours))
        self._record(Listening("", "pxe", interface.address, PXE_PORT, interface.name))

    def _open_multicast(self, interface: Interface, group: str) -> None:
        """Hear machines that look for their boot server by multicast; they are answered from port 4011 as others."""
        sock = _udp_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode() + b"\0")
        try:
            sock.bind((group, PXE_PORT))
            member = socket.inet_aton(group) + socket.inet_aton(interface.address)  # struct ip_mreq, ip(7)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        except OSError as error:
            sock.close()
            what = f"boot server discovery by multicast is not heard on {interface.name}: {error.strerror}"
            self._record(Warned("", what, "use another --discovery"))
            return
        self._read(sock, lambda data, source, ours: self._receive("pxe", interface, data, source, ours))
        self._record(Listening("", "pxe", group, PXE_PORT, interface.name))

    def _open_ear(self, interface: Interface) -> None:
        """Overhear answers of other servers: who else offers boot files, and which address a machine was given."""
        try:
            ear = CaptureSocket(interface, CLIENT_PORT, outgoing=True)
        except OSError as error:
            self._record(
                Warned("", f"cannot overhear other DHCP servers on {interface.name}: {error.strerror}", "run as root")
            )
            return
        self._watch_capture(ear, lambda heard: self._overhear(interface, heard))

    # --- in -----------------------------------------------------------------------------------------------------

    def _read(self, sock: socket.socket, take: Callable[[bytes, tuple[str, int], str], None]) -> None:
        assert self._loop is not None
        self._sockets.append(sock)

        def ready() -> None:
            for _ in range(BURST):
                try:
                    data, ancillary, _flags, source = sock.recvmsg(LARGEST, 64)
                except BlockingIOError:
                    return
                except OSError as error:  # an ICMP error of an earlier send, or the interface went down
                    self._count(f"receiving: {error.strerror}")
                    return
                take(data, source, _destination(ancillary))

        self._loop.add_reader(sock.fileno(), ready)

    def _watch_capture(self, capture: CaptureSocket, take: Callable[[Heard], None]) -> None:
        assert self._loop is not None
        self._sockets.append(capture)

        def ready() -> None:
            for _ in range(BURST):
                try:
                    heard = capture.receive()
                except OSError as error:
                    self._count(f"listening: {error.strerror}")
                    return
                if heard is None:
                    return
                take(heard)

        self._loop.add_reader(capture.fileno(), ready)

    def _receive(
        self,
        service: Service,
        interface: Interface,
        data: bytes,
        source: tuple[str, int],
        destination: str,
        answering: Heard | None = None,
    ) -> None:
        # A packet to one of our addresses is answered from that one, a broadcast from the one that faces the sender.
        ours = (
            destination if any(destination == a.address for a in interface.addresses) else interface.facing(source[0])
        )
        datagram = Datagram(data, source, service, interface.name, ours)
        self._perform(self._server.receive(datagram, time.monotonic_ns()), datagram, answering)

    def _perform(self, effects: Sequence[Effect], datagram: Datagram, answering: Heard | None) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(datagram.service, effect, answering)
            elif isinstance(effect, Ask):
                self._hold(effect.traits, datagram, answering)
            else:
                self._tell([effect])

    def _hold(self, traits: Traits, datagram: Datagram, answering: Heard | None) -> None:
        """Keep a datagram until it is known what its machine shall boot; others are answered meanwhile."""
        if self._ask is None or self._loop is None:
            return
        held = self._asking.get(traits.machine)
        if held is not None:
            held[:] = [*held[1 - ASKING_EACH :], _Held(datagram, answering)]
        elif len(self._asking) >= ASKING:
            self._count(f"{ASKING} machines wait for a decision already")
        else:
            self._asking[traits.machine] = [_Held(datagram, answering)]
            task = self._loop.create_task(self._find_out(traits))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _find_out(self, traits: Traits) -> None:
        assert self._ask is not None
        try:
            await self._ask(traits)
        finally:
            held = self._asking.pop(traits.machine)
        for one in held:
            self._perform(self._server.resume(one.datagram, time.monotonic_ns()), one.datagram, one.answering)

    def _overhear(self, interface: Interface, heard: Heard) -> None:
        source = (heard.source, heard.source_port)
        datagram = Datagram(heard.payload, source, "dhcp", interface.name, interface.facing(heard.source))
        self._tell(self._server.observe(datagram, time.monotonic_ns()))

    def _tell(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send | Ask):
                continue
            if self._brake is None or not effect.machine:
                self._record(effect)
            else:
                self._brake.tell(effect, time.monotonic_ns())

    # --- out ----------------------------------------------------------------------------------------------------

    def _send(self, service: str, effect: Send, answering: Heard | None) -> None:
        outlet = self._outlets.get((service, effect.interface))
        if outlet is None:
            return
        try:
            outlet.send(effect, answering)
        except OSError as error:  # ENETUNREACH, EPERM, ENOBUFS, EMSGSIZE …: this one is lost, the next may pass
            self._count(f"sending to {effect.to[0]}: {error.strerror}")

    def _count(self, what: str) -> None:
        """Tell of a kind of trouble at the 1st, 10th, 100th … time only."""
        if len(self._trouble) > 256:
            self._trouble.clear()
        count = self._trouble[what] = self._trouble.get(what, 0) + 1
        if str(count).rstrip("0") == "1":
            self._record(Warned("", f"DHCP trouble ({count}): {what}", "check the interface, its routes and firewall"))


class _SocketOutlet:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, effect: Send, answering: Heard | None) -> None:
        # struct in_pktinfo: interface index 0 (routing decides, or the bound device), our address, ignored
        info = struct.pack("=I4s4s", 0, socket.inet_aton(effect.ours), b"\0" * 4)
        self._sock.sendmsg([effect.data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, effect.to)


class _CaptureOutlet:
    def __init__(self, capture: CaptureSocket) -> None:
        self._capture = capture

    def send(self, effect: Send, answering: Heard | None) -> None:
        address, port = effect.to
        # A relay is reached through the station that its packet came from, be it the relay or our router.
        station = BROADCAST if address == "255.255.255.255" or answering is None else answering.ethernet_source
        self._capture.send(effect.data, effect.ours, effect.from_port, address, port, station)


def _udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    set_receive_buffer(sock, RECEIVE_BUFFER)
    return sock


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    """The local address a datagram came to (in_pktinfo.ipi_spec_dst), or ""."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= 12:
            return socket.inet_ntoa(data[4:8])
    return ""
