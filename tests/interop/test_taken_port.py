"""Beside a DHCP server that owns port 67: it is named, and its machines and its answers are heard all the same."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from bootwire.serve.capture_socket import CaptureSocket, Heard
from bootwire.serve.interfaces import choose
from bootwire.serve.ports import Owner, owners, taken
from bootwire.wire import dhcp4
from namespaces import Namespace, dnsmasq, pair

pytestmark = pytest.mark.interop


@pytest.fixture
def served() -> Iterator[tuple[Namespace, Namespace, int]]:
    """dnsmasq as DHCP server in the first namespace, on all addresses, as it is installed; and its pid."""
    with pair() as (one, two), dnsmasq(one) as pid:
        yield one, two, pid


def test_the_owner_is_named_and_heard_past(served: tuple[Namespace, Namespace, int]) -> None:
    one, two, pid = served
    assert one.call(lambda: owners("udp", 67)) == (Owner("*", "dnsmasq", pid),)
    assert two.call(lambda: owners("udp", 67)) == ()
    assert one.call(lambda: taken("udp", 67))[0] == f"UDP port 67 is taken by dnsmasq (process {pid})"
    late = one.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with late, pytest.raises(OSError, match="in use"):
        late.bind(("", 67))

    (here,) = one.call(choose)
    with (
        closing(one.call(lambda: CaptureSocket(here, 67))) as requests,
        closing(one.call(lambda: CaptureSocket(here, 68, outgoing=True))) as answers,
    ):
        two.run("busybox udhcpc -i there -n -q -f -s /bin/true")
        heard = [dhcp4.parse(hear(by).payload).type for by in (requests, answers, requests, answers)]
    assert heard == [dhcp4.DISCOVER, dhcp4.OFFER, dhcp4.REQUEST_LEASE, dhcp4.ACK]


def hear(by: CaptureSocket) -> Heard:
    assert select.select([by], [], [], 5)[0], "nothing heard"
    heard = by.receive()
    assert heard is not None
    return heard
