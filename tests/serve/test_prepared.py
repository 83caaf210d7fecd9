"""Files asked for again: while their names lead to them nothing is looked up. Small ones are kept, large ones open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootwire.facts import TransferDone, TransferStarted
from bootwire.serve.answers import Answers
from bootwire.serve.content import Content, Later, Missing, Peer, Reply, Upstream
from bootwire.serve.files import STILL, PublishedDirectory
from bootwire.serve.prepared import CACHE, OPEN, UNUSED, PreparedAnswers
from bootwire.wire.http import Request
from http_rig import Client, House, served

LONG_AGO = (1_700_000_000, 1_700_000_000)  # Unix seconds: no file that may be changing just now
SCRIPT = b"#!ipxe\necho hello\n"
IMAGE = bytes(range(256)) * 1000  # too large to be kept in memory
S = 1_000_000_000


class Site:
    """A published directory, its clock, and the addresses of known machines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0
        self.machines: dict[str, str] = {}
        self.looked_up: list[str] = []
        self.directory = PublishedDirectory(str(path), clock=lambda: self.now)
        self._answers = Answers(
            {},
            first_script=lambda machine, ours: b"",
            boot_script=lambda machine, request, who, peer: Later(lambda: None),  # type: ignore[arg-type, return-value]
            machine_at=lambda address: self.machines.get(address, ""),
            published=self.directory,
            record=print,
        )

    def http(self, request: Request, peer: Peer) -> Content | Missing | Reply | Upstream | Later:
        self.looked_up.append(request.path)
        return self._answers.http(request, peer)

    def put(self, name: str, data: bytes) -> None:
        """As a careful operator does it; but it looks old."""
        (self.path / "new").write_bytes(data)
        os.utime(self.path / "new", LONG_AGO)
        (self.path / "new").rename(self.path / name)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "below").mkdir()
    made = Site(tmp_path)
    made.put("small.ipxe", SCRIPT)
    made.put("below/small.ipxe", SCRIPT)
    made.put("large.img", IMAGE)
    made.put("below/large.img", IMAGE)
    yield made
    made.directory.close()


@pytest.fixture
def house(site: Site) -> Iterator[House]:
    with served(site.http) as house:
        yield house


def test_the_same_request_is_looked_up_once_and_every_answer_is_a_fact(site: Site, house: House) -> None:
    with Client(house.port) as client, Client(house.port) as other:
        for _ in range(5):
            assert client.get("/files/small.ipxe")[2] == SCRIPT
            assert other.get("/files/small.ipxe")[2] == SCRIPT
    assert len(site.looked_up) == 2  # the first request of a connection says who it is
    facts = house.all_facts()
    assert len(facts) == 10
    for fact in facts:
        assert isinstance(fact, TransferDone)
        assert (fact.machine, fact.name, fact.peer, fact.octets) == ("", "small.ipxe", "127.0.0.1", len(SCRIPT))
        assert 0 < fact.seconds < 20


def test_every_answer_is_for_the_machine_that_has_the_address_now(site: Site, house: House) -> None:
    with Client(house.port) as client:
        for machine in ("", "52:54:00:00:00:01", "52:54:00:00:00:02"):
            site.machines["127.0.0.1"] = machine
            client.get("/files/small.ipxe")
            fact = house.fact(TransferDone)
            assert fact.machine == machine


def test_a_large_file_is_looked_up_once_too(site: Site, house: House) -> None:
    with Client(house.port) as client:
        for machine in ("", "52:54:00:00:00:01", "52:54:00:00:00:02"):
            site.machines["127.0.0.1"] = machine
            assert client.get("/files/large.img")[2] == IMAGE
            started, done = house.fact(TransferStarted), house.fact(TransferDone)
            assert (started.machine, started.name, started.octets) == (machine, "large.img", len(IMAGE))
            assert (done.machine, done.name, done.octets) == (machine, "large.img", len(IMAGE))
    assert len(site.looked_up) == 1


def test_large_files_held_open_are_few(site: Site, house: House) -> None:
    for number in range(2 * OPEN):
        site.put(f"large-{number}.img", IMAGE)
    with Client(house.port) as client:
        for _ in range(2):
            for number in range(2 * OPEN):
                assert client.get(f"/files/large-{number}.img")[2] == IMAGE
        assert len(held(site)) == OPEN
        house.run(house.server.close)
    assert held(site) == []


def test_a_file_nobody_asks_for_any_more_is_let_go(site: Site, house: House) -> None:
    with Client(house.port) as client:
        client.get("/files/large.img")
        assert [path.name for path in held(site)] == ["large.img"]
        (site.path / "large.img").unlink()
        prepared, now = house.server.prepared, house.loop.now
        house.run(lambda: prepared.close_unused(now))
        assert prepared.holds_files
        house.run(lambda: prepared.close_unused(now + UNUSED))
    assert held(site) == []


def test_a_small_file_that_is_not_in_memory_is_sent_once(tmp_path: Path) -> None:
    """Such as one that was shorter than its size when it was read."""
    (tmp_path / "f").write_bytes(SCRIPT)

    def resolve(request: Request, peer: Peer) -> Content:
        return Content("f", len(SCRIPT), None, os.open(tmp_path / "f", os.O_RDONLY), 1, again=lambda peer: "")

    with served(resolve) as house, Client(house.port) as client:
        for _ in range(3):
            assert client.get("/f")[2] == SCRIPT


def held(site: Site) -> list[Path]:
    """What this process has open in the published directory, each file once."""
    links = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if is_open(fd)}
    return [Path(link) for link in links if link.startswith(f"{site.path}/")]


def is_open(fd: str) -> bool:
    """Not the one that listed the directory."""
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("name", ["small.ipxe", "below/small.ipxe", "link", "large.img", "below/large.img"])
@pytest.mark.parametrize("change", [
    lambda site, name: site.put(name, b"#!ipxe\necho HELLO\n"),
    lambda site, name: (site.path / name).write_bytes(b"changed"),
    lambda site, name: (site.path / name).unlink(),
], ids=["replaced", "overwritten", "removed"])  # fmt: skip
def test_a_file_that_changed_is_read_again(
    site: Site, house: House, name: str, change: Callable[[Site, str], object]
) -> None:
    (site.path / "link").symlink_to("small.ipxe")
    before = (site.path / name).read_bytes()
    with Client(house.port) as client:
        for _ in range(3):
            assert client.get(f"/files/{name}")[2] == before
        change(site, name)
        site.now += STILL
        expected = (site.path / name).read_bytes() if (site.path / name).exists() else None
        status, _, body = client.get(f"/files/{name}")
        assert (status, body if expected is not None else None) == (200 if expected is not None else 404, expected)


def test_a_link_is_followed_from_memory_too(site: Site, house: House) -> None:
    (site.path / "link").symlink_to("below/small.ipxe")
    with Client(house.port) as client:
        for _ in range(5):
            site.now += STILL
            assert client.get("/files/link")[2] == SCRIPT
    assert len(site.looked_up) == 1


@pytest.mark.parametrize("fields", [
    ("Range: bytes=2-5",), ('If-None-Match: "other"',), ("Connection: close",), ("Connection: Keep-Alive",),
])  # fmt: skip
def test_requests_that_want_something_else_get_it(house: House, fields: tuple[str, ...]) -> None:
    with Client(house.port) as client:
        for _ in range(2):
            client.get("/files/small.ipxe")
        status, headers, body = client.get("/files/small.ipxe", *fields)
        assert body == (SCRIPT[2:6] if status == 206 else SCRIPT)
        assert ("content-range" in headers) is fields[0].startswith("Range")
        assert (headers.get("connection") == "close") is (fields == ("Connection: close",))


def test_a_peer_that_does_not_read_gets_everything_in_the_end(house: House) -> None:
    request = b"GET /files/small.ipxe HTTP/1.1\r\nHost: x\r\n\r\n"
    with Client(house.port, receive_buffer=4096) as client:
        count = 0
        client.sock.settimeout(0.2)
        try:
            while count < 200_000:
                client.send(request)
                count += 1
        except TimeoutError:  # the server's queue is full, and so is ours: part of one more request is on its way
            pass
        client.sock.settimeout(20)
        for _ in range(count):
            assert client.answer()[2] == SCRIPT


def test_a_request_in_two_pieces_is_one_request(site: Site, house: House) -> None:
    request = b"GET /files/small.ipxe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with Client(house.port) as client:
        for _ in range(2):
            client.send(request)
            client.answer()
        client.send(b"\r\n")
        house.run(lambda: None)
        client.send(request)
        assert client.answer()[2] == SCRIPT


def test_the_date_goes_on() -> None:
    wall = 1_700_000_000.5
    answers = PreparedAnswers(lambda: wall)
    content = Content("a", 1, b"a", again=lambda peer: "")
    response = answers.whole(content, 0)
    assert response is not None
    answers.put(b"GET", content, response, 0)
    prepared = answers.get(b"GET")
    assert prepared is not None
    assert answers.response(prepared, S // 2 - 1) == response
    wall += 0.5
    later = answers.response(prepared, S // 2)
    assert later == response.replace(b"22:13:20", b"22:13:21")
    assert b"22:13:21" in later


def test_what_is_kept_is_bounded() -> None:
    answers = PreparedAnswers()
    content = Content("a", 60_000, bytes(60_000), again=lambda peer: "")
    response = answers.whole(content, 0)
    assert response is not None
    for number in range(1000):
        answers.put(b"%d" % number, content, response, 0)
        answers.put(b"%d" % number, content, response, 0)
    kept = sum(answers.get(b"%d" % number) is not None for number in range(1000))
    assert 0 < kept * len(response) <= CACHE
    for number in range(100_000):
        answers.put(b"%d" % number, content, b"", 0)
    assert 0 < sum(answers.get(b"%d" % number) is not None for number in range(100_000)) <= 4096
