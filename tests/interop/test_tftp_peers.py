from __future__ import annotations

import select
import time

import pytest

from bootwire.facts import TransferFailed
from bootwire.wire import tftp as wire
from tftp_rig import client, serving

pytestmark = pytest.mark.interop


def test_an_unacknowledged_request_gets_back_no_more_than_three_sends():
    windowed = wire.ReadRequest(b"f", b"octet", ((b"blksize", b"1468"), (b"windowsize", b"16")))
    with serving({b"f": bytes(100_000)}) as rig, client() as plain, client() as asking:
        plain.sendto(wire.emit(wire.ReadRequest(b"f", b"octet")), rig.at)
        asking.sendto(wire.emit(windowed), rig.at)
        began, seen = time.monotonic(), {plain: [], asking: []}
        while time.monotonic() - began < 9:
            for sock in select.select([plain, asking], [], [], 0.5)[0]:
                seen[sock].append((round(time.monotonic() - began), len(sock.recv(2000))))
        assert [when for when, _ in seen[plain]] == [0, 1, 3]
        assert [when for when, _ in seen[asking]] == [0, 1, 3]
        assert sum(octets for _, octets in seen[plain]) <= 3 * 516
        rig.wait_for(TransferFailed, 2)
        assert rig.server.active == 0
