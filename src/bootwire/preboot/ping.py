"""Ping, for people: one line an answer, and what became of all of them."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from bootwire.preboot.online import Online
from bootwire.preboot.transport import KernelTransport
from bootwire.wire import icmp
from bootwire.wire.reader import WireError

_GAP: Final = 1.0  # seconds between questions
_PATIENCE: Final = 2.0  # seconds for an answer


class Asker(Protocol):
    """Who asks. Addresses are literals; OSError says why there is no answer, TimeoutError among them."""

    def resolve(self, host: str) -> str: ...

    def ask(self, address: str, sequence: int, size: int) -> float:
        """Seconds until an echo of `size` octets was back."""

    def rest(self, seconds: float) -> None:
        """Let time pass."""


class OurCard:
    """Ping by our own stack."""

    def __init__(self, online: Online) -> None:
        self._online = online
        self._identifier = secrets.randbits(16)

    def resolve(self, host: str) -> str:
        return self._online.transport().resolve(host)[0]

    def ask(self, address: str, sequence: int, size: int) -> float:
        return self._online.stack.ping(
            address, timeout=_PATIENCE, size=size, identifier=self._identifier, sequence=sequence
        )

    def rest(self, seconds: float) -> None:
        self._online.stack.wait(lambda: False, seconds)


class KernelCard:
    """Ping by the kernel: its ICMP datagram sockets where this user may have them (sysctl net.ipv4.ping_group_range),
    else raw ones, which need CAP_NET_RAW."""

    def resolve(self, host: str) -> str:
        return KernelTransport().resolve(host)[0]

    def ask(self, address: str, sequence: int, size: int) -> float:
        six = ":" in address
        identifier, data = secrets.randbits(16), secrets.token_bytes(size)
        # of IPv6 the kernel fills the checksum in, for it chooses the source address (RFC 3542 section 3.1)
        question = icmp.emit4(icmp.Echo(False, identifier, sequence, data))
        if six:
            question = bytes((icmp.ECHO_REQUEST6,)) + question[1:]
        with _icmp_socket(six) as sock:
            raw = sock.type == socket.SOCK_RAW
            sock.connect((address, 0))
            began = time.monotonic()
            sock.send(question)
            while (left := began + _PATIENCE - time.monotonic()) > 0:
                if not select.select([sock], [], [], left)[0]:
                    break
                with contextlib.suppress(WireError):
                    octets = sock.recv(65_536)
                    if raw and not six:
                        octets = octets[(octets[0] & 15) * 4 :]
                    answer = icmp.parse6(octets) if six else icmp.parse4(octets)
                    match answer:
                        # the kernel's datagram sockets have an identifier of their own
                        case icmp.Echo(True, found, number, back) if number == sequence and (
                            found == identifier or not raw
                        ):
                            if back != data:
                                raise OSError("the answer holds other octets than the question")
                            return time.monotonic() - began
                        case _:
                            pass
        raise TimeoutError("no answer")

    def rest(self, seconds: float) -> None:
        time.sleep(seconds)


def run(asker: Asker, host: str, count: int, size: int, say: Callable[[str], object]) -> int:
    """Exit status: 0 if at least one answer came."""
    address = asker.resolve(host)
    times: list[float] = []
    for sequence in range(1, count + 1):
        began = time.monotonic()
        try:
            seconds = asker.ask(address, sequence, size)
        except TimeoutError:
            say(f"{address}: no answer to {sequence}")
        except OSError as error:
            say(f"{address}: {error.strerror or error}")
        else:
            times.append(seconds)
            say(f"{address}: {size} octets back, {sequence} of {count}, {seconds * 1000:.3f} ms")
        if sequence < count:
            asker.rest(max(0.0, began + _GAP - time.monotonic()))
    if not times:
        say(f"{address}: none of {count} answered")
        return 1
    mean = sum(times) / len(times)
    say(
        f"{address}: {len(times)} of {count} answered, "
        f"{min(times) * 1000:.3f} ms at least, {mean * 1000:.3f} on average, {max(times) * 1000:.3f} at most"
    )
    return 0


def _icmp_socket(six: bool) -> socket.socket:
    family = socket.AF_INET6 if six else socket.AF_INET
    protocol = icmp.PROTOCOL6 if six else socket.IPPROTO_ICMP
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        pass
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol)
    except PermissionError:
        raise OSError("this user may not: it takes root, or sysctl net.ipv4.ping_group_range='0 2147483647'") from None
