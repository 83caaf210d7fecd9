"""UDP beside another daemon: a packet socket that hears and speaks a port which somebody else has bound (packet(7)).

A DHCP server that owns port 67 without SO_REUSEADDR leaves no way to bind it a second time, but its frames are there
for all to read, and ours to write.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bootwire.serve import bpf
from bootwire.serve.interfaces import Interface
from bootwire.wire import ethernet, ip
from bootwire.wire.reader import WireError

BUFFER = 1 << 20
"""Octets of the kernel's queue: 1,000 machines that ask at once, at what the kernel counts for a small frame."""

_BURST = 64  # frames looked at in one `receive`, so that noise cannot hold its caller up

# linux/if_packet.h
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_CHECKSUM_NOT_READY, _VLAN_VALID, _TPID_VALID = 0x8, 0x10, 0x40  # TP_STATUS_*
_AUXDATA = struct.Struct("=IIIHHHH")  # status, length, kept, link offset, net offset, tci, tpid
_OTHER_HOST = 3
ETH_P_ALL = 3  # linux/if_ether.h
SO_TIMESTAMPNS = 35  # asm-generic/socket.h: struct timespec of the wall clock; its message has the same number

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@dataclass(frozen=True, slots=True)
class Heard:
    """One datagram as on the wire. Addresses dotted; ethernet_source with colons; outgoing: this host sent it."""

    payload: bytes
    source: str
    source_port: int
    destination: str
    destination_port: int
    ethernet_source: str
    outgoing: bool = False


class CaptureSocket:
    """Hears IPv4 UDP datagrams to `port` on one interface and sends datagrams as frames of their own.

    outgoing: hear what this host sends, too (a DHCP server on this very machine), except what this socket sends.
    Frames of a VLAN other than the interface's own, and frames for other stations unless `outgoing`, are left out, as
    an ordinary socket would. Raises OSError; PermissionError without CAP_NET_RAW.
    """

    def __init__(self, interface: Interface, port: int, *, outgoing: bool = False) -> None:
        self.interface = interface
        self._everything = outgoing
        self._lost = 0
        # A socket for one protocol hears only what comes in; only one for all of them hears what goes out.
        protocol = ETH_P_ALL if outgoing else ethernet.IPV4
        self._socket = packet_socket(interface, socket.SOCK_DGRAM, protocol, bpf.udp_to(port), BUFFER)

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Heard | None:
        """The next datagram, None when there is none now. Raises OSError when the interface is gone or down."""
        for _ in range(_BURST):
            try:
                packet, ancillary, _, (_, _, kind, _, link) = self._socket.recvmsg(1 << 16, 64)
            except BlockingIOError:
                return None
            tag, summed = auxiliary(ancillary)
            if (tag and tag.vlan) or (kind == _OTHER_HOST and not self._everything):
                continue
            outgoing = kind == socket.PACKET_OUTGOING
            with contextlib.suppress(WireError):
                outer = ip.parse_ipv4(packet)
                if not outer.is_fragment:
                    # The checksum of what a host sends is made by its network card, or never, between its namespaces.
                    sure = summed and not outgoing
                    inner = ip.parse_udp(outer.payload, outer.source, outer.destination, verify=sure)
                    source, destination = ip.v4_text(outer.source), ip.v4_text(outer.destination)
                    return Heard(
                        inner.payload, source, inner.source, destination, inner.destination, link.hex(":"), outgoing
                    )
        return None

    def send(
        self,
        payload: bytes,
        source: str,
        source_port: int,
        destination: str = "255.255.255.255",
        destination_port: int = 68,
        ethernet_destination: str = "ff:ff:ff:ff:ff:ff",
    ) -> None:
        """Send one datagram in a frame, past routing and ARP: a peer who was `Heard` is reached by its ethernet_source.

        Raises OSError, EMSGSIZE for what exceeds the MTU.
        """
        ours, theirs = ip.v4_octets(source), ip.v4_octets(destination)
        datagram = ip.emit_udp(ip.Udp(source_port, destination_port, payload), ours, theirs)
        packet = ip.emit_ipv4(ip.Ipv4(ours, theirs, ip.UDP, datagram, flags=ip.DONT_FRAGMENT))
        station = ethernet.mac_octets(ethernet_destination)
        self._socket.sendto(packet, (self.interface.name, ethernet.IPV4, 0, 0, station))

    @property
    def lost(self) -> int:
        """Datagrams that the kernel had to drop because `receive` was not called in time."""
        self._lost += kernel_drops(self._socket)
        return self._lost

    def close(self) -> None:
        self._socket.close()


def packet_socket(
    interface: Interface, kind: socket.SocketKind, protocol: int, program: bytes, buffer: int
) -> socket.socket:
    """A non-blocking packet socket on one interface: filter and buffer are there before its first frame.

    kind: SOCK_DGRAM from the network header on, SOCK_RAW with the link's. Raises OSError.
    """
    made = socket.socket(socket.AF_PACKET, kind | socket.SOCK_NONBLOCK, 0)  # protocol 0: nothing until bound
    try:
        bpf.attach(made, program)
        set_receive_buffer(made, buffer)
        made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        made.bind((interface.name, protocol))
    except OSError:
        made.close()
        raise
    return made


def frame_sockets(interfaces: Sequence[Interface], program: bytes, buffer: int) -> list[socket.socket]:
    """A packet socket on each interface for whole frames of all protocols, with their moments. Raises OSError."""
    made: list[socket.socket] = []
    try:
        for interface in interfaces:
            made.append(packet_socket(interface, socket.SOCK_RAW, ETH_P_ALL, program, buffer))
            made[-1].setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        for one in made:
            one.close()
        raise
    return made


def set_receive_buffer(of: socket.socket, octets: int) -> None:
    """As much of `octets` as this process may have: beyond net.core.rmem_max only with CAP_NET_ADMIN (socket(7))."""
    try:
        of.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, octets)
    except PermissionError:
        of.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)


def kernel_drops(of: socket.socket) -> int:
    """Frames that a packet socket lost since this was last asked."""
    return int.from_bytes(of.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)[4:], sys.byteorder)


def auxiliary(ancillary: list[tuple[int, int, bytes]]) -> tuple[ethernet.Tag | None, bool]:
    """(the VLAN tag that the kernel took out of the frame, whether its checksums are made) from recvmsg."""
    for level, kind, data in ancillary:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA and len(data) >= _AUXDATA.size:
            status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(data)
            tag = ethernet.Tag(tpid if status & _TPID_VALID else ethernet.VLAN, tci) if status & _VLAN_VALID else None
            return tag, not status & _CHECKSUM_NOT_READY
    return None, True
