"""Debian's TFTP clients fetch from our server over real sockets, and our receiver fetches from Debian's servers."""

from __future__ import annotations

import random
import select
import subprocess
import time
from pathlib import Path

import pytest

from bootwire.facts import TransferDone, TransferFailed, TransferStarted
from bootwire.wire import tftp as wire
from tftp_clients import CLIENTS, get
from tftp_rig import client, serving

pytestmark = pytest.mark.interop

MANY_BLOCKS = 65_536 * 512 + 1000  # more than 65,535 blocks of 512 octets
SIZES = [0, 1, 511, 512, 513, 1468 * 3, 65464 * 2, 1_000_003]
BODIES = {size: random.Random(size).randbytes(size) for size in [*SIZES, MANY_BLOCKS]}


@pytest.mark.parametrize("single_port", [False, True], ids=["own port", "single port"])
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_of_debian_gets_every_size_as_it_is(name: str, single_port: bool, tmp_path: Path):
    with serving({b"%d" % size: BODIES[size] for size in SIZES}, single_port=single_port) as rig:
        for size in SIZES:
            assert get(name, rig.at, f"{size}", tmp_path / f"{size}") == BODIES[size], f"{size} octets"
        rig.wait_for(TransferDone, len(SIZES))


def test_a_window_of_64_is_agreed_on(tmp_path: Path):
    with serving({b"f": BODIES[1_000_003]}) as rig:
        get("atftp windowsize 64", rig.at, "f", tmp_path / "f")
        (started,) = rig.wait_for(TransferStarted)
        assert isinstance(started, TransferStarted)
        assert "windowsize 64" in started.options


@pytest.mark.parametrize("name", ["curl", "busybox", "tftp-hpa", "atftp", "atftp windowsize 2"])
def test_a_client_of_debian_gets_more_than_65535_blocks(name: str, tmp_path: Path):
    (tmp_path / "served").write_bytes(BODIES[MANY_BLOCKS])
    with serving({b"big": str(tmp_path / "served")}) as rig:
        assert get(name, rig.at, "big", tmp_path / "got") == BODIES[MANY_BLOCKS]


@pytest.mark.parametrize("name", ["curl", "busybox", "tftp-hpa", "atftp"])
def test_a_client_of_debian_understands_that_there_is_no_such_file(name: str, tmp_path: Path):
    with serving({}) as rig:
        before = time.monotonic()
        words = CLIENTS[name](rig.at[0], str(rig.at[1]), "none", tmp_path / "none")
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        assert time.monotonic() - before < 2
        assert "no such file" in (done.stdout + done.stderr).lower() or done.returncode != 0


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
