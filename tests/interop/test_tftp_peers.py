"""Debian's TFTP clients fetch from our server over real sockets, and our receiver fetches from Debian's servers."""

from __future__ import annotations

import random
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire.facts import TransferDone, TransferFailed, TransferStarted
from bootwire.wire import tftp as wire
from tftp_rig import client, serving

pytestmark = pytest.mark.interop

MANY_BLOCKS = 65_536 * 512 + 1000  # more than 65,535 blocks of 512 octets
SIZES = [0, 1, 511, 512, 513, 1468 * 3, 65464 * 2, 1_000_003]
BODIES = {size: random.Random(size).randbytes(size) for size in [*SIZES, MANY_BLOCKS]}

Command = Callable[[str, str, Path], list[str]]  # port, name, where to


def curl(*options: str) -> Command:
    return lambda port, name, to: ["curl", "-sSf", *options, "-o", str(to), f"tftp://127.0.0.1:{port}/{name}"]


def busybox(*options: str) -> Command:
    return lambda port, name, to: ["busybox", "tftp", "-g", *options, "-r", name, "-l", str(to), "127.0.0.1", port]


def hpa(mode: str) -> Command:
    return lambda port, name, to: ["tftp", "-m", mode, "127.0.0.1", port, "-c", "get", name, str(to)]


def atftp(*options: str) -> Command:
    words = [word for option in options for word in ("--option", option)]
    return lambda port, name, to: ["atftp", *words, "--get", "-r", name, "-l", str(to), "127.0.0.1", port]


CLIENTS: dict[str, Command] = {
    "curl": curl(),
    "curl without options": curl("--tftp-no-options"),
    "curl 1468": curl("--tftp-blksize", "1468"),
    "curl 65464": curl("--tftp-blksize", "65464"),
    "busybox": busybox(),
    "busybox 1468": busybox("-b", "1468"),
    "busybox 65464": busybox("-b", "65464"),
    "tftp-hpa": hpa("binary"),
    "tftp-hpa netascii": hpa("netascii"),
    "atftp": atftp(),
    "atftp 8192": atftp("blksize 8192", "tsize"),
    "atftp 65464": atftp("blksize 65464"),
    "atftp windowsize 2": atftp("windowsize 2"),
    "atftp windowsize 16": atftp("blksize 1468", "windowsize 16", "tsize", "timeout 1"),
    "atftp windowsize 64": atftp("blksize 1468", "windowsize 64"),
}


def run(command: Command, port: int, name: str, to: Path) -> None:
    words = command(str(port), name, to)
    assert shutil.which(words[0]), f"{words[0]} is not installed"
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("single_port", [False, True], ids=["own port", "single port"])
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_of_debian_gets_every_size_as_it_is(name: str, single_port: bool, tmp_path: Path):
    with serving({b"%d" % size: BODIES[size] for size in SIZES}, single_port=single_port) as rig:
        for size in SIZES:
            to = tmp_path / f"{size}"
            run(CLIENTS[name], rig.at[1], f"{size}", to)
            got = to.read_bytes() if to.exists() else b""  # busybox makes no file of nothing
            assert got == BODIES[size], f"{size} octets"
        rig.wait_for(TransferDone, len(SIZES))


def test_a_window_of_64_is_agreed_on(tmp_path: Path):
    with serving({b"f": BODIES[1_000_003]}) as rig:
        run(CLIENTS["atftp windowsize 64"], rig.at[1], "f", tmp_path / "f")
        (started,) = rig.wait_for(TransferStarted)
        assert isinstance(started, TransferStarted)
        assert "windowsize 64" in started.options


@pytest.mark.parametrize("name", ["curl", "busybox", "tftp-hpa", "atftp", "atftp windowsize 2"])
def test_a_client_of_debian_gets_more_than_65535_blocks(name: str, tmp_path: Path):
    (tmp_path / "served").write_bytes(BODIES[MANY_BLOCKS])
    with serving({b"big": str(tmp_path / "served")}) as rig:
        run(CLIENTS[name], rig.at[1], "big", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == BODIES[MANY_BLOCKS]


@pytest.mark.parametrize("name", ["curl", "busybox", "tftp-hpa", "atftp"])
def test_a_client_of_debian_understands_that_there_is_no_such_file(name: str, tmp_path: Path):
    with serving({}) as rig:
        before = time.monotonic()
        words = CLIENTS[name](str(rig.at[1]), "none", tmp_path / "none")
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
