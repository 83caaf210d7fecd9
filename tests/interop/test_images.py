"""Images of other servers through the running product: storms, restarts, dead upstreams, proxies, forgeries.

Three hosts on one bridge: Bootwire (10.9.0.1), machines (10.9.0.2), an origin and a proxy (10.9.0.3).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from namespaces import Namespace, lan
from origin_program import PROGRAM, octets
from product import ROOT, Server

pytestmark = pytest.mark.interop

OURS, ORIGIN = "http://10.9.0.1:8080", "http://10.9.0.3:8000"
SIZE = 20_000_000  # octets; benchmarks/cache.py does 200 MB
IMAGE = octets(SIZE)
SHA256 = hashlib.sha256(IMAGE).hexdigest()
MACHINES = 200
MOST_MEMORY = 200 * 1024  # KiB resident, at most, while 200 machines are served: a tenth of what they ask for
PATIENCE = 60.0


@dataclass
class Place:
    """What the tests start from; `serve` starts the product with a fleet of one profile."""

    ours: Namespace
    client: Namespace
    theirs: Namespace
    folder: Path

    def serve(self, kernel: str, *options: str, **keys: str) -> Server:
        more = "".join(f', {key} = "{value}"' for key, value in keys.items())
        fleet = self.folder / "fleet.toml"
        fleet.write_text(
            f'[server]\nhttp-port = 8080\n[profiles.p]\nkernel = {{ location = "{kernel}"{more} }}\n'
            '[[group]]\nname = "all"\nprofile = "p"\n'
        )
        state = ("--state-dir", str(self.folder / "state"), "--no-fetch", "--json")
        server = Server(self.ours, str(fleet), *state, *options, verb="serve")
        server.ready()
        return server

    def boot(self, kernel: str, *options: str) -> Server:
        """The product in static mode."""
        state = ("--state-dir", str(self.folder / "state"), "--no-fetch", "--json", "--http-port", "8080")
        server = Server(self.ours, kernel, *state, *options)
        server.ready()
        return server

    def link(self, machine: str = "52-54-00-12-34-56") -> str:
        """The kernel's URL in a machine's script."""
        script = self.curl(f"{OURS}/boot.ipxe?mac={machine}&arch=i386&platform=pcbios")[1].decode()
        found = re.search(r"kernel --name kernel (\S+)", script)
        assert found, script
        return found[1]

    def curl(self, url: str, *options: str) -> tuple[int, bytes]:
        """Status and body."""
        command = ["curl", "-s", "-m", str(PATIENCE), "-w", "%{stderr}%{http_code}", *options, url]
        done = self.client.call(lambda: subprocess.run(command, check=False, capture_output=True))
        return int(done.stderr), done.stdout

    def fetched(self) -> list[list[str]]:
        """Path, range and number of octets of each answer of the origin's, but for looks at the image's head."""
        calls = json.loads(self.curl(f"{ORIGIN}/calls")[1])
        return [call for call in calls if not call[1].startswith("bytes=0-")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with lan(3) as (ours, client, theirs), program(theirs, client, 8000, sys.executable, "-c", PROGRAM, str(SIZE)):
        yield Place(ours, client, theirs, tmp_path)


@contextlib.contextmanager
def program(where: Namespace, client: Namespace, port: int, *command: str) -> Iterator[None]:
    """A program of the third host, until it answers at its port."""
    process = where.start(*command)

    def connect() -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("10.9.0.3", port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until, command
                time.sleep(0.05)

    try:
        client.call(connect)
        yield
    finally:
        process.kill()
        process.wait()


class Asking:
    """A machine in the middle of its download. slow: little of it is under way."""

    def __init__(self, client: Namespace, url: str, *, slow: bool = False) -> None:
        host, _, path = url.removeprefix("http://").partition("/")
        address, _, port = host.partition(":")
        self.sock = client.call(socket.socket)
        if slow:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.sock.settimeout(PATIENCE)
        self.sock.connect((address, int(port)))
        request = (f"GET /{path} HTTP/1.1", f"Host: {host}", "Connection: close", "", "")
        self.sock.sendall("\r\n".join(request).encode())
        self.got = bytearray()

    def read(self) -> bool:
        """Take what there is; False at the end."""
        piece = self.sock.recv(1 << 18)
        self.got += piece
        return bool(piece)

    @property
    def body(self) -> memoryview:
        end = self.got.index(b"\r\n\r\n") + 4
        return memoryview(self.got)[end:]


def storm(place: Place, urls: list[str], release: str = "") -> int:
    """Everybody fetches at once; how many got exactly the image. release: asked for when all of them have asked."""
    good = 0
    with selectors.DefaultSelector() as ready:
        for url in urls:
            one = Asking(place.client, url)
            ready.register(one.sock, selectors.EVENT_READ, [one, 0, b""])
        if release:
            assert place.curl(release)[0] == 200
        while ready.get_map():
            for key, _ in ready.select(PATIENCE):
                one, at, head = key.data
                piece = one.sock.recv(1 << 18)
                ended = not piece
                if b"\r\n\r\n" not in head:
                    head += piece
                    key.data[2], piece = head, head.partition(b"\r\n\r\n")[2]
                if IMAGE[at : at + len(piece)] == piece:
                    key.data[1] = at + len(piece)
                if ended:
                    good += at == SIZE and head.startswith(b"HTTP/1.1 200")
                    ready.unregister(one.sock)
                    one.sock.close()
    return good


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "pull-through"])
def test_a_storm_for_an_image_nobody_has_is_one_fetch(place: Place, pinned: bool) -> None:
    options, keys = ((), {"sha256": SHA256}) if pinned else (("--cache",), {})
    server = place.serve(f"{ORIGIN}/held/image", *options, **keys)
    urls = [place.link(f"52-54-00-00-00-{number:02x}") for number in range(MACHINES)]
    assert len(set(urls)) == MACHINES
    good = storm(place, urls, f"{ORIGIN}/go")
    assert good == MACHINES, [fact for fact in server.facts if fact["kind"] == "transfer-failed"][:3]
    assert place.fetched() == [["/held/image", "", SIZE]]
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak
    assert int(peak[1]) < MOST_MEMORY
    fact = server.until("image")
    assert (fact["octets"], fact["sha256"]) == (SIZE, SHA256)
    assert server.end()[0] == 0


def test_a_restart_in_the_middle_of_a_boot_breaks_no_url(place: Place) -> None:
    server = place.serve(f"{ORIGIN}/image", sha256=SHA256)
    url = place.link()
    first = Asking(place.client, url, slow=True)
    while len(first.got) < SIZE // 4:
        assert first.read()
    server.process.kill()
    server.wait()
    with contextlib.suppress(ConnectionResetError):
        while first.read():
            pass
    first.sock.close()
    had = bytes(first.body)
    assert len(had) < SIZE
    again = place.serve(f"{ORIGIN}/image", sha256=SHA256)
    status, rest = place.curl(url, "-r", f"{len(had)}-")
    assert status == 206
    assert had + rest == IMAGE
    assert len(place.fetched()) == 1  # what was kept is digested again, not fetched again
    assert again.end()[0] == 0


def test_curl_goes_on_where_it_stopped(place: Place) -> None:
    server = place.serve(f"{ORIGIN}/image", "--cache")
    url, path = place.link(), place.folder / "got"
    path.write_bytes(IMAGE[:7_654_321])
    assert place.curl(url, "-C", "-", "-o", str(path))[0] == 206
    assert path.read_bytes() == IMAGE
    status, head = place.curl(url, "--head")
    assert (status, f"Content-Length: {SIZE}".encode() in head) == (200, True)
    assert server.end()[0] == 0


def test_a_wrong_digest_is_never_served_and_told(place: Place) -> None:
    server = place.serve(f"{ORIGIN}/image", sha256="ab" * 32)
    status, body = place.curl(place.link())
    assert status == 502
    assert SHA256.encode() in body
    assert SHA256 in server.until("image-refused")["because"]
    assert not list((place.folder / "state" / "cache").glob("*.image"))
    assert server.end()[0] == 0


@pytest.mark.parametrize("options", [(), ("--cache",)], ids=["streamed", "cached"])
def test_an_upstream_that_dies_in_the_middle_is_gone_on_with(place: Place, options: tuple[str, ...]) -> None:
    server = place.serve(f"{ORIGIN}/dies/image", *options)
    status, body = place.curl(place.link())
    assert (status, body == IMAGE) == (200, True)
    assert [call[1] != "" for call in place.fetched()] == [False, True]
    assert server.end()[0] == 0


def test_the_last_good_copy_serves_when_the_upstream_is_gone(tmp_path: Path) -> None:
    with lan(3) as (ours, client, theirs):
        place = Place(ours, client, theirs, tmp_path)
        with program(theirs, client, 8000, sys.executable, "-c", PROGRAM, str(SIZE)):
            server = place.serve(f"{ORIGIN}/image", "--cache")
            assert place.curl(place.link())[0] == 200
            server.end(signal.SIGTERM)
        about = next((tmp_path / "state" / "cache").glob("*.json"))
        entry = json.loads(about.read_text())
        about.write_text(json.dumps({**entry, "checked": entry["checked"] - 3600}))  # an hour has passed
        server = place.serve(f"{ORIGIN}/image", "--cache")
        status, body = place.curl(place.link())
        assert (status, body == IMAGE) == (200, True)
        assert "last good copy" in " ".join(fact["what"] for fact in server.facts if fact["kind"] == "warning")
        assert server.end()[0] == 0


def test_images_come_through_a_proxy(place: Place) -> None:
    conf = place.folder / "tinyproxy.conf"
    conf.write_text(
        "Port 3128\nListen 10.9.0.3\nTimeout 20\nMaxClients 50\nAllow 10.9.0.1\nAllow 10.9.0.2\nLogLevel Error\n"
    )
    with program(place.theirs, place.client, 3128, "tinyproxy", "-d", "-c", str(conf)):
        # the proxy's own loopback: nobody gets there but through it
        server = place.serve("http://127.0.0.1:8001/image", "--upstream-proxy", "http://10.9.0.3:3128", sha256=SHA256)
        status, body = place.curl(place.link())
        assert (status, body == IMAGE) == (200, True)
        assert not [fact for fact in server.facts if fact["kind"] == "warning" and "cannot fetch" in fact["what"]]
        assert server.end()[0] == 0


def test_a_proxy_that_is_down_is_named(place: Place) -> None:
    server = place.serve(f"{ORIGIN}/image", "--upstream-proxy", "http://10.9.0.3:9", sha256=SHA256)
    status, body = place.curl(place.link())
    assert status == 502
    assert b"proxy 10.9.0.3:9 cannot be reached" in body
    assert server.end()[0] == 0


def test_a_forged_url_is_refused_with_a_reason(place: Place) -> None:
    server = place.serve(f"{ORIGIN}/image", sha256=SHA256)
    url = place.link()
    for forged in (url.replace("/image/", "/image/A", 1), url.replace("/kernel", "")[:-8] + "AAAAAAAA/kernel"):
        status, body = place.curl(forged)
        assert (status, b"not one of this server's" in body) == (403, True)
    assert "not one of this server's" in server.until("not-found")["because"]
    assert place.fetched() == []
    assert server.end()[0] == 0


def test_static_mode_keeps_what_lives_at_a_url_when_it_is_asked_to(place: Place) -> None:
    server = place.boot(f"{ORIGIN}/image", "--cache")
    for _ in range(2):
        status, body = place.curl(place.link())
        assert (status, body == IMAGE) == (200, True)
    assert len(place.fetched()) == 1
    assert server.end()[0] == 0


def test_static_mode_serves_what_is_pinned_on_the_command_line_with_these_octets_or_not_at_all(place: Place) -> None:
    for digest, answer in ((SHA256, (200, True)), ("0" * 64, (502, False))):
        server = place.boot(f"{ORIGIN}/image#sha256={digest}")
        status, body = place.curl(place.link())
        assert (status, body == IMAGE) == answer
        assert place.curl(f"{OURS}/boot/52-54-00-12-34-56/kernel")[0] == 404
        assert server.end()[0] == 0


def test_offline_boots_what_was_prefetched_and_asks_nobody(place: Place) -> None:
    state = ("--state-dir", str(place.folder / "state"))
    command = (sys.executable, "-m", "bootwire", "prefetch", f"{ORIGIN}/image", *state)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = place.ours.call(lambda: subprocess.run(command, check=True, capture_output=True, env=environment))
    assert run.stdout.startswith(b"fetched  http://10.9.0.3:8000/image: 20.0 MB in ")
    before = json.loads(place.curl(f"{ORIGIN}/calls")[1])
    server = place.boot(f"{ORIGIN}/image", "--offline")
    status, body = place.curl(place.link())
    assert (status, body == IMAGE) == (200, True)
    assert json.loads(place.curl(f"{ORIGIN}/calls")[1]) == before
    assert server.end()[0] == 0


def test_a_full_disk_is_told_and_the_image_is_streamed(place: Place) -> None:
    small = place.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        server = place.serve(f"{ORIGIN}/image", "--cache", "--cache-dir", str(small / "cache"))
        status, body = place.curl(place.link())
        assert (status, body == IMAGE) == (200, True)
        assert "No space left on device" in " ".join(one["what"] for one in server.facts if one["kind"] == "warning")
        assert server.end()[0] == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_disk_that_fills_up_meanwhile_ends_one_answer_and_the_next_is_streamed(place: Place) -> None:
    small = place.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        server = place.serve(f"{ORIGIN}/chunked", "--cache", "--cache-dir", str(small / "cache"))
        url = place.link()
        assert len(place.curl(url)[1]) < SIZE
        status, body = place.curl(url)
        assert (status, body == IMAGE) == (200, True)
        assert "No space left on device" in " ".join(one["what"] for one in server.facts if one["kind"] == "warning")
        assert server.end()[0] == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def certificate(folder: Path) -> tuple[str, str]:
    """A key with its certificate, and the certificate alone; for the origin."""
    key, ca = folder / "key.pem", folder / "ca.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=origin", "-addext", "subjectAltName=IP:10.9.0.3", "-keyout", str(key), "-out", str(ca)],
        check=True, capture_output=True,
    )  # fmt: skip
    key.write_text(key.read_text() + ca.read_text())
    return str(key), str(ca)


@pytest.mark.parametrize(
    ("path", "known", "why"),
    [
        ("image", True, ""),
        ("image", False, "has a certificate that is not trusted"),
        ("away", True, "redirects from https to http"),
    ],
    ids=["trusted", "not trusted", "redirect to http"],
)
def test_https_is_verified_and_never_left(tmp_path: Path, path: str, known: bool, why: str) -> None:
    key, ca = certificate(tmp_path)
    start = (sys.executable, "-c", PROGRAM, str(SIZE), key)
    with lan(3) as (ours, client, theirs), program(theirs, client, 8443, *start):
        place = Place(ours, client, theirs, tmp_path)
        options = ("--upstream-ca", ca) if known else ()
        server = place.serve(f"https://10.9.0.3:8443/{path}", *options, sha256=SHA256)
        status, body = place.curl(place.link())
        if why:
            assert (status, why.encode() in body) == (502, True)
        else:
            assert (status, body == IMAGE) == (200, True)
        assert server.end()[0] == 0
