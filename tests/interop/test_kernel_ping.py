"""Ping without a card of our own: by the kernel's ICMP sockets, of both kinds."""

from __future__ import annotations

import socket
import time

import pytest

from bootwire.preboot import ping
from namespaces import Namespace, pair

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("groups", ["1 0", "0 2147483647"], ids=["raw", "datagram"])
def test_both_families(groups: str) -> None:
    with pair() as (here, there):
        here.run(f"sysctl -qw net.ipv4.ping_group_range='{groups}'")
        for end, name, last in ((here, "here", 1), (there, "there", 2)):
            end.run(f"ip -6 address add 2001:db8::{last}/64 dev {name} nodad")
        until = time.monotonic() + 20
        while any(end.run("ip -6 address show tentative") for end in (here, there)):  # the link-local ones
            assert time.monotonic() < until
            time.sleep(0.05)
        for address in ("10.9.0.2", "2001:db8::2"):
            said: list[str] = []
            assert here.call(lambda a=address, s=said: ping.run(ping.KernelCard(), a, 1, 1000, s.append)) == 0, said
            assert said[0].startswith(f"{address}: 1000 octets back, 1 of 1")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ping, "_PATIENCE", 0.2)
    space, said = Namespace(), []
    try:
        space.run("ip link add bwcnear type veth peer name bwcfar")
        space.run("ip address add 10.5.0.1/24 dev bwcnear")
        for name in ("bwcnear", "bwcfar"):
            space.run(f"ip link set {name} up")
        assert space.call(lambda: ping.run(ping.KernelCard(), "10.5.0.9", 1, 56, said.append)) == 1
    finally:
        space.close()
    assert said == ["10.5.0.9: no answer to 1", "10.5.0.9: none of 1 answered"]


def test_raw_sockets_hear_others_and_wait_for_their_own() -> None:
    def go() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
            return ping.KernelCard().ask("127.0.0.1", 7, 0)

    space = Namespace()
    try:
        assert 0 < space.call(go) < 2
    finally:
        space.close()
