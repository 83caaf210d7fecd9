"""Kernels that live at another server: passed through whole or in parts, at the machine's pace, past every failure."""

import asyncio
import random
import re
import socket
import threading
from collections.abc import Callable

import pytest

from bootwire.facts import SizeProbed, TransferDone, TransferFailed, TransferStarted
from bootwire.serve import upstream, upstreams
from http_rig import PATIENCE, SLOW, Client, House, origin, streaming

KERNEL = random.Random(3).randbytes(6_000_000)
MACHINE = "52:54:00:12:34:56"
Script = Callable[[str, socket.socket, int], object]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(upstream, "RESUME_SECONDS", 0.01)


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


def kernel(data: bytes = KERNEL, *fields: str, dies_after: tuple[int, ...] = (), ranges: bool = True) -> Script:
    """Serves `data`; answer number n breaks off after `dies_after[n]` octets."""

    def script(request: str, sock: socket.socket, number: int) -> object:
        part = re.search(r"(?i)^range: bytes=(\d+)-(\d*)\r$", request, re.MULTILINE) if ranges else None
        if part:
            start, stop = int(part[1]), int(part[2] or len(data) - 1) + 1
            answer = head(
                "206 Partial",
                f"Content-Length: {stop - start}",
                f"Content-Range: bytes {start}-{stop - 1}/{len(data)}",
                *fields,
            )
        else:
            start, stop = 0, len(data)
            answer = head("200 OK", f"Content-Length: {stop}", *fields)
        if request.startswith("HEAD"):
            sock.sendall(answer)
            return None
        if number < len(dies_after):
            sock.sendall(answer + data[start:stop][: dies_after[number]])
            return "close"
        sock.sendall(answer + data[start:stop])
        return None

    return script


def says(answer: bytes) -> Script:
    def script(request: str, sock: socket.socket, number: int) -> object:
        sock.sendall(answer)
        return "close"

    return script


def failed(house: House) -> TransferFailed:
    fact = house.fact(TransferFailed)
    assert isinstance(fact, TransferFailed)
    return fact


# --- what goes through -------------------------------------------------------------------------------------------


def test_a_kernel_goes_through_and_the_connection_comes_back() -> None:
    with origin(kernel(KERNEL, 'ETag: "k"', "Server: other")) as there, streaming(there.url) as house:
        with Client(house.port) as client:
            for _ in range(2):
                status, headers, body = client.get("/kernel")
                assert (status, body) == (200, KERNEL)
                assert headers["content-type"] == "application/efi"
                assert (headers["etag"], headers["server"]) == ('"k"', "bootwire")
                assert client.get("/here")[2] == b"from here"
        assert house.fact(TransferStarted) == TransferStarted(
            MACHINE, "http", "kernel", "127.0.0.1", len(KERNEL), "streamed from 127.0.0.1"
        )
        done = house.fact(TransferDone)
        assert isinstance(done, TransferDone)
        assert (done.octets, done.machine) == (len(KERNEL), MACHINE)


def test_what_was_sent_ahead_is_answered_afterwards() -> None:
    with origin(kernel(b"kernel")) as there, streaming(there.url) as house, Client(house.port) as client:
        client.send(b"GET /k HTTP/1.1\r\n\r\nGET /here HTTP/1.1\r\n\r\nGET /k HTTP/1.1\r\n\r\n")
        assert [client.answer()[2] for _ in range(3)] == [b"kernel", b"from here", b"kernel"]


def test_upstream_is_asked_for_plain_octets_in_its_own_name() -> None:
    with origin(kernel(b"kernel")) as there, streaming(there.url + "/a%2Fb?sig=x%2By") as house:
        with Client(house.port) as client:
            client.get("/kernel?mac=1", "Cookie: secret", "Authorization: secret")
        assert there.heads[0].startswith("GET /a%2Fb?sig=x%2By HTTP/1.1\r\n")
        assert f"Host: {there.url.removeprefix('http://')}\r\n" in there.heads[0]
        assert "Accept-Encoding: identity\r\n" in there.heads[0]
        assert "secret" not in there.heads[0]


def test_a_head_costs_no_octets() -> None:
    with origin(kernel()) as there, streaming(there.url) as house, Client(house.port) as client:
        status, headers, _ = client.get("/kernel", method="HEAD")
        assert (status, headers["content-length"]) == (200, str(len(KERNEL)))
        assert house.fact(SizeProbed) == SizeProbed(MACHINE, "kernel", "127.0.0.1", len(KERNEL), "http")
        assert client.get("/here")[0] == 200


def test_an_upstream_that_refuses_head_is_asked_otherwise() -> None:
    def script(request: str, sock: socket.socket, number: int) -> object:
        if request.startswith("HEAD"):
            sock.sendall(head("403 Forbidden", "Content-Length: 0"))
            return None
        return kernel()(request, sock, number)

    with origin(script) as there, streaming(there.url) as house, Client(house.port) as client:
        assert client.get("/kernel", method="HEAD")[1]["content-length"] == str(len(KERNEL))


def test_a_part_goes_through() -> None:
    with origin(kernel()) as there, streaming(there.url) as house, Client(house.port) as client:
        status, headers, body = client.get("/kernel", "Range: bytes=1000-1999999", 'If-Range: "k"')
        assert (status, body) == (206, KERNEL[1000:2_000_000])
        assert headers["content-range"] == f"bytes 1000-1999999/{len(KERNEL)}"
        assert 'if-range: "k"' in there.heads[0].lower()


def test_several_parts_are_answered_with_the_whole() -> None:
    with origin(kernel(b"kernel")) as there, streaming(there.url) as house, Client(house.port) as client:
        assert client.get("/kernel", "Range: bytes=0-0,2-2")[::2] == (200, b"kernel")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (head("304 Not Modified", 'ETag: "k"'), 304),
        (head("412 Precondition Failed", "Content-Length: 4") + b"text", 412),
        (head("416 Range Not Satisfiable", "Content-Range: bytes */10", "Content-Length: 0"), 416),
    ],
)
def test_answers_without_content_go_through(said: bytes, status: int) -> None:
    with origin(says(said)) as there, streaming(there.url) as house, Client(house.port) as client:
        assert client.get("/kernel")[0] == status
        assert client.get("/here")[2] == b"from here"


def test_a_redirect_is_followed() -> None:
    with origin(kernel(b"kernel")) as there:
        moved = says(head("302 Found", f"Location: {there.url}/moved", "Content-Length: 0"))
        with origin(moved) as first, streaming(first.url) as house, Client(house.port) as client:
            assert client.get("/kernel")[2] == b"kernel"
        assert there.heads[0].startswith("GET /moved ")


def test_content_of_unknown_length_comes_in_chunks() -> None:
    said = head("200 OK", "Connection: close") + b"kernel of unknown length"
    with origin(says(said)) as there, streaming(there.url) as house:
        with Client(house.port) as client:
            client.send(b"GET /kernel HTTP/1.1\r\n\r\n")
            assert client.head()[1]["transfer-encoding"] == "chunked"
            while not client.rest.endswith(b"0\r\n\r\n"):
                client.more()
            assert re.sub(rb"[0-9a-f]+\r\n(.*?)\r\n", rb"\1", client.rest, flags=re.DOTALL) == (
                b"kernel of unknown length"
            )
            client.rest = b""
            assert client.get("/here")[0] == 200
        with Client(house.port) as client:
            client.send(b"GET /kernel HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert client.head()[1]["connection"] == "close"
            assert client.all() == b"kernel of unknown length"


def test_compressed_content_of_a_kind_stays_as_it_is() -> None:
    """Apache's AddEncoding marks initrd.gz so, and every loader wants the octets of the file."""
    marked = kernel(b"\x1f\x8b gz", "Content-Encoding: x-gzip")
    with origin(marked) as there, streaming(there.url) as house, Client(house.port) as client:
        _, headers, body = client.get("/initrd.gz")
        assert body == b"\x1f\x8b gz"
        assert "content-encoding" not in headers


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with origin(kernel(b"by proxy")) as proxy, streaming("http://kernels.invalid/vmlinuz") as house:
        monkeypatch.setenv("http_proxy", proxy.url)
        with Client(house.port) as client:
            assert client.get("/kernel")[2] == b"by proxy"
        assert proxy.heads[0].startswith("GET http://kernels.invalid/vmlinuz HTTP/1.1\r\n")


def test_no_proxy_is_used_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with origin(kernel(b"direct")) as there, streaming(there.url) as house, Client(house.port) as client:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert client.get("/kernel")[2] == b"direct"


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validator", ['ETag: "k"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"])
def test_an_upstream_that_dies_is_asked_for_the_rest(validator: str) -> None:
    script = kernel(KERNEL, validator, dies_after=(1_000_000, 0, 70_000, 2_000_000))
    with origin(script) as there, streaming(there.url) as house, Client(house.port) as client:
        assert client.get("/kernel")[2] == KERNEL
        assert client.get("/here")[0] == 200
        again = there.heads[1]
        assert f"Range: bytes=1000000-{len(KERNEL) - 1}\r\n" in again
        assert f"If-Range: {validator.partition(': ')[2]}\r\n" in again


def test_a_part_that_breaks_off_is_completed() -> None:
    with origin(kernel(KERNEL, 'ETag: "k"', dies_after=(500_000,))) as there, streaming(there.url) as house:
        with Client(house.port) as client:
            assert client.get("/kernel", "Range: bytes=1000000-1999999")[2] == KERNEL[1_000_000:2_000_000]
        assert "Range: bytes=1500000-1999999\r\n" in there.heads[1]


@pytest.mark.parametrize(
    ("fields", "ranges", "because"),
    [
        ((), True, "cannot be asked for the rest"),
        (('ETag: W/"k"',), True, "cannot be asked for the rest"),
        (('ETag: "k"',), False, "answers 200 when asked for the rest"),
    ],
)
def test_an_upstream_that_cannot_go_on_ends_the_connection(fields: tuple[str, ...], ranges: bool, because: str) -> None:
    script = kernel(KERNEL, *fields, dies_after=(1_000_000,), ranges=ranges)
    with origin(script) as there, streaming(there.url) as house, Client(house.port) as client:
        with pytest.raises(ConnectionResetError):
            client.get("/kernel")
        house.fact(TransferStarted)
        fact = failed(house)
        assert because in fact.because
        assert fact.octets == 1_000_000


def test_an_upstream_that_stays_dead_is_given_up() -> None:
    with origin(kernel(KERNEL, 'ETag: "k"', dies_after=(1000, *(0,) * 50))) as there, streaming(there.url) as house:
        with Client(house.port) as client, pytest.raises(ConnectionResetError):
            client.get("/kernel")
        house.fact(TransferStarted)
        assert failed(house).octets == 1000


@pytest.mark.parametrize(
    ("said", "because"),
    [
        (head("404 Not Found", "Content-Length: 0"), "127.0.0.1 answers 404 Not Found"),
        (head("503 Busy", "Content-Length: 0"), "127.0.0.1 answers 503 Busy"),
        (head("401 \x1b[2J", "Content-Length: 0"), "127.0.0.1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "127.0.0.1 cannot be asked"),
        (b"", "127.0.0.1 cannot be asked"),
        (head("206 Partial", "Content-Length: 3") + b"abc", "a part that it does not describe"),
        (head("206 Partial", "Content-Length: 3", "Content-Range: bytes 0-5/6") + b"abc", "a part that it does not"),
        (head("302 Found", "Location: ftp://127.0.0.1/", "Content-Length: 0"), "127.0.0.1"),
    ],
)
def test_an_upstream_that_answers_badly_is_a_bad_gateway(said: bytes, because: str) -> None:
    with origin(says(said)) as there, streaming(there.url) as house, Client(house.port) as client:
        status, _, body = client.get("/kernel")
        assert status == 502
        fact = failed(house)
        assert because in fact.because
        assert fact.because.isprintable()
        assert body.decode() == fact.because + "\n"
        assert client.get("/here")[0] == 200


def test_an_upstream_that_is_not_there_is_a_bad_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    with streaming(url) as house, Client(house.port) as client:
        assert client.get("/kernel")[0] == 502
        assert client.get("/kernel", method="HEAD")[0] == 502


def test_an_endless_redirect_is_a_bad_gateway() -> None:
    with origin(says(head("302 Found", "Location: /", "Content-Length: 0"))) as there, streaming(there.url) as house:
        with Client(house.port) as client:
            assert client.get("/kernel")[0] == 502
        assert len(there.heads) <= upstreams.REDIRECTS + 1


def test_an_upstream_that_says_nothing_is_a_bad_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "READ_SECONDS", 0.2)
    with origin(lambda *_: None) as there, streaming(there.url) as house, Client(house.port) as client:
        assert client.get("/kernel")[0] == 502
        assert "did not answer in time" in failed(house).because


def test_an_upstream_that_falls_silent_is_asked_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "READ_SECONDS", 0.2)
    whole = kernel(KERNEL, 'ETag: "k"')

    def script(request: str, sock: socket.socket, number: int) -> object:
        if number:
            return whole(request, sock, number)
        sock.sendall(head("200 OK", f"Content-Length: {len(KERNEL)}", 'ETag: "k"') + KERNEL[:1000])
        return None

    with origin(script) as there, streaming(there.url) as house, Client(house.port) as client:
        assert client.get("/kernel")[2] == KERNEL


def test_a_machine_that_does_not_read_holds_the_upstream_back() -> None:
    """Octets in flight are what the kernels' buffers hold, however long the content is."""
    sent, done = [0], threading.Event()
    size = 200_000_000

    def script(request: str, sock: socket.socket, number: int) -> object:
        sock.sendall(head("200 OK", f"Content-Length: {size}"))
        for _ in range(size // 100_000):
            sock.sendall(bytes(100_000))
            sent[0] += 100_000
        done.set()
        return None

    with origin(script) as there, streaming(there.url) as house, Client(house.port, receive_buffer=SLOW) as client:
        client.send(b"GET /kernel HTTP/1.1\r\n\r\n")
        client.head()
        before, clock = -1, threading.Event()
        while before != sent[0]:
            before = sent[0]
            clock.wait(0.3)
        assert sent[0] < 40_000_000
        client.reset()
        house.fact(TransferStarted)
        assert "closed the connection" in failed(house).because
    assert not done.is_set()


def test_a_machine_that_stalls_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "STALL_SECONDS", 0.2)
    data = bytes(20_000_000)
    with (
        origin(kernel(data)) as there,
        streaming(there.url) as house,
        Client(house.port, receive_buffer=SLOW) as client,
    ):
        client.send(b"GET /kernel HTTP/1.1\r\n\r\n")
        house.fact(TransferStarted)
        assert "next to nothing" in failed(house).because


def test_too_many_machines_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "STREAMS", 1)
    data = bytes(20_000_000)
    with origin(kernel(data)) as there, streaming(there.url) as house, Client(house.port, receive_buffer=SLOW) as first:
        first.send(b"GET /kernel HTTP/1.1\r\n\r\n")
        first.head()
        with Client(house.port) as second:
            status, headers, _ = second.get("/kernel")
            assert (status, headers["retry-after"]) == (503, "5")
        first.reset()


def test_connections_that_are_not_kept_end() -> None:
    with origin(kernel(b"kernel")) as there, streaming(there.url) as house:
        for version in ("1.0", "1.1"):
            with Client(house.port) as client:
                assert client.get("/kernel", "Connection: close", version=version)[2] == b"kernel"
                assert client.ended()


def test_closing_ends_streams_under_way() -> None:
    data = bytes(20_000_000)
    with (
        origin(kernel(data)) as there,
        streaming(there.url) as house,
        Client(house.port, receive_buffer=SLOW) as client,
    ):
        client.send(b"GET /kernel HTTP/1.1\r\n\r\n")
        client.head()
        house.fact(TransferStarted)
        asyncio.run_coroutine_threadsafe(house.streamer.close(), house.control).result(PATIENCE)
        assert failed(house).because == "the server stopped"
        with pytest.raises(ConnectionResetError):
            client.all()
