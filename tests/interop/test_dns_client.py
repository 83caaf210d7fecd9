"""Our DNS client against dnsmasq: addresses of both kinds, aliases, the search list, and an answer too long for UDP."""

from __future__ import annotations

import random
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.engine.dns import Ask, Found, Lookup, NotFound
from bootwire.wire import dns
from namespaces import Namespace

pytestmark = pytest.mark.interop


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with dnsmasq on 127.0.0.1:53."""
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"10.0.{n // 250}.{n % 250 + 1} many.example\n" for n in range(300)))
    made = Namespace()
    server = made.start(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        "--listen-address=127.0.0.1", "--bind-interfaces", f"--addn-hosts={hosts}", f"--pid-file={tmp_path}/pid",
        "--host-record=host.example,192.0.2.7,2001:db8::7", "--cname=www.example,host.example", "--local=/example/",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while isinstance(resolve(made, "host.example", waits=(50_000_000,)), NotFound):
            assert time.monotonic() < deadline, "dnsmasq did not start"
        yield made
    finally:
        server.terminate()
        server.wait(10)
        made.close()


def resolve(space: Namespace, name: str, **more: object) -> Found | NotFound | None:
    return space.call(lambda: look_up(name, **more))


def look_up(name: str, **more: object) -> Found | NotFound | None:
    engine = Lookup(name, ["127.0.0.1"], lambda: random.SystemRandom().getrandbits(16), **more)  # type: ignore[arg-type]
    asks = engine.start(time.monotonic_ns())
    while engine.outcome is None:
        ask = asks.pop(0) if asks else None
        if ask is None:
            asks = engine.tick(engine.deadline or 0)
            continue
        data = over_tcp(ask) if ask.tcp else over_udp(ask)
        if data:
            asks += engine.receive(data, ask.server, time.monotonic_ns(), tcp=ask.tcp)
    return engine.outcome


def over_udp(ask: Ask) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect((ask.server, dns.PORT))
        sock.send(ask.data)
        try:
            return sock.recv(65535)
        except OSError:
            return b""


def over_tcp(ask: Ask) -> bytes:
    with socket.create_connection((ask.server, dns.PORT), timeout=5) as sock:
        sock.sendall(dns.frame(ask.data))
        buffer = b""
        while (whole := dns.unframe(buffer)) is None:
            buffer += sock.recv(65535)
        return whole[0]


def test_addresses_of_both_kinds(space):
    found = resolve(space, "HOST.example")
    assert isinstance(found, Found)
    assert found.addresses == ("192.0.2.7", "2001:db8::7")


def test_an_alias(space):
    found = resolve(space, "www.example")
    assert isinstance(found, Found)
    assert (found.addresses, found.canonical) == (("192.0.2.7", "2001:db8::7"), "host.example")


def test_the_search_list(space):
    found = resolve(space, "www", search=("test.invalid", "example"))
    assert isinstance(found, Found)
    assert found.canonical == "host.example"


def test_an_answer_too_long_for_udp_comes_over_tcp(space):
    found = resolve(space, "many.example", kinds=(dns.A,))
    assert isinstance(found, Found)
    assert len(set(found.addresses)) == 300


def test_a_name_that_is_not_there(space):
    found = resolve(space, "missing.example")
    assert isinstance(found, NotFound)
    assert found.why == "no such name"
