"""Whole hosts on a simulated LAN: the table of what a bad network costs, kept as numbers."""

from __future__ import annotations

import os
import random
import time
from hashlib import sha256
from pathlib import Path

import pytest

from bootwire.engine import MS, S
from bootwire.engine.ip import Host
from bootwire.engine.tcp import Config, State
from bootwire.preboot.impair import Faults
from bootwire.sim.lan import Lan

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
GOLDEN = Path(__file__).with_name("transfers.golden")


def pair(lan: Lan) -> tuple[Host, Host]:
    hosts = []
    for i, address in enumerate((A, B), 1):
        host = Host(bytes((2, 0, 0, 0, 0, i)), b"secret of the test %d" % i)
        host.add_address(address, 24, 0)
        hosts.append(lan.attach(host))
    return hosts[0], hosts[1]


def transfer(lan: Lan, a: Host, b: Host, data: bytes, config: Config | None = None) -> tuple[bytes, str]:
    """A client fetches `data` from a server and both close: (what arrived, how it ended)."""
    listener = b.listen(80, config=config)
    flow = a.connect(B, 80, lan.now, config=config)
    sent, got, server = 0, bytearray(), None

    def done() -> bool:
        nonlocal sent, server
        if server is None and listener.ready:
            server = listener.ready.popleft()
        if server is not None and sent < len(data) and server.connection.room:
            sent += server.connection.write(data[sent : sent + server.connection.room])
            if sent == len(data):
                server.connection.close(lan.now)
            b.touch(server)
        got.extend(flow.connection.read(1 << 20))
        a.touch(flow)
        return flow.connection.at_end or flow.connection.state is State.CLOSED

    lan.until(done)
    flow.connection.close(lan.now)
    a.touch(flow)
    lan.until(lambda: flow.connection.state is State.CLOSED, 100 * S)
    for side in (server, flow):
        if side is not None and side.connection.failure is not None:
            return bytes(got), side.connection.failure.value
    return bytes(got), "closed"


def row(loss: float, rtt: int, sack: bool, seed: int) -> str:
    faults = Faults(loss, duplicate=0.01, reorder=0.02, delay=rtt * MS // 2, bandwidth=12_500_000)
    lan = Lan(faults, seed)
    a, b = pair(lan)
    data = random.Random(seed).randbytes(300_000)
    config = Config(sack=sack, user_timeout=120 * S)
    start = lan.now
    got, how = transfer(lan, a, b, data, config)
    assert got == data or (how != "closed" and data.startswith(got)), how
    took = (lan.now - start) / S
    line = f"loss {loss:4.0%}  rtt {rtt:3} ms  {'sack' if sack else 'bare'}  seed {seed}  "
    return line + f"{how}: {len(got):6} octets in {took:8.3f} s, {lan.frames:5} frames"


def table() -> str:
    return "".join(
        row(loss, rtt, sack, seed) + "\n"
        for loss in (0, 0.01, 0.05, 0.1, 0.2, 0.3)
        for rtt in (2, 50)
        for sack in (True, False)
        for seed in (1, 2)
    )


def test_every_transfer_ends_byte_exact_or_in_a_named_failure_and_costs_what_it_did():
    """The numbers are a record, not a promise: after a change of the engine look at them, then UPDATE_GOLDEN=1."""
    found = table()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


def test_a_thousand_seconds_of_virtual_time_take_well_under_a_minute():
    lan = Lan(Faults(loss=0.01, delay=20 * MS), seed=3)
    a, b = pair(lan)
    listener = b.listen(7)
    flow = a.connect(B, 7, 0)
    lan.until(lambda: listener.ready)
    server = listener.ready.popleft()
    began = time.perf_counter()
    said = heard = 0
    while lan.now < 1000 * S:  # a conversation: a thousand octets each way every second
        for host, side in ((a, flow), (b, server)):
            said += side.connection.write(bytes(1000))
            heard += len(side.connection.read(1 << 20))
            host.touch(side)
        lan.run(S)
    assert heard > 0.99 * said > 1_900_000
    assert time.perf_counter() - began < 20


def test_the_same_seed_gives_the_same_octets():
    def run(seed: int) -> str:
        digest = sha256()
        lan = Lan(Faults(0.1, 0.1, 0.1, 10 * MS), seed, lambda now, frame: digest.update(b"%d" % now + frame.octets))
        a, b = pair(lan)
        transfer(lan, a, b, bytes(50_000))
        return digest.hexdigest()

    assert run(7) == run(7) != run(8)


@pytest.mark.parametrize("reorder", [0.0, 0.3])
def test_a_slow_link_is_filled(reorder):
    lan = Lan(Faults(delay=25 * MS, bandwidth=1_250_000, reorder=reorder, jitter=10 * MS), seed=1)
    a, b = pair(lan)
    data = bytes(3_000_000)
    start = lan.now
    got, how = transfer(lan, a, b, data)
    assert (len(got), how) == (len(data), "closed")
    goodput = len(data) / ((lan.now - start) / S)
    assert goodput > (0.5 if reorder else 0.7) * 1_250_000  # slow start fills the queue once, and pays for it
