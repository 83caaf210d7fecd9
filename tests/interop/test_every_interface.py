"""Several interfaces: each network hears the server by its own address, and only where it was asked to serve."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bootwire.wire import dhcp4
from dhcp_samples import vector
from namespaces import Namespace, pair
from product import Server

pytestmark = pytest.mark.interop
DISCOVER = dhcp4.parse(vector("ipxe-bios-discover"))


@pytest.fixture
def cables() -> Iterator[tuple[Namespace, Namespace]]:
    """`pair`, and a second cable: 10.10.0.1/24 on `here2`, 10.10.0.2/24 on `there2`."""
    with pair() as (one, two):
        one.run("ip link add here2 type veth peer name there2")
        one.run(f"ip link set there2 netns {two.tid}")
        one.run("ip address add 10.10.0.1/24 dev here2")
        two.run("ip address add 10.10.0.2/24 dev there2")
        one.run("ip link set here2 up")
        two.run("ip link set there2 up")
        yield one, two


def ask(there: Namespace, interface: str) -> dhcp4.Message | None:
    """Broadcast a DISCOVER on one interface; the first answer, None after two seconds without."""

    def go() -> dhcp4.Message | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind(("0.0.0.0", 68))
            sock.settimeout(2)
            # A machine of its own for each: the same one on two interfaces at once is a copy, answered once.
            discover = replace(DISCOVER, xid=len(interface), chaddr=bytes([2, 0, 0, 0, 0, len(interface)]) + bytes(10))
            sock.sendto(dhcp4.emit(discover), ("255.255.255.255", 67))
            try:
                return dhcp4.parse(sock.recv(2048))
            except TimeoutError:
                return None

    return there.call(go)


def test_each_network_is_answered_from_its_own_address(
    cables: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    here, there = cables
    server = Server(here, kernel, *state)
    server.ready()
    for interface, address in (("there", "10.9.0.1"), ("there2", "10.10.0.1")):
        offer = ask(there, interface)
        assert offer is not None
        assert offer.siaddr == address
        assert offer.option(54) == socket.inet_aton(address)
    server.end()


def test_only_the_interfaces_named_are_served(
    cables: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    here, there = cables
    server = Server(here, kernel, "-i", "here2", *state)
    server.ready()
    assert ask(there, "there2") is not None
    assert ask(there, "there") is None
    server.end()
