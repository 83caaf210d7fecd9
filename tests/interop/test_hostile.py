"""The product under attack: malformed input, half-open and slow peers, floods. A good client beside them is served on.

Every run is `bootwire boot` itself in a network namespace; attackers and the good client are in another one.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import nasties
from bootwire.wire import dhcp4
from dhcp_samples import vector
from good_client import OURS, GoodClient, udp
from namespaces import Namespace, pair
from product import Server
from vector_files import octets

pytestmark = pytest.mark.interop

EACH = 10_000  # malformed items of each protocol
BATCH = 200  # items between two good requests: less than what the kernel holds for a socket
GROWTH = 22 * 1024  # KiB that the server may grow by; measured: 13.2 MB in a flood, 15.6 MB with an unread journal


@dataclass
class Proof:
    """One run: the server, and where its attackers are."""

    server: Server
    attackers: Namespace

    @property
    def rss(self) -> int:
        """KiB of memory that the server has now."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1])


@contextlib.contextmanager
def proof(place: Path, kernel: str, *options: str, read: bool = True, files: str = "1024:16384") -> Iterator[Proof]:
    """files: its soft and hard limit of open files; a usual shell's are the default.

    The server on 10.9.0.1, publishing nasties.tree. After the run it must still end well, with nothing on stderr."""
    pub = nasties.tree(place)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for the attackers
    with pair() as (one, two):
        arguments = [kernel, "--files", str(pub), "--state-dir", str(place / "state"), "--no-fetch", *options]
        server = Server(one, *arguments, read=read, within=("prlimit", f"--nofile={files}"))
        server.ready()
        yield Proof(server, two)
        status, said = server.end()
    assert status == 0
    assert "Traceback" not in said, said


def usual(client: GoodClient) -> dict[str, float]:
    """The median of some good requests of each kind, in seconds."""
    return medians([client.all() for _ in range(15)])


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def assert_usual(before: dict[str, float], now: dict[str, float], times: float) -> None:
    """No protocol takes longer than `times` what it took before.

    A good request stands in line behind BATCH hostile items, each of which may cost 0.1 ms; the same time is for
    whoever else runs on this machine."""
    for name, seconds in before.items():
        assert now[name] < times * seconds + BATCH * 0.000_1, (name, before, now)


# --- malformed input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("-v",), ("--json",)], ids=["verbose", "json"])
@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_forty_thousand_malformed_items(tmp_path: Path, kernel: str, options: tuple[str, ...], read: bool) -> None:
    items: dict[str, list[bytes]] = {
        "dhcp": nasties.dhcp(1, EACH),
        "pxe": nasties.dhcp(2, EACH),
        "tftp": nasties.tftp_packets(3, EACH),
        "http": nasties.http_requests(4, EACH),
    }
    with proof(tmp_path, kernel, *options, read=read) as run:

        def attack() -> None:
            with contextlib.closing(GoodClient("there")) as client:
                before, rss = usual(client), run.rss
                for name, hurl in (("dhcp", _at(67)), ("pxe", _at(4011)), ("tftp", _at(69)), ("http", _connections)):
                    meanwhile = []
                    for at in range(0, EACH, BATCH):
                        leaked = hurl(items[name][at : at + BATCH])
                        assert nasties.CANARY not in leaked
                        meanwhile.append(client.all())
                    assert run.rss - rss < GROWTH, name
                    assert_usual(before, medians(meanwhile), 8)
                assert_usual(before, usual(client), 4)

        run.attackers.call(attack)
    if run.server.out:
        assert len(run.server.out.rest()) < EACH


def _at(port: int) -> Callable[[Sequence[bytes]], bytes]:
    """Throws datagrams at a port; gives what came back."""

    def hurl(items: Sequence[bytes]) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            for item in items:
                sock.sendto(item[:65_507], (OURS, port))
            return b"".join(_arrived(sock))

    return hurl


def _arrived(sock: socket.socket) -> Iterator[bytes]:
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(65536)


def _connections(items: Sequence[bytes]) -> bytes:
    """One connection each, some dozens at a time; what came back. Some end politely, some break off, some just stay."""
    open_ones: list[socket.socket] = []
    back: list[bytes] = []
    for number, item in enumerate(items):
        sock = socket.create_connection((OURS, 80), 5)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.send(item)
            if number % 3 == 0:
                sock.shutdown(socket.SHUT_WR)
        open_ones.append(sock)
        if len(open_ones) >= 48:
            with open_ones.pop(0) as oldest, contextlib.suppress(OSError):
                back.append(oldest.recv(65536))
    for sock in open_ones:
        with sock, contextlib.suppress(OSError):
            back.append(sock.recv(65536))
    return b"".join(back)


# --- peers that take their time, and floods ----------------------------------------------------------------------


@pytest.mark.parametrize("files", ["1024:16384", "1024:1024"], ids=["usual", "few-descriptors"])
def test_half_open_transfers_and_slow_connections_lock_nobody_out(tmp_path: Path, kernel: str, files: str) -> None:
    """500 TFTP requests that nobody acknowledges and 1,200 connections that never say what they want, at once."""
    with proof(tmp_path, kernel, "--json", files=files) as run:

        def attack() -> dict[socket.socket, list[bytes]]:
            with contextlib.closing(GoodClient("there")) as client, contextlib.ExitStack() as stack:
                before, rss = usual(client), run.rss
                for _ in range(1200):
                    slow = stack.enter_context(socket.create_connection((OURS, 80), 5))
                    slow.sendall(b"GET /files/probe HTTP/1.1\r\nX-")
                half_open = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(500)]
                for sock in half_open:
                    sock.sendto(b"\0\1probe\0octet\0blksize\x001468\0windowsize\x0064\0", (OURS, 69))
                meanwhile, until = (
                    [],
                    time.monotonic() + 9,
                )  # the last re-send comes after 3 s, its transfer ends after 7
                while time.monotonic() < until:
                    meanwhile.append(client.all())
                assert_usual(before, medians(meanwhile), 8)
                assert run.rss - rss < GROWTH
                return {sock: list(_arrived(sock)) for sock in half_open}

        answers = run.attackers.call(attack)
        assert {1 <= len(back) <= 3 for back in answers.values()} == {True}
        assert max(sum(map(len, back)) for back in answers.values()) <= 3 * 64


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
def test_a_flood_of_spoofed_machines(tmp_path: Path, kernel: str, read: bool) -> None:
    """2,000 DISCOVERs a second for ten seconds, each from another machine."""
    discover = vector("ipxe-efi-x64-discover")
    rng = random.Random(5)
    with proof(tmp_path, kernel, "--json", read=read) as run:

        def attack() -> None:
            done = threading.Event()

            def flood() -> None:
                with contextlib.closing(udp("there", 1068)) as sock:
                    began = time.monotonic()
                    for number in range(20_000):
                        spoofed = discover[:4] + rng.randbytes(4) + discover[8:28] + rng.randbytes(6) + discover[34:]
                        sock.sendto(spoofed, ("255.255.255.255", dhcp4.SERVER_PORT))
                        time.sleep(max(0.0, began + number / 2000 - time.monotonic()))
                done.set()

            with contextlib.closing(GoodClient("there")) as client:
                before, rss = usual(client), run.rss
                flooding = threading.Thread(target=flood)  # it inherits this thread's namespace
                flooding.start()
                meanwhile = []
                while not done.wait(0.05):
                    meanwhile.append(client.all())
                flooding.join()
                assert len(meanwhile) > 20
                assert run.rss - rss < GROWTH
                assert_usual(before, usual(client), 4)

        run.attackers.call(attack)
    if run.server.out:  # 40,000 were to tell
        assert len(run.server.out.rest()) < 25_000


# --- bootinfo ----------------------------------------------------------------------------------------------------


def test_ten_thousand_malformed_bootinfo_datagrams_and_a_flood_starve_nobody(tmp_path: Path, kernel: str) -> None:
    """The datagrams come from 150 addresses, so that many get past one address's rate; then one floods for 5 s."""
    items = nasties.bootinfo_packets(6, EACH)
    with proof(tmp_path, kernel, "--json", "--bootinfo-answer", "partition 2") as run:
        for low in range(3, 253):
            run.attackers.run(f"ip address add 10.9.0.{low}/24 dev there")

        def attack() -> None:
            with contextlib.closing(GoodClient("there")) as client:
                before, rss = usual(client), run.rss
                places = itertools.cycle(range(103, 253))
                for at in range(0, EACH, 40):
                    with bound(f"10.9.0.{next(places)}") as sock:
                        for item in items[at : at + 40]:
                            sock.sendto(item[:65_507], (OURS, 6969))
                        client.dhcp()  # it has read what came before, for both are read in one loop
                for low in range(3, 8):
                    assert_told(f"10.9.0.{low}")
                assert run.rss - rss < GROWTH
                over = threading.Event()
                flooding = threading.Thread(target=flood, args=("10.9.0.250", over))
                flooding.start()
                try:
                    meanwhile, until = [], time.monotonic() + 5
                    while time.monotonic() < until:
                        meanwhile.append(client.all())
                        assert_told(f"10.9.0.{len(meanwhile) % 90 + 8}")
                finally:
                    over.set()
                    flooding.join()
                assert len(meanwhile) > 20
                assert run.rss - rss < GROWTH
                assert_usual(before, usual(client), 4)

        run.attackers.call(attack)
    facts = [fact for fact in run.server.facts if fact.get("service") == "bootinfo"]
    assert any("kept away" in fact.get("because", "") for fact in facts)


QUESTION = octets("bootinfo", "request")


def bound(address: str, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    return sock


def assert_told(address: str) -> None:
    """A machine there asks once and is told, in time."""
    with bound(address, 9696) as sock:
        sock.settimeout(1.0)
        sock.sendto(QUESTION, (OURS, 6969))
        answer, source = sock.recvfrom(2048)
        assert (answer[:16].hex(), source) == ("01000200000000000000010002000000", (OURS, 6969))


def flood(address: str, over: threading.Event) -> None:
    with bound(address) as sock:
        while not over.is_set():
            for _ in range(50):
                sock.sendto(QUESTION, (OURS, 6969))
