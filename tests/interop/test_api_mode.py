"""API mode against real services over real sockets: whatever the service does, other machines' offers do not wait.

Three hosts on one bridge: Bootwire (10.9.0.1), a machine (10.9.0.2), the boot service and its files (10.9.0.3).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootwire.wire import dhcp4
from dhcp_samples import vector
from good_client import OURS, udp
from namespaces import Namespace, lan
from product import Server

pytestmark = pytest.mark.interop

SERVICE = "10.9.0.3"
ROOT = Path(__file__).resolve().parents[2]
KERNEL = b"a kernel" * 100_000
FAST, SLOW = "02:00:00:00:00:01", "02:00:00:00:00:02"
PATIENCE = 20.0

# What the service does about each MAC's last octet; it runs in the third namespace, as a program of its own.
SERVICE_PROGRAM = r"""
import http.server, json, socketserver, sys, time
KERNEL = b"a kernel" * 100_000
calls = []

class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/calls":
            return self.say(200, json.dumps(calls).encode())
        if path == "/pxe/kernel":
            return self.say(200, KERNEL)
        last = path[-2:]
        calls.append([path, query, self.headers.get("User-Agent", "")])
        boot = json.dumps({"kernel": "kernel", "initrd": ["http://10.9.0.3:8000/pxe/kernel"],
                           "cmdline": "quiet c={{ URL \"kernel\" }}", "message": "hello"}).encode()
        if last == "01": return self.say(200, boot)
        if last == "02": return time.sleep(60)                      # hangs
        if last == "03": return self.say(200, b"<html>garbage")
        if last == "04": return self.say(500, b"")
        if last == "05": return self.say(404, b"")
        if last == "06": return self.say(200, b"x" * 10_000_000)
        if last == "07": return self.say(302, b"", ("Location", "/pxe/v1/boot/01"))
        if last == "08": return self.say(302, b"", ("Location", path))
        if last == "09": self.connection.close(); return
        if last == "0a":                                            # good once, then broken
            known = [c for c in calls if c[0] == path]
            return self.say(200, boot) if len(known) == 1 else self.say(500, b"")
        if last == "0b": return self.say(200, b'{"kernel": "http://127.0.0.1:8000/pxe/kernel"}')
        if last == "0c": return self.say(200, b'{"kernel": "http://169.254.169.254/latest"}')
        if last in ("10", "r2", "r1"):                              # three times
            return self.say(302, b"", ("Location", {"10": "r2", "r2": "r1", "r1": "01"}[last]))
        if last == "11": return self.say(200, b'{"ipxe-script": "#!ipxe\\necho half of a pair \\ud83d"}')
        if last == "12": return self.say(200, b'{"kernel": "kernel", "cmdline": "half=\\ud83d"}')
        if last == "15": return self.say(302, b"", ("Location", "https://10.9.0.3:8000/pxe/v1/boot/01"))
        if last == "13": return self.say(200, b'{"kernel": "file:///etc/hostname"}')
        if last == "14":
            return self.say(200, b'{"kernel": "kernel", "cmdline": "c={{ URL \\"file:///etc/hostname\\" }}"}')
        return self.say(204, b"")

    def say(self, status, body, *fields):
        self.send_response(status)
        for name, value in fields: self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): pass

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 500

Server(("10.9.0.3", 8000), Service).serve_forever()
"""


class Place:
    def __init__(self, server: Server, client: Namespace, theirs: Namespace) -> None:
        self.server, self.client, self.theirs = server, client, theirs

    def calls(self) -> list[list[str]]:
        found: list[list[str]] = json.loads(self.curl(f"http://{SERVICE}:8000/calls")[1])
        return found

    def curl(self, url: str, *options: str) -> tuple[int, bytes]:
        """Status and body."""
        command = ["curl", "-s", "-w", "%{stderr}%{http_code}", *options, url]
        done = self.client.call(lambda: subprocess.run(command, check=True, capture_output=True))
        return int(done.stderr), done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("api")) as place:
        yield place


@contextlib.contextmanager
def placed(folder: Path, *more: str) -> Iterator[Place]:
    with lan(3) as (ours, client, theirs):
        service = theirs.start(sys.executable, "-c", SERVICE_PROGRAM)
        try:
            until_answers(client, SERVICE, 8000)
            options = ("--state-dir", str(folder), "--no-fetch", "--json", "--api-request-timeout", "1s", *more)
            server = Server(ours, f"http://{SERVICE}:8000/pxe", *options, verb="api")
            server.ready()
            yield Place(server, client, theirs)
            assert server.end()[0] == 0
        finally:
            service.kill()
            service.wait()


def until_answers(client: Namespace, host: str, port: int) -> None:
    def connect() -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((host, port), 1).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    client.call(connect)


_XIDS = itertools.count(0x0A000001)


def discover(mac: str, sock: socket.socket) -> int:
    """Send a DISCOVER of iPXE's; its xid."""
    xid = next(_XIDS)
    chaddr = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0")
    message = replace(dhcp4.parse(vector("ipxe-efi-x64-discover")), xid=xid, chaddr=chaddr)
    sock.sendto(dhcp4.emit(message), ("255.255.255.255", 67))
    return xid


def offered(sock: socket.socket, xid: int, within: float) -> float | None:
    """Seconds until the offer to `xid` came; None if it did not come within `within`."""
    began = time.monotonic()
    while (left := began + within - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data, (server, _) = sock.recvfrom(2048)
        except TimeoutError:
            return None
        reply = dhcp4.parse(data)
        if (server, reply.xid, reply.type) == (OURS, xid, dhcp4.OFFER):
            return time.monotonic() - began
    return None


def asks(place: Place, mac: str, within: float = 5.0) -> float | None:
    def run() -> float | None:
        with contextlib.closing(udp("lan", 68)) as sock:
            return offered(sock, discover(mac, sock), within)

    return place.client.call(run)


def script(place: Place, mac: str) -> tuple[int, str]:
    status, body = place.curl(f"http://{OURS}/boot.ipxe?mac={mac.replace(':', '-')}&arch=x86_64&platform=efi")
    return status, body.decode()


def test_a_machine_is_asked_for_once_a_boot_and_gets_what_the_service_says(place: Place) -> None:
    assert asks(place, FAST) is not None
    status, text = script(place, FAST)
    assert status == 200
    kernel, initrd = re.search(r"kernel --name kernel (\S+)", text), re.search(r"initrd --name initrd0 (\S+)", text)
    other = re.search(r"quiet c=(\S+)", text)
    assert kernel
    assert initrd
    assert other
    assert "echo -- hello" in text
    for found in (kernel, initrd, other):
        assert place.curl(found[1]) == (200, KERNEL)
    calls = [call for call in place.calls() if call[0].endswith(FAST)]
    assert len(calls) == 1
    path, query, agent = calls[0]
    assert path == f"/pxe/v1/boot/{FAST}"
    assert "arch=x86_64" in query
    assert "stage=discover" in query
    assert agent == "bootwire"
    fact = place.server.until("service", machine=FAST)
    assert fact["outcome"] == "boot"


@pytest.mark.parametrize(
    ("octet", "outcome", "because"),
    [
        ("02", "failed", "no answer within 1 s"),
        ("03", "failed", "no JSON"),
        ("04", "failed", "answers 500"),
        ("05", "no", "says no (404)"),
        ("06", "failed", "longer than 1 MiB"),
        ("08", "failed", "redirects more than 3 times"),
        ("09", "failed", "cannot be asked"),
        ("15", "failed", "redirects to another scheme"),
        ("0d", "no", "says no (204)"),
    ],
)
def test_a_service_that_misbehaves_is_explained_and_its_machine_hears_nothing(
    place: Place, octet: str, outcome: str, because: str
) -> None:
    mac = f"02:00:00:00:00:{octet}"
    assert asks(place, mac, within=2.5) is None
    fact = place.server.until("service", machine=mac)
    assert fact["outcome"] == outcome
    assert because in fact["because"]
    assert because in place.server.until("silence", machine=mac)["because"]
    assert "does not boot this machine" in script(place, mac)[1]


@pytest.mark.parametrize("octet", ["07", "10"])
def test_up_to_three_redirects_are_followed(place: Place, octet: str) -> None:
    assert asks(place, f"02:00:00:00:00:{octet}") is not None


@pytest.mark.parametrize(("octet", "what"), [("11", "echo half of a pair \N{REPLACEMENT CHARACTER}"), ("12", "half=")])
def test_an_answer_with_half_of_a_surrogate_pair_is_served(place: Place, octet: str, what: str) -> None:
    """JSON can escape what no text can hold; Go's encoding/json reads U+FFFD there."""
    mac = f"02:00:00:00:00:{octet}"
    assert asks(place, mac) is not None
    status, text = script(place, mac)
    assert (status, what in text) == (200, True)


def test_the_last_good_answer_counts_while_the_service_is_broken(place: Place) -> None:
    mac = "02:00:00:00:00:0a"
    assert asks(place, mac) is not None
    assert "kernel --name kernel" in script(place, mac)[1]  # used: the next DISCOVER is another boot
    assert asks(place, mac) is not None
    fact = place.server.until("service", machine=mac, outcome="last good")
    assert "answers 500" in fact["because"]
    assert "kernel --name kernel" in script(place, mac)[1]


@pytest.mark.parametrize(("octet", "why"), [("0b", "this machine itself"), ("0c", "a cloud's metadata service")])
def test_an_answer_that_leads_into_the_server_or_to_metadata_is_not_followed(
    place: Place, octet: str, why: str
) -> None:
    mac = f"02:00:00:00:00:{octet}"
    assert asks(place, mac) is not None
    kernel = re.search(r"kernel --name kernel (\S+)", script(place, mac)[1])
    assert kernel
    status, body = place.curl(kernel[1])
    assert (status, why in body.decode()) == (502, True)


@pytest.mark.parametrize(
    "path",
    ["image/AAAA/kernel", "image/", "image/../../etc/passwd", "image/%2e%2e/x", "image?url=http://10.9.0.3:8000/"],
)
def test_what_was_not_sealed_is_refused(place: Place, path: str) -> None:
    status, body = place.curl(f"http://{OURS}/{path}", "--path-as-is")
    assert status in (403, 404)
    assert KERNEL not in body


def test_files_of_this_machine_are_served_unless_that_is_forbidden(place: Place) -> None:
    for octet, what in (("13", r"kernel --name kernel (\S+)"), ("14", r"c=(\S+)")):
        assert asks(place, f"02:00:00:00:00:{octet}") is not None
        found = re.search(what, script(place, f"02:00:00:00:00:{octet}")[1])
        assert found
        assert place.curl(found[1]) == (200, Path("/etc/hostname").read_bytes())


def test_no_file_of_this_machine_is_linked_where_that_is_forbidden(tmp_path: Path) -> None:
    with placed(tmp_path, "--no-file-urls") as strict:
        assert asks(strict, "02:00:00:00:00:13", within=2.5) is None
        fact = strict.server.until("service", machine="02:00:00:00:00:13")
        assert "names the file /etc/hostname of this machine, which --no-file-urls forbids" in fact["because"]
        text = script(strict, "02:00:00:00:00:14")[1]
        assert "/image/" not in text
        assert "its boot text could not be made" in text
        because = strict.server.until("script", machine="02:00:00:00:00:14")["because"]
        assert "names the file /etc/hostname of this machine, which --no-file-urls forbids" in because


def test_other_machines_offers_stay_within_a_tenth_of_a_second_while_the_service_hangs(place: Place) -> None:
    assert asks(place, FAST) is not None

    def run() -> list[float]:
        with contextlib.closing(udp("lan", 68)) as sock:
            took = []
            for number in range(50):
                for slow in range(10):  # 500 machines that the service says nothing about
                    discover(
                        f"02:00:00:01:{number:02x}:02" if slow == 0 else f"02:00:{slow:02x}:02:{number:02x}:02", sock
                    )
                seconds = offered(sock, discover(FAST, sock), 1.0)
                assert seconds is not None
                took.append(seconds)
            return took

    took = sorted(place.client.call(run))
    assert took[-2] < 0.1, took  # one of fifty may meet a busy machine


def test_nothing_crashed(place: Place) -> None:
    assert not [line for line in place.server.err.all() if "Traceback" in line]
