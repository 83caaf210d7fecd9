"""A machine that behaves, beside whoever does not: one good request of each protocol, answered right and in time.

The server is OURS and publishes a file `probe` that holds PROBE.
"""

from __future__ import annotations

import itertools
import socket
import time
from dataclasses import replace

from bootwire.engine.tftp import Received, Wanted
from bootwire.serve.capture_socket import set_receive_buffer
from bootwire.wire import dhcp4
from dhcp_samples import vector
from tftp_rig import fetch

OURS = "10.9.0.1"
LATE = 3.0  # seconds after which a request counts as not answered
AGAIN = 1.0  # seconds after which it is sent again, as the TFTP client does: a busy machine's own queues may drop one
PROBE = bytes(range(256)) * 20


class GoodClient:
    """Make and use it in its namespace. Each method is one request, and gives the seconds until the right answer came.

    interface  its own; what it has for an address is 10.9.0.2
    """

    def __init__(self, interface: str) -> None:
        self._udp = {port: udp(interface, port) for port in (dhcp4.CLIENT_PORT, dhcp4.PXE_PORT)}
        self._xids = itertools.count(0x7E570001)

    def close(self) -> None:
        for sock in self._udp.values():
            sock.close()

    def all(self) -> dict[str, float]:
        return {"dhcp": self.dhcp(), "pxe": self.pxe(), "tftp": self.tftp(), "http": self.http()}

    def dhcp(self) -> float:
        return self._ask(
            "ipxe-efi-x64-discover", dhcp4.CLIENT_PORT, ("255.255.255.255", dhcp4.SERVER_PORT), dhcp4.OFFER
        )

    def pxe(self) -> float:
        return self._ask("ipxe-proxy-request", dhcp4.PXE_PORT, (OURS, dhcp4.PXE_PORT), dhcp4.ACK, ciaddr="10.9.0.2")

    def tftp(self) -> float:
        began = time.monotonic()
        got = fetch((OURS, 69), Wanted(b"probe", block_size=1468), LATE)
        assert (got.outcome, got.body) == (Received(len(PROBE)), PROBE)
        return time.monotonic() - began

    def http(self) -> float:
        began = time.monotonic()
        with socket.create_connection((OURS, 80), LATE) as sock:
            sock.sendall(b"GET /files/probe HTTP/1.1\r\nHost: 10.9.0.1\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == PROBE
        return time.monotonic() - began

    def _ask(self, name: str, port: int, to: tuple[str, int], answer: int, **fields: str) -> float:
        xid = next(self._xids)
        message = replace(dhcp4.parse(vector(name)), xid=xid, **fields)
        sock = self._udp[port]
        began = asked = time.monotonic()
        sock.sendto(dhcp4.emit(message), to)
        while True:
            try:
                sock.settimeout(max(0.001, asked + AGAIN - time.monotonic()))
                data, (server, _) = sock.recvfrom(2048)  # answers to others, and of others, come here, too
            except TimeoutError:
                asked = time.monotonic()
                assert asked - began < LATE, f"no answer from port {to[1]}"
                sock.sendto(dhcp4.emit(message), to)
                continue
            reply = dhcp4.parse(data)
            if (server, reply.xid, reply.type) == (OURS, xid, answer):
                return time.monotonic() - began


def udp(interface: str, port: int) -> socket.socket:
    """A socket for broadcasts on this interface."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    set_receive_buffer(sock, 8 << 20)  # answers to a flood are broadcast
    sock.bind(("", port))
    return sock
