"""The HTTP server over real sockets on loopback: octets, facts, limits, and peers of every bad sort."""

import contextlib
import errno
import hashlib
import os
import queue
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootwire.engine import MS
from bootwire.facts import NotFound, Refused, SizeProbed, TransferDone, TransferFailed, TransferStarted, Warned
from bootwire.serve.content import Content, Later, Missing, Peer, Reply, Upstream
from bootwire.serve.files import PublishedDirectory
from bootwire.serve.http import SMALL, HttpServer, Limits
from bootwire.serve.loop import Loop
from bootwire.wire.http import Request
from http_rig import SLOW, Client, House, served

SCRIPT = b"#!ipxe\necho hello\n"
BIG = random.Random(1).randbytes(8_000_000)  # more than the kernel takes for one connection


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[PublishedDirectory]:
    (tmp_path / "small.ipxe").write_bytes(SCRIPT)
    (tmp_path / "big").write_bytes(BIG)
    (tmp_path / "empty").write_bytes(b"")
    for size in (SMALL - 1, SMALL, SMALL + 1):
        (tmp_path / str(size)).write_bytes(BIG[:size])
    directory = PublishedDirectory(str(tmp_path))
    yield directory
    directory.close()


@pytest.fixture
def house(tree: PublishedDirectory) -> Iterator[House]:
    with served(of(tree)) as house:
        yield house


def of(tree: PublishedDirectory) -> Callable[[Request, Peer], object]:
    def resolve(request: Request, peer: Peer) -> object:
        name = request.path.removeprefix("/")
        if name == "memory":
            return Content("memory", len(BIG), BIG, key="memory", machine="52:54:00:12:34:56")
        if name == "reply":
            return Reply(200, SCRIPT, headers=(("Cache-Control", "no-store"),))
        if name == "who":
            return Reply(200, f"{peer.address} {peer.ours}".encode())
        if name == "bug":
            raise RuntimeError("our mistake")
        return tree.open(name)

    return resolve


# --- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["small.ipxe", "empty", str(SMALL - 1), str(SMALL), str(SMALL + 1), "big", "memory"])
def test_files_arrive_byte_exact_twice(house: House, name: str, tmp_path: Path) -> None:
    expected = BIG if name == "memory" else (tmp_path / name).read_bytes()
    with Client(house.port) as client:
        for _ in range(2):
            status, headers, body = client.get(f"/{name}")
            assert (status, hashlib.sha256(body).digest()) == (200, hashlib.sha256(expected).digest())
            assert headers["accept-ranges"] == "bytes"


def test_a_transfer_is_told_from_beginning_to_end(house: House) -> None:
    with Client(house.port) as client:
        client.get("/memory")
        assert house.fact(TransferStarted) == TransferStarted(
            "52:54:00:12:34:56", "http", "memory", "127.0.0.1", len(BIG)
        )
        done = house.fact(TransferDone)
        assert isinstance(done, TransferDone)
        assert (done.machine, done.name, done.octets) == ("52:54:00:12:34:56", "memory", len(BIG))
        assert 0 < done.seconds < 20


@pytest.mark.parametrize("name", ["small.ipxe", "empty"])
def test_a_transfer_of_one_send_is_told_by_its_end(house: House, name: str) -> None:
    with Client(house.port) as client:
        client.get(f"/{name}")
        assert isinstance(house.fact(TransferDone), TransferDone)
        house.no_fact()


def test_a_part_is_a_transfer_of_its_own_length(house: House) -> None:
    with Client(house.port) as client:
        status, headers, body = client.get("/big", "Range: bytes=1000000-2999999")
        assert (status, body) == (206, BIG[1_000_000:3_000_000])
        assert headers["content-range"] == f"bytes 1000000-2999999/{len(BIG)}"
        started, done = house.fact(TransferStarted), house.fact(TransferDone)
        assert isinstance(started, TransferStarted)
        assert isinstance(done, TransferDone)
        assert (started.octets, started.options) == (2_000_000, f"octets 1000000-2999999 of {len(BIG)}")
        assert done.octets == 2_000_000


def test_uefi_http_boot_asks_head_then_get_then_resets(house: House) -> None:
    client = Client(house.port)
    head = client.get("/big", method="HEAD")
    get = client.get("/big")
    assert {**get[1], "date": ""} == {**head[1], "date": ""}
    client.reset()
    assert house.fact(SizeProbed) == SizeProbed("", "big", "127.0.0.1", len(BIG), "http")
    house.fact(TransferStarted)
    house.fact(TransferDone)
    house.no_fact()


def test_answers_without_content_are_no_transfers(house: House) -> None:
    with Client(house.port) as client:
        etag = client.get("/small.ipxe")[1]["etag"]
        house.fact(TransferDone)
        assert client.get("/small.ipxe", f"If-None-Match: {etag}")[0] == 304
        assert client.get("/small.ipxe", 'If-Match: "other"')[0] == 412
        assert client.get("/small.ipxe", "Range: bytes=1000-")[0] == 416
        assert client.get("/reply")[0] == 200
        house.no_fact()


def test_replies_are_sent_as_they_are(house: House) -> None:
    with Client(house.port) as client:
        status, headers, body = client.get("/reply")
        assert (status, body) == (200, SCRIPT)
        assert (headers["content-type"], headers["cache-control"]) == ("text/plain", "no-store")
        assert client.get("/reply", method="HEAD")[1] == headers
        assert client.get("/who")[2] == b"127.0.0.1 127.0.0.1"


def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    paths = ["small.ipxe", "missing", "big", "reply", "empty"] * 40
    with Client(house.port) as client:
        sender = threading.Thread(
            target=client.send, args=("".join(f"GET /{path} HTTP/1.1\r\n\r\n" for path in paths[:100]).encode(),)
        )
        sender.start()
        sizes = [len(client.answer()[2]) for _ in range(100)]
        sender.join()
    assert sizes == [len(SCRIPT), len("no such file\n"), len(BIG), len(SCRIPT), 0] * 20


def test_a_half_closed_connection_still_gets_its_answers(house: House) -> None:
    with Client(house.port) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\nGET /small.ipxe HTTP/1.1\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer()[2] == BIG
        assert client.answer()[2] == SCRIPT
        assert client.ended()


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        ("1.1", (), True),
        ("1.0", (), False),
        ("1.1", ("Connection: close",), False),
        ("1.0", ("Connection: keep-alive",), True),
    ],
)
@pytest.mark.parametrize("path", ["/small.ipxe", "/big", "/missing", "/reply"])
def test_connections_end_when_they_should(
    house: House, version: str, fields: tuple[str, ...], kept: bool, path: str
) -> None:
    with Client(house.port) as client:
        client.get(path, *fields, version=version)
        if kept:
            assert client.get("/small.ipxe", *fields, version=version)[2] == SCRIPT
        else:
            assert client.ended()


def test_what_is_missing_is_said_and_the_connection_kept(house: House) -> None:
    with Client(house.port) as client:
        assert client.get("/missing")[0] == 404
        assert house.fact(NotFound) == NotFound("", "http", "/missing", "127.0.0.1", "no such file")
        assert client.get("/%2e%2e/x%1b[2J")[0] == 403
        assert house.fact(NotFound) == NotFound("", "http", "/../x\\x1b[2J", "127.0.0.1", "a name with .. in it")
        assert client.get("/missing", method="HEAD")[0] == 404
        assert client.get("/small.ipxe")[2] == SCRIPT


def test_our_own_mistake_costs_one_connection(house: House) -> None:
    with Client(house.port) as client, Client(house.port) as other:
        assert client.get("/bug")[0] == 500
        assert client.ended()
        assert other.get("/small.ipxe")[0] == 200
        assert [str(error) for error in house.errors] == ["our mistake"]


def test_a_shortage_is_said_so_that_ipxe_tries_again() -> None:
    def resolve(request: Request, peer: Peer) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    with served(resolve) as house, Client(house.port) as client:
        status, headers, _ = client.get("/kernel")
        assert (status, headers["retry-after"]) == (503, "1")
        assert client.ended()
        assert isinstance(house.fact(Warned), Warned)


def test_an_absolute_target_is_ours_or_nobodys(house: House) -> None:
    with Client(house.port) as client:
        assert client.get(f"http://127.0.0.1:{house.port}/small.ipxe")[2] == SCRIPT
        assert client.get("http://192.0.2.1/small.ipxe")[0] == 421
        assert client.ended()
        house.fact(TransferDone)
        assert house.fact(Refused) == Refused("", "http", "127.0.0.1", "asked to be a proxy", "192.0.2.1")


# --- files that change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["truncated", "overwritten"])
def test_a_file_that_changes_under_a_transfer_ends_it(house: House, tmp_path: Path, change: str) -> None:
    with Client(house.port, receive_buffer=SLOW) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        house.fact(TransferStarted)
        if change == "truncated":
            os.truncate(tmp_path / "big", 1000)
        else:
            os.utime(tmp_path / "big", ns=(1, 1))
        with pytest.raises(ConnectionResetError):
            client.answer()
    failed = house.fact(TransferFailed)
    assert isinstance(failed, TransferFailed)
    assert "the file" in failed.because
    assert failed.octets < len(BIG)


def test_a_replaced_file_is_served_as_it_was(house: House, tmp_path: Path) -> None:
    with Client(house.port, receive_buffer=SLOW) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        (tmp_path / "new").write_bytes(b"new")
        house.fact(TransferStarted)
        os.rename(tmp_path / "new", tmp_path / "big")
        assert client.answer()[2] == BIG
        assert client.get("/big")[2] == b"new"


def test_a_small_file_that_changed_is_not_served_from_memory(house: House, tmp_path: Path) -> None:
    with Client(house.port) as client:
        assert client.get("/small.ipxe")[2] == SCRIPT
        (tmp_path / "small.ipxe").write_bytes(b"changed")
        assert client.get("/small.ipxe")[2] == b"changed"


# --- peers of every bad sort -------------------------------------------------------------------------------------


def test_a_client_that_goes_away_is_taken_calmly(house: House) -> None:
    for goodbye in (Client.reset, Client.close):
        client = Client(house.port, receive_buffer=SLOW)
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        client.sock.recv(1000)
        house.fact(TransferStarted)
        goodbye(client)
        failed = house.fact(TransferFailed)
        assert isinstance(failed, TransferFailed)
        assert 0 < failed.octets < len(BIG)
        assert failed.because
    assert house.errors == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"POST /big HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, 413),
        (b"GET /big HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"CONNECT 192.0.2.1:25 HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_a_bad_request_gets_its_status_and_an_end(house: House, data: bytes, status: int) -> None:
    with Client(house.port) as client:
        client.send(data)
        got, headers, _ = client.answer()
        assert (got, headers["connection"]) == (status, "close")
        assert client.ended()
        assert house.fact(Refused).service == "http"  # type: ignore[attr-defined]


def test_ten_thousand_malformed_requests(house: House) -> None:
    """The server answers others all along, its memory stays, and its facts stay few but count every one."""
    chance = random.Random(7)
    good = b"GET /small.ipxe HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"
    with Client(house.port) as other:
        before = None
        for number in range(10_000):
            bad = bytearray(good)
            for _ in range(chance.randint(1, 8)):
                bad[chance.randrange(len(bad))] = chance.randrange(256)
            bad[0] = chance.choice(b"\0 \x16/\xff")
            with Client(house.port) as client:
                client.send(bytes(bad))
                assert client.answer()[0] == 400
            if number % 1000 == 0:
                assert other.get("/small.ipxe")[0] == 200
            if number == 1000:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert before is not None
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024
    house.run(lambda: None)
    refusals = []
    while not house.facts.empty():
        fact = house.facts.get()
        if isinstance(fact, Refused):
            refusals.append(fact)
    assert len(refusals) < 1000
    assert all(len(fact.detail) <= 256 and fact.detail.isprintable() for fact in refusals)


def test_hidden_refusals_are_counted() -> None:
    with served(lambda *_: Missing("no")) as house:
        for _ in range(300):
            with Client(house.port) as client:
                client.send(b"\0\r\n\r\n")
                client.answer()
        told = 0
        while told < 300:
            fact = house.fact(Refused)
            assert isinstance(fact, Refused)
            words = fact.because.split()
            told += int(words[0]) if words[1:3] == ["more", "such"] else 1
        assert told == 300


def test_a_head_that_trickles_in_is_cut_off() -> None:
    with served(lambda *_: Missing("no"), Limits(head=200 * MS)) as house, Client(house.port) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.sock.settimeout(0.01)
        data = None
        for _ in range(500):  # five seconds
            with contextlib.suppress(TimeoutError, OSError):
                client.send(b"A: b\r\n")
                data = client.sock.recv(1)
                break
        assert data == b""
        assert house.fact(Refused).because == "no whole request in time"  # type: ignore[attr-defined]


def test_a_silent_connection_is_closed_and_an_idle_one_without_a_word() -> None:
    limits = Limits(head=100 * MS, idle=200 * MS)
    with served(lambda *_: Reply(200, b""), limits) as house, Client(house.port) as silent, Client(house.port) as idle:
        idle.get("/")
        assert silent.ended()
        assert idle.ended()
        house.fact(Refused)
        house.no_fact()


def test_a_request_that_came_while_the_server_was_held_up_is_answered() -> None:
    with served(lambda *_: Reply(200, b"ok"), Limits(head=100 * MS)) as house, Client(house.port) as client:
        house.run(lambda: None)  # accepted
        house.run(lambda: (client.send(b"GET / HTTP/1.1\r\n\r\n"), time.sleep(0.3)))
        assert client.answer()[2] == b"ok"
        house.no_fact()


def test_a_reader_that_stalls_is_cut_off(tree: PublishedDirectory) -> None:
    limits = Limits(stall=200 * MS)
    with served(of(tree), limits) as house, Client(house.port, receive_buffer=SLOW) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        house.fact(TransferStarted)
        failed = house.fact(TransferFailed)
        assert isinstance(failed, TransferFailed)
        assert failed.because.startswith("the machine took nothing for")
        assert failed.octets < len(BIG)


def test_a_slow_reader_is_served_as_long_as_it_reads(tree: PublishedDirectory) -> None:
    """What it takes comes out of the kernel's buffer, and the server's own sends see no progress within the limit."""
    limits = Limits(stall=300 * MS)
    with served(of(tree), limits) as house, Client(house.port, receive_buffer=SLOW) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        client.head()
        clock = threading.Event()
        for _ in range(30):
            clock.wait(0.05)
            client.sock.recv(64 * 1024)
        house.fact(TransferStarted)
        house.no_fact()


# --- limits ------------------------------------------------------------------------------------------------------


def test_twelve_hundred_slow_connections_lock_nobody_out(house: House) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1200):
            stack.enter_context(Client(house.port)).send(b"GET / HTTP/1.1\r\nA: ")
        for _ in range(20):
            assert stack.enter_context(Client(house.port)).get("/small.ipxe")[2] == SCRIPT


def test_at_the_cap_the_oldest_without_a_request_makes_room() -> None:
    limits = Limits(connections=20)
    with served(lambda *_: Reply(200, b"ok"), limits) as house, contextlib.ExitStack() as stack:
        kept = stack.enter_context(Client(house.port))
        kept.get("/")
        slow = [stack.enter_context(Client(house.port)) for _ in range(30)]
        for client in slow[:11]:
            assert client.ended()
        assert kept.get("/")[2] == b"ok"
        for client in slow[11:]:
            assert client.get("/")[2] == b"ok"


def test_at_the_cap_the_longest_idle_makes_room_next() -> None:
    limits = Limits(connections=5)
    with served(lambda *_: Reply(200, b"ok"), limits) as house, contextlib.ExitStack() as stack:
        clients = []
        for _ in range(8):
            clients.append(stack.enter_context(Client(house.port)))
            assert clients[-1].get("/")[2] == b"ok"
        assert all(client.ended() for client in clients[:3])
        assert all(client.get("/")[2] == b"ok" for client in clients[3:])


def test_at_the_cap_transfers_finish_and_others_wait(tree: PublishedDirectory) -> None:
    with served(of(tree), Limits(connections=3)) as house, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(Client(house.port, receive_buffer=SLOW)) for _ in range(3)]
        for client in busy:
            client.send(b"GET /big HTTP/1.1\r\nConnection: close\r\n\r\n")
            house.fact(TransferStarted)
        waiting = stack.enter_context(Client(house.port))
        waiting.send(b"GET /small.ipxe HTTP/1.1\r\n\r\n")
        assert all(client.answer()[2] == BIG for client in busy)
        for client in busy:
            client.close()
        assert waiting.answer()[2] == SCRIPT


def test_one_address_may_not_keep_many_waiting_requests_open() -> None:
    limits = Limits(slow=10, grace=0)
    with served(lambda *_: Reply(200, b"ok"), limits) as house, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Client(house.port)) for _ in range(15)]
        assert all(client.ended() for client in slow[:5])
        assert all(client.get("/")[2] == b"ok" for client in slow[5:])


def test_a_thousand_machines_behind_one_address(house: House) -> None:
    """All connect before the first one asks, as behind a slow router; nobody is turned away."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(house.port)) for _ in range(1000)]
        for client in clients:
            client.send(b"GET /small.ipxe HTTP/1.1\r\n\r\n")
        assert all(client.answer()[2] == SCRIPT for client in clients)


def test_running_out_of_descriptors_is_survived(tmp_path: Path) -> None:
    """The server may open 40; 100 connect, one after the other, and ask."""
    program = """
import resource, sys
from bootwire.serve.content import Reply
from bootwire.serve.http import HttpServer
from bootwire.serve.loop import Loop
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
loop = Loop()
server = HttpServer(loop, [("127.0.0.1", 0)], lambda request, peer: Reply(200, b"ok"), lambda fact: None)
print(server.addresses[0][1], flush=True)
loop.run()
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env={"PYTHONPATH": "src"})
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            for number in range(100):
                client = stack.enter_context(Client(port))
                if number % 2:
                    assert client.get("/")[2] == b"ok"
    finally:
        process.kill()
        process.communicate()


# --- hand-over and end -------------------------------------------------------------------------------------------


def test_a_connection_goes_to_somebody_else_and_comes_back(tree: PublishedDirectory) -> None:
    taken: queue.SimpleQueue[tuple[socket.socket, Request, Upstream, bytes]] = queue.SimpleQueue()
    upstream = Upstream("kernel", "http://192.0.2.1/kernel")

    def resolve(request: Request, peer: Peer) -> object:
        return upstream if request.path == "/kernel" else of(tree)(request, peer)

    with served(resolve, hand_over=lambda *given: taken.put(given)) as house, Client(house.port) as client:
        client.send(
            b"GET /small.ipxe HTTP/1.1\r\n\r\nGET /kernel HTTP/1.1\r\n\r\nGET /small.ipxe HTTP/1.1\r\n\r\nGET /re"
        )
        assert client.answer()[2] == SCRIPT
        sock, request, given, leftover = taken.get(timeout=20)
        assert (request.path, given) == ("/kernel", upstream)
        house.run(lambda: None)
        assert len(house.server) == 0
        sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        client.send(b"ply HTTP/1.1\r\n\r\n")
        house.loop.call_soon(lambda: house.server.adopt(sock, leftover))
        assert [client.answer()[2] for _ in range(3)] == [b"ok", SCRIPT, SCRIPT]


def test_without_anybody_to_hand_over_to_an_upstream_is_a_bad_gateway() -> None:
    with served(lambda *_: Upstream("kernel", "http://192.0.2.1/")) as house, Client(house.port) as client:
        assert client.get("/")[0] == 502


def test_stopping_lets_transfers_finish(tree: PublishedDirectory) -> None:
    stopped = threading.Event()
    with (
        served(of(tree)) as house,
        Client(house.port, receive_buffer=SLOW) as busy,
        Client(house.port) as idle,
        Client(house.port) as silent,
    ):
        idle.get("/small.ipxe")
        busy.send(b"GET /big HTTP/1.1\r\n\r\n")
        busy.sock.recv(1, socket.MSG_PEEK)
        house.run(lambda: house.server.stop(stopped.set))
        assert idle.ended()
        assert silent.ended()
        with pytest.raises(ConnectionRefusedError):
            Client(house.port)
        assert not stopped.is_set()
        assert busy.answer()[2] == BIG
        assert busy.ended()
        busy.close()
        assert stopped.wait(20)


def test_closing_tells_what_was_cut_off(house: House) -> None:
    with Client(house.port, receive_buffer=SLOW) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        house.fact(TransferStarted)
        house.run(house.server.close)
        failed = house.fact(TransferFailed)
        assert isinstance(failed, TransferFailed)
        assert failed.because == "the server stopped"


def test_a_port_in_use_is_said_before_anything_is_served() -> None:
    with served(lambda *_: Missing("no")) as house:
        loop = Loop()
        with pytest.raises(OSError, match="in use"):
            HttpServer(loop, [("127.0.0.1", 0), ("127.0.0.1", house.port)], lambda *_: Missing("no"), print)
        loop.close()


def test_a_request_that_had_to_wait_is_looked_up_again_and_the_connection_goes_on(tree: PublishedDirectory) -> None:
    taken: queue.SimpleQueue[tuple[socket.socket, Request, Later, bytes]] = queue.SimpleQueue()
    known: list[bytes] = []

    async def nothing() -> None:
        pass

    def resolve(request: Request, peer: Peer) -> object:
        if request.path == "/boot.ipxe":
            return Reply(200, known[0]) if known else Later(nothing)
        return of(tree)(request, peer)

    with served(resolve, hand_over=lambda *given: taken.put(given)) as house, Client(house.port) as client:
        client.send(b"GET /boot.ipxe HTTP/1.1\r\n\r\nGET /small.ipxe HTTP/1.1\r\n\r\nGET /small")
        sock, request, later, leftover = taken.get(timeout=20)
        assert isinstance(later, Later)
        known.append(b"#!ipxe\n")
        client.send(b".ipxe HTTP/1.1\r\n\r\n")
        house.loop.call_soon(lambda: house.server.adopt(sock, leftover, request))
        assert [client.answer()[2] for _ in range(3)] == [b"#!ipxe\n", SCRIPT, SCRIPT]
