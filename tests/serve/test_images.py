"""Sealed links answered over HTTP: for whom and until when, out of the cache while it fills, and proven files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.facts import ImageFetched, ImageRefused, SizeProbed
from bootwire.policy.target import Image
from bootwire.serve.cache import Cache
from bootwire.serve.content import Later, Peer, Upstream
from bootwire.serve.images import LIFETIME, Images
from bootwire.serve.seals import Seals
from bootwire.serve.upstream import Streamer
from bootwire.serve.upstreams import Settings, Upstreams
from bootwire.serve.waiting import Waiting
from bootwire.wire.http import Request
from http_rig import PATIENCE, Client, House, origin, served
from serve.openpgp import detached, keyring

IMAGE = random.Random(9).randbytes(1_500_000)
SHA256 = hashlib.sha256(IMAGE).hexdigest()
MAC, OTHER = "52:54:00:12:34:56", "52:54:00:00:00:01"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Place:
    """A server of images on loopback: both loops, and a clock that stands."""

    def __init__(self, house: House, images: Images) -> None:
        self.house, self.images, self.at = house, images, 1_700_000_000.0

    def get(
        self, image: Image, machine: str = MAC, method: str = "GET", *fields: str
    ) -> tuple[int, dict[str, str], bytes]:
        path = self.images.link(machine, "")(image, "kernel")
        with Client(self.house.port) as client:
            return client.get(path, *fields, method=method)


@contextlib.contextmanager
def serving(folder: Path, here: str = "", size: int = 10**9, keep: bool = True) -> Iterator[Place]:
    """here: the machine that is known to be at 127.0.0.1."""
    control = asyncio.new_event_loop()
    thread = threading.Thread(target=control.run_forever)
    thread.start()
    upstreams = Upstreams(Settings())
    cache = Cache(folder, upstreams, size=size)
    places: list[Place] = []
    images = Images(Seals(bytes(32)), cache, upstreams, keep=keep, wall=lambda: places[0].at)
    images._machine_at = lambda _: here

    def resolve(request: Request, peer: Peer) -> object:
        return images.room(request.path.removeprefix("/image/"), request, peer)

    def give_back(sock: socket.socket, leftover: bytes, request: Request | None = None) -> None:
        house.loop.call_soon(lambda: house.server.adopt(sock, leftover, request))

    streamer = Streamer(control, lambda fact: house.facts.put(fact), give_back, upstreams)
    waiting = Waiting(control, lambda fact: house.facts.put(fact), give_back)

    def take(sock: socket.socket, request: Request, found: Upstream | Later, leftover: bytes) -> None:
        (streamer.take if isinstance(found, Upstream) else waiting.take)(sock, request, found, leftover)  # type: ignore[operator]

    async def end() -> None:
        await streamer.close()
        await waiting.close()
        await images.close()

    try:
        with served(resolve, hand_over=take) as house:
            cache.record = house.facts.put
            places.append(Place(house, images))
            try:
                yield places[0]
            finally:
                asyncio.run_coroutine_threadsafe(end(), control).result(PATIENCE)
    finally:
        control.call_soon_threadsafe(control.stop)
        thread.join(PATIENCE)
        control.close()


def whole(request: str, sock: socket.socket, number: int) -> object:
    fields = f'HTTP/1.1 200 OK\r\nContent-Length: {len(IMAGE)}\r\nETag: "one"\r\n\r\n'
    sock.sendall(fields.encode() + IMAGE)
    return None


def chunked(request: str, sock: socket.socket, number: int) -> object:
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(IMAGE), 300_000):
        piece = IMAGE[at : at + 300_000]
        sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    sock.sendall(b"0\r\n\r\n")
    return None


# --- for whom, until when ----------------------------------------------------------------------------------------


def test_another_machines_url_is_refused_with_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(IMAGE)
    with serving(tmp_path / "cache", here=OTHER) as place:
        status, _, body = place.get(Image(str(tmp_path / "k")), MAC)
        assert (status, body.decode()) == (403, f"this URL was made for {MAC}, not for {OTHER}\n")
        assert place.get(Image(str(tmp_path / "k")), OTHER)[2] == IMAGE
        assert place.get(Image(str(tmp_path / "k")), "")[2] == IMAGE


def test_a_url_ends_when_its_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(IMAGE)
    with serving(tmp_path / "cache") as place:
        path = place.images.link(MAC, "")(Image(str(tmp_path / "k")), "kernel")
        place.at += LIFETIME + 5
        with Client(place.house.port) as client:
            status, _, body = client.get(path)
        assert (status, body) == (403, b"the URL has expired 5 s ago\n")


def test_a_token_of_another_purpose_is_refused_and_says_of_which(tmp_path: Path) -> None:
    with serving(tmp_path / "cache") as place, Client(place.house.port) as client:
        token = place.images.seals.seal("doc", MAC, ("/etc/passwd", "", "k", ""), place.at, 60)
        status, _, body = client.get(f"/image/{token}/kernel")
        assert (status, body) == (403, b"the URL is good for something else (doc), not for this\n")


# --- while it comes ----------------------------------------------------------------------------------------------


def test_a_machine_gets_octets_before_all_of_them_are_here(tmp_path: Path) -> None:
    go = threading.Event()

    def held(request: str, sock: socket.socket, number: int) -> object:
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE[:1_100_000])
        assert go.wait(PATIENCE)
        sock.sendall(IMAGE[1_100_000:])
        return None

    with origin(held) as there, serving(tmp_path / "cache") as place, Client(place.house.port) as client:
        path = place.images.link(MAC, "")(Image(there.url), "kernel")
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert client.head()[0] == 200
        while len(client.rest) < 1_100_000:
            client.more()
        go.set()
        while len(client.rest) < len(IMAGE):
            client.more()
        assert client.rest == IMAGE
        assert len(there.heads) == 1


def test_an_image_whose_size_nobody_tells_is_kept_and_given_as_it_comes(tmp_path: Path) -> None:
    with origin(chunked) as there, serving(tmp_path / "cache") as place:
        with Client(place.house.port) as client:
            client.send(f"GET {place.images.link(MAC, '')(Image(there.url), 'kernel')} HTTP/1.0\r\n\r\n".encode())
            assert client.all().partition(b"\r\n\r\n")[2] == IMAGE
        status, headers, body = place.get(Image(there.url))
        assert (status, headers["content-length"], body == IMAGE) == (200, str(len(IMAGE)), True)
        assert len(there.heads) == 1


def test_parts_and_heads_are_answered_while_it_comes(tmp_path: Path) -> None:
    with origin(whole) as there, serving(tmp_path / "cache") as place:
        status, headers, body = place.get(Image(there.url), MAC, "GET", "Range: bytes=1000000-1000099")
        assert (status, body) == (206, IMAGE[1_000_000:1_000_100])
        assert (headers["etag"], headers["content-range"]) == ('"one"', f"bytes 1000000-1000099/{len(IMAGE)}")
        assert place.get(Image(there.url + "/x"), MAC, "HEAD")[1]["content-length"] == str(len(IMAGE))
        while not isinstance(place.house.facts.get(timeout=PATIENCE), SizeProbed):
            pass


def test_what_goes_on_after_it_is_whole_has_the_same_tag(tmp_path: Path) -> None:
    with origin(whole) as there, serving(tmp_path / "cache") as place:
        first = place.get(Image(there.url))
        again = place.get(Image(there.url), MAC, "GET", "Range: bytes=5-", f"If-Range: {first[1]['etag']}")
        assert (again[0], again[2]) == (206, IMAGE[5:])
        assert len(there.heads) == 1


@pytest.mark.parametrize("cannot", ["folder", "size"])
def test_what_cannot_be_kept_is_streamed(tmp_path: Path, cannot: str) -> None:
    if cannot == "folder":
        (tmp_path / "cache").write_bytes(b"a file where a folder should be")
    with origin(whole) as there, serving(tmp_path / "cache", size=10**9 if cannot == "folder" else 1000) as place:
        for _ in range(2):
            assert place.get(Image(there.url))[2] == IMAGE


def test_what_is_pinned_and_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file where a folder should be")
    with origin(whole) as there, serving(tmp_path / "cache") as place:
        status, _, body = place.get(Image(there.url, SHA256))
        assert (status, b"cannot be kept" in body) == (502, True)
        assert IMAGE not in body
        assert any(isinstance(fact, ImageRefused) for fact in place.house.all_facts())


def test_an_upstream_that_dies_for_good_ends_the_answer_early(tmp_path: Path) -> None:
    go = threading.Event()

    def dies(request: str, sock: socket.socket, number: int) -> object:
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE[:1000])
        go.wait(PATIENCE)
        return "close"

    with origin(dies) as there, serving(tmp_path / "cache") as place, Client(place.house.port) as client:
        client.send(
            f"GET {place.images.link(MAC, '')(Image(there.url), 'kernel')} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        )
        assert client.head()[0] == 200
        go.set()
        with contextlib.suppress(ConnectionResetError):
            client.all()
        assert len(client.rest) <= 1000
        assert os.listdir(tmp_path / "cache") == []


# --- proven ------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(tmp_path: Path) -> Image:
    """A file of this machine with a good signature."""
    (tmp_path / "k").write_bytes(IMAGE)
    (tmp_path / "k.sig").write_bytes(detached(IMAGE))
    (tmp_path / "ring.gpg").write_bytes(keyring())
    return Image(str(tmp_path / "k"), "", str(tmp_path / "k.sig"), str(tmp_path / "ring.gpg"))


def test_a_local_file_with_its_digest_is_served_at_once_after_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(IMAGE)
    with serving(tmp_path / "cache") as place:
        assert place.get(Image(str(tmp_path / "k"), SHA256))[2] == IMAGE
        (tmp_path / "k").write_bytes(IMAGE[::-1])
        status, _, body = place.get(Image(str(tmp_path / "k"), SHA256))
        assert (status, SHA256 in body.decode()) == (403, True)


def test_a_signed_local_file_is_served_and_a_changed_one_is_not(tmp_path: Path, signed: Image) -> None:
    with serving(tmp_path / "cache") as place:
        assert place.get(signed)[2] == IMAGE
        (tmp_path / "k").write_bytes(b"another kernel")
        status, _, body = place.get(signed)
        assert (status, b"signature is bad" in body) == (403, True)


@pytest.mark.parametrize("good", [True, False])
def test_an_image_of_another_server_is_served_only_with_its_signature(
    tmp_path: Path, signed: Image, good: bool
) -> None:
    def both(request: str, sock: socket.socket, number: int) -> object:
        body = detached(IMAGE if good else b"something else") if "/k.sig " in request else IMAGE
        sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return None

    with origin(both) as there, serving(tmp_path / "cache", keep=False) as place:
        status, _, body = place.get(Image(there.url + "/k", "", there.url + "/k.sig", signed.keys))
        facts = place.house.all_facts()
        if good:
            assert (status, body == IMAGE) == (200, True)
            assert any(isinstance(fact, ImageFetched) for fact in facts)
        else:
            assert (status, b"signature is bad" in body) == (502, True)
            assert any(isinstance(fact, ImageRefused) for fact in facts)
