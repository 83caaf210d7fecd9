"""Our DNS client against dnsmasq and Knot: both kinds of address, aliases, the search list, an answer for TCP."""

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


MANY = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(300)]


def dnsmasq(folder: Path) -> list[str]:
    hosts = folder / "hosts"
    hosts.write_text("".join(f"{address} many.example\n" for address in MANY))
    return [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        "--listen-address=127.0.0.1", "--bind-interfaces", f"--addn-hosts={hosts}", f"--pid-file={folder}/pid",
        "--host-record=host.example,192.0.2.7,2001:db8::7", "--cname=www.example,host.example", "--local=/example/",
    ]  # fmt: skip


def knot(folder: Path) -> list[str]:
    """An authoritative server: names, aliases and errors as the zone has them, answers cut where they do not fit."""
    (folder / "zone").write_text(
        "$TTL 60\n@ SOA ns admin 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\nhost A 192.0.2.7\nhost AAAA 2001:db8::7\n"
        "www CNAME host\n" + "".join(f"many A {address}\n" for address in MANY)
    )
    (folder / "knot.conf").write_text(
        f"server:\n  listen: 127.0.0.1@53\n  rundir: {folder}\n  user: root\n"
        f"database:\n  storage: {folder}/db\nlog:\n  - target: stderr\n    any: error\n"
        f"zone:\n  - domain: example\n    storage: {folder}\n    file: zone\n"
    )
    return ["knotd", "-c", str(folder / "knot.conf")]


@pytest.fixture(params=[dnsmasq, knot], ids=lambda server: server.__name__)
def space(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    """A namespace with the server on 127.0.0.1:53."""
    made = Namespace()
    server = made.start(*request.param(tmp_path), stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while isinstance(resolve(made, "host.example", waits=(50_000_000,)), NotFound):
            assert time.monotonic() < deadline, "it did not start"
            assert server.poll() is None, "it ended"
        yield made
    finally:
        server.terminate()
        server.wait(20)
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
