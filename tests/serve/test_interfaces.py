"""Interfaces of this machine, chosen and explained."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootwire.serve.interfaces import Address, Interface, InterfaceError, choose, interfaces
from namespaces import Namespace


def link(name: str, *addresses: str, up: bool = True, loopback: bool = False) -> Interface:
    return Interface(name, 1, "02:00:00:00:00:01", 1500, up, up, loopback, tuple(Address(a, 24) for a in addresses))


LO = link("lo", "127.0.0.1", loopback=True)
ETH0 = link("eth0", "10.0.0.1", "10.0.1.1")
DOWN = link("eth1", "10.0.2.1", up=False)
BARE = link("eth2")


def test_by_default_it_is_every_up_interface_with_an_address_but_loopback() -> None:
    assert choose(among=(LO, ETH0, DOWN, BARE)) == (ETH0,)


def test_loopback_serves_when_named() -> None:
    assert choose(["lo"], (LO, ETH0)) == (LO,)


def test_a_name_given_twice_counts_once() -> None:
    assert choose(["eth0", "lo", "eth0"], (LO, ETH0)) == (ETH0, LO)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(InterfaceError, match=r"no interface named eth7; there are: lo, eth0"):
        choose(["eth7"], (LO, ETH0))


@pytest.mark.parametrize(("name", "what", "fix"), [
    ("eth1", "interface eth1 is down", "sudo ip link set eth1 up"),
    ("eth2", "interface eth2 has no IPv4 address", "sudo ip address add"),
])  # fmt: skip
def test_an_interface_that_cannot_serve_says_what_to_do(name: str, what: str, fix: str) -> None:
    with pytest.raises(InterfaceError, match=what) as error:
        choose([name], (LO, ETH0, DOWN, BARE))
    assert fix in error.value.fix


def test_no_interface_to_serve_on_says_so_with_the_ones_there_are() -> None:
    with pytest.raises(
        InterfaceError, match=r"no interface has an IPv4 address; there are: eth1 \(down\), eth2 \(up\)"
    ):
        choose(among=(LO, DOWN, BARE))
    with pytest.raises(InterfaceError, match="but loopback"):
        choose(among=(LO,))


def test_the_address_that_faces_a_peer_is_the_one_on_its_subnet() -> None:
    assert ETH0.facing("10.0.1.77") == "10.0.1.1"
    assert ETH0.facing("192.168.0.1") == "10.0.0.1"
    assert ETH0.addresses[0].broadcast == "10.0.0.255"
    assert Address("10.1.2.3", 0).holds("192.168.0.1")
    assert not Address("10.1.2.3", 32).holds("10.1.2.4")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    there = Namespace()
    yield there
    there.close()


@pytest.mark.interop
def test_what_the_kernel_has_is_what_we_read(namespace: Namespace) -> None:
    namespace.run("ip link add bw1 type veth peer name bw0 address 02:00:00:00:00:aa mtu 1400")
    namespace.run("ip address add 10.9.0.1/20 dev bw0")
    namespace.run("ip address add 10.9.1.1/32 dev bw0")
    namespace.run("ip link set bw0 up")
    lo, bw0, bw1 = namespace.call(interfaces)
    assert (lo.name, lo.loopback, lo.addresses) == ("lo", True, (Address("127.0.0.1", 8),))
    assert (bw0.name, bw0.mac, bw0.mtu, bw0.up) == ("bw0", "02:00:00:00:00:aa", 1400, True)
    assert bw0.addresses == (Address("10.9.0.1", 20), Address("10.9.1.1", 32))
    assert (bw1.name, bw1.up, bw1.addresses) == ("bw1", False, ())
    assert namespace.call(choose) == (bw0,)
