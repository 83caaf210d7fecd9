"""This machine's network interfaces and IPv4 addresses (rtnetlink, RFC 3549), and those to serve on.

Spoken over a plain netlink socket: two small requests are not worth a third of a second of import.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bootwire.wire.ip import v4_octets, v4_text

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h, linux/if_addr.h, linux/if.h
_RTM_GETLINK, _RTM_GETADDR = 18, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST, NLM_F_DUMP
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU = 1, 3, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port


class InterfaceError(Exception):
    """There is nothing to serve on. what: one sentence; fix: what to do next, a command where there is one."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address with its prefix length, 0..32."""

    address: str
    prefix: int

    def holds(self, peer: str) -> bool:
        """Whether `peer` (dotted) is on the same subnet."""
        shift = 32 - self.prefix
        ours, theirs = int.from_bytes(v4_octets(self.address), "big"), int.from_bytes(v4_octets(peer), "big")
        return ours >> shift == theirs >> shift

    @property
    def broadcast(self) -> str:
        """The subnet's directed broadcast address."""
        number = int.from_bytes(v4_octets(self.address), "big") | (1 << 32 - self.prefix) - 1
        return v4_text(number.to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class Interface:
    """mac: lower case with colons, "" if the link has none (tun); mtu: octets; up: configured so; running: carrier."""

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    running: bool
    loopback: bool
    addresses: tuple[Address, ...]

    @property
    def address(self) -> str:
        """The first IPv4 address, "" if there is none."""
        return self.addresses[0].address if self.addresses else ""

    def facing(self, peer: str) -> str:
        """Our address on this interface that shares a subnet with `peer` (dotted), else the first one."""
        return next((a.address for a in self.addresses if a.holds(peer)), self.address)


def interfaces() -> tuple[Interface, ...]:
    """Every interface of this network namespace, by index. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        addresses: dict[int, list[Address]] = {}
        for body in _dump(netlink, _RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            prefix, index = body[1], int.from_bytes(body[4:8], _ORDER)
            found = _attributes(body[8:])
            octets = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b""))
            if len(octets) == 4:
                addresses.setdefault(index, []).append(Address(v4_text(octets), prefix))
        links = []
        for body in _dump(netlink, _RTM_GETLINK, bytes(16)):
            _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", body)
            found = _attributes(body[16:])
            hardware = found.get(_IFLA_ADDRESS, b"")
            links.append(
                Interface(
                    name=found[_IFLA_IFNAME].rstrip(b"\0").decode("utf-8", "backslashreplace"),
                    index=index,
                    mac=hardware.hex(":") if len(hardware) == 6 else "",
                    mtu=int.from_bytes(found.get(_IFLA_MTU, b""), _ORDER),
                    up=bool(flags & _IFF_UP),
                    running=bool(flags & _IFF_RUNNING),
                    loopback=bool(flags & _IFF_LOOPBACK),
                    addresses=tuple(addresses.get(index, ())),
                )
            )
    return tuple(sorted(links, key=lambda link: link.index))


def choose(names: Sequence[str] = (), among: Sequence[Interface] | None = None) -> tuple[Interface, ...]:
    """The interfaces to serve on: those named, else every one that is up and has an IPv4 address, loopback left out.

    among: what to choose from, by default this machine's. Raises InterfaceError when a named one cannot serve, or none.
    """
    links = interfaces() if among is None else tuple(among)
    if names:
        return tuple(_named(name, links) for name in dict.fromkeys(names))
    chosen = tuple(link for link in links if link.up and link.addresses and not link.loopback)
    if not chosen:
        others = [link for link in links if not link.loopback]
        if not others:
            raise InterfaceError("this machine has no network interface but loopback", "name one with --interface")
        down = ", ".join(f"{link.name} ({'up' if link.up else 'down'})" for link in others)
        raise InterfaceError(
            f"no interface has an IPv4 address; there are: {down}",
            f"sudo ip address add 192.168.1.2/24 dev {others[0].name} && sudo ip link set {others[0].name} up",
        )
    return chosen


def _named(name: str, links: Sequence[Interface]) -> Interface:
    link = next((link for link in links if link.name == name), None)
    if link is None:
        there = ", ".join(link.name for link in links)
        raise InterfaceError(f"no interface named {name}; there are: {there}", "name one of them with --interface")
    if not link.up:
        raise InterfaceError(f"interface {name} is down", f"sudo ip link set {name} up")
    if not link.addresses:
        raise InterfaceError(f"interface {name} has no IPv4 address", f"sudo ip address add 192.168.1.2/24 dev {name}")
    return link


_ORDER: Literal["little", "big"] = sys.byteorder  # netlink speaks the host's order


def _dump(netlink: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """The bodies of the kernel's answers to one request for all there is. Raises OSError with its own number."""
    netlink.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, 1, 0) + body)
    while True:
        data, at = netlink.recv(1 << 16), 0
        while at + _HEADER.size <= len(data):
            size, answer, _, _, _ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + size]
            if answer == _NLMSG_DONE:
                return
            if answer == _NLMSG_ERROR:
                number = -int.from_bytes(body[:4], _ORDER, signed=True)
                raise OSError(number, os.strerror(number))
            yield body
            at += max(_HEADER.size, size + 3 & ~3)


def _attributes(data: bytes) -> dict[int, bytes]:
    """rtattr: length and type in 16 bits each, padded to 4 octets."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + size]  # the upper two bits are flags (linux/netlink.h)
        at += max(4, size + 3 & ~3)
    return found
