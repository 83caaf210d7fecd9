"""Unconnected UDP sockets that know which of our addresses a datagram came to, and answer from there."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final

from bootwire.engine import Ns
from bootwire.serve.loop import IN, Loop

Key = tuple[str, int, str]
"""The client's address and port, and the address of ours that it asked."""

# Linux numbers that Python 3.11's socket module does not name: linux/in.h, asm-generic/socket.h.
IP_PKTINFO: Final = 8
IP_MTU_DISCOVER: Final = 10
IP_PMTUDISC_DONT: Final = 0
SO_RCVBUFFORCE: Final = 33
PKTINFO: Final = struct.Struct("=I4s4s")  # struct in_pktinfo: interface index, local address, header's destination

TURN: Final = 128  # datagrams taken before other sockets get their turn
DATAGRAM: Final = 2048  # octets looked at of one


class Door:
    """Hands each datagram to `handle(door, data, key, now)`, in the loop's thread.

    at         dotted address and port; 0 takes any
    interface  bind to this device, "" to none
    shared     connected sockets may bind to the same port. This is set after binding, so that no second server can
    buffer     octets of receive buffer to force (or to ask for, without CAP_NET_ADMIN); 0 leaves the default
    Raises OSError.
    """

    def __init__(
        self,
        loop: Loop,
        at: tuple[str, int],
        handle: Callable[[Door, bytes, Key, Ns], None],
        interface: str = "",
        *,
        shared: bool = False,
        buffer: int = 0,
    ) -> None:
        self.address, self.interface, self.errors = at[0], interface, 0
        self._loop, self._handle = loop, handle
        sock = self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if buffer:
                try:
                    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
                except PermissionError:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            if interface:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            sock.bind(at)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            sock.close()
            raise
        self.port: int = sock.getsockname()[1]
        loop.watch(sock.fileno(), IN, self._on_ready)

    def send(self, data: bytes, key: Key) -> None:
        """Answer the client `key` from the address it asked. What cannot be sent is counted in `errors`."""
        info = PKTINFO.pack(0, socket.inet_aton(key[2]), bytes(4))
        try:
            self._sock.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (key[0], key[1]))
        except OSError:
            self.errors += 1

    def close(self) -> None:
        """Safe to call twice."""
        if self._sock.fileno() >= 0:
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()

    def _on_ready(self, _events: int, now: Ns) -> None:
        for _ in range(TURN):
            try:
                data, ancillary, _flags, (address, port) = self._sock.recvmsg(DATAGRAM, 64)
            except BlockingIOError:
                return
            except OSError:
                self.errors += 1
                return
            ours = self.address
            for level, kind, octets in ancillary:
                if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(octets) == PKTINFO.size:
                    ours = socket.inet_ntoa(PKTINFO.unpack(octets)[1])
            self._handle(self, data, (address, port, ours), now)
