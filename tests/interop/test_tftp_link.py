"""TFTP over a real link: its MTU, what happens when it changes or goes away, and one interface of several."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from bootwire.engine.tftp import Received, Wanted
from bootwire.wire import tftp as wire
from namespaces import Namespace, pair
from tftp_rig import fetch, serving

pytestmark = pytest.mark.interop

BODY = random.Random(1).randbytes(20_000_000)
SERVER = "10.9.0.1"


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as both:
        yield both


def at(namespace: Namespace, command: str) -> None:
    """Run it in a namespace whose own thread is busy."""
    net = f"/proc/{os.getpid()}/task/{namespace.tid}/ns/net"
    subprocess.run(["nsenter", f"--net={net}", *command.split()], check=True)


@pytest.mark.parametrize(("mtu", "block"), [(1500, b"1468"), (1400, b"1368")])
def test_no_block_is_longer_than_the_link_takes(ends: tuple[Namespace, Namespace], mtu: int, block: bytes):
    ours, theirs = ends
    ours.run(f"ip link set here mtu {mtu}")
    with serving({b"f": BODY}, address=SERVER, namespace=ours) as rig:
        wanted = Wanted(b"f", block_size=65464, window=64)
        fetched = theirs.call(lambda: fetch((SERVER, rig.at[1]), wanted))
        assert wire.find(fetched.options, b"blksize") == block
        assert fetched.body == BODY
        assert fetched.source is not None


def test_a_link_that_shrinks_in_the_middle_costs_fragments_but_not_the_transfer(ends: tuple[Namespace, Namespace]):
    """UDP_SEGMENT is refused then, so the blocks leave one by one."""
    ours, theirs = ends
    with serving({b"f": BODY}, address=SERVER, namespace=ours) as rig:
        shrink = threading.Timer(0.02, lambda: at(ours, "ip link set here mtu 1000"))
        shrink.start()
        fetched = theirs.call(lambda: fetch((SERVER, rig.at[1]), Wanted(b"f", block_size=1468, window=8)))
        shrink.join()
        assert fetched.body == BODY
        assert rig.server.counts.send_errors > 0


def test_a_link_that_is_gone_for_a_while_is_survived(ends: tuple[Namespace, Namespace]):
    ours, theirs = ends
    with serving({b"f": BODY}, address=SERVER, namespace=ours) as rig:

        def flap() -> None:
            at(ours, "ip link set here down")
            time.sleep(0.5)
            at(ours, "ip link set here up")

        timer = threading.Timer(0.02, flap)
        timer.start()
        fetched = theirs.call(lambda: fetch((SERVER, rig.at[1]), Wanted(b"f", block_size=1468, window=4)))
        timer.join()
        assert fetched.outcome == Received(len(BODY))
        assert fetched.body == BODY
        assert rig.server.counts.send_errors > 0


def test_an_interface_keeps_to_itself(ends: tuple[Namespace, Namespace]):
    ours, theirs = ends
    with serving({b"f": BODY[:5000]}, address="0.0.0.0", interface="here", namespace=ours) as rig:
        assert theirs.call(lambda: fetch((SERVER, rig.at[1]), Wanted(b"f", window=4))).body == BODY[:5000]
        home = f"/proc/{os.getpid()}/task/{ours.tid}/ns/net"
        at_home = f"nsenter --net={home} timeout 1 busybox tftp -g -r f -l /dev/null 127.0.0.1 {rig.at[1]}"
        assert subprocess.run(at_home.split(), capture_output=True, check=False).returncode == 124  # no answer
