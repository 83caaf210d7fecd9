"""The first minute: what a person sees when something is in the way, and that the server starts and ends cleanly."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

from namespaces import Namespace
from product import SHOWN_AS, Server

AS_NOBODY = (  # who may read this checkout, wherever it is, but nothing else
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search",
)  # fmt: skip

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_and_a_signal_ends_it_cleanly(
    here: Namespace, kernel: str, state: tuple[str, ...], number: int
) -> None:
    server = Server(here, kernel, *state)
    listening = [server.until("listening", service=name) for name in ("http", "tftp", "dhcp", "pxe")]
    assert {(fact["address"], fact["port"]) for fact in listening} == {("10.9.0.1", p) for p in (80, 69, 67, 4011)}
    server.until("listening", service="syslog")
    status, _ = server.end(number)
    assert (status, server.facts[-1]["kind"]) == (0, "stopped")


def test_without_root_it_names_the_absolute_command(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    status, said = Server(here, kernel, *state, within=AS_NOBODY).wait()
    assert status == 1
    assert f"sudo {SHOWN_AS} boot {kernel}" in said
    assert "Traceback" not in said


def test_a_dhcp_daemon_on_port_67_is_listened_beside(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    taken = here.call(lambda: bound(socket.SOCK_DGRAM, 67))
    server = Server(here, kernel, *state)
    fact = server.until("listening", service="dhcp")
    assert fact["how"].startswith("capture socket beside ")
    assert f"(process {os.getpid()})" in fact["how"]
    assert server.end()[0] == 0
    taken.close()


@pytest.mark.parametrize("port", [69, 4011])
def test_a_port_that_cannot_move_names_who_has_it(
    here: Namespace, kernel: str, state: tuple[str, ...], port: int
) -> None:
    with here.call(lambda: bound(socket.SOCK_DGRAM, port)):
        status, said = Server(here, kernel, *state).wait()
    assert status == 1
    assert f"UDP port {port} is taken by" in said
    assert f"(process {os.getpid()})" in said
    assert (said.count("error:"), "Traceback" in said) == (1, False)


def test_http_moves_to_8080_unless_a_port_was_asked_for(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    with here.call(lambda: bound(socket.SOCK_STREAM, 80)) as web:
        web.listen()
        server = Server(here, kernel, *state)
        assert server.until("listening", service="http")["port"] == 8080
        server.end()
        status, said = Server(here, kernel, "--http-port", "80", *state).wait()
    assert status == 1
    assert "TCP port 80 is taken by" in said
    assert "--http-port" in said


def test_no_interface_with_an_address_is_said_with_the_remedy(kernel: str, state: tuple[str, ...]) -> None:
    alone = Namespace()
    try:
        alone.run("ip link add eth0 type bridge")
        status, said = Server(alone, kernel, *state).wait()
    finally:
        alone.close()
    assert status == 1
    assert "no interface has an IPv4 address" in said
    assert "ip address add" in said


def test_an_unknown_interface_is_wrong_usage_and_the_others_are_named(
    here: Namespace, kernel: str, state: tuple[str, ...]
) -> None:
    status, said = Server(here, kernel, "-i", "eth7", *state).wait()
    assert status == 2
    assert "no interface named eth7; there are: lo, here" in said


BARE = """for place in ipxe PXELINUX SYSLINUX.EFI; do
    if [ -d /usr/lib/$place ]; then mount -t tmpfs none /usr/lib/$place; fi
done
for place in /usr/share/ipxe /usr/share/syslinux /boot; do
    if [ -d $place ]; then mount -t tmpfs none $place; fi
done
exec "$@"
"""
NO_LOADERS = ("unshare", "--mount", "sh", "-ec", BARE, "sh")  # and the network of these tests leads nowhere


def test_without_loaders_and_network_it_says_what_to_run(here: Namespace, kernel: str, tmp_path: Path) -> None:
    status, said = Server(here, kernel, "--state-dir", str(tmp_path / "state"), within=NO_LOADERS).wait()
    assert status == 1
    assert said.count("error:") == 1
    for remedy in ("bootwire assets fetch", "package ipxe", "--no-fetch"):
        assert remedy in said
    assert "Traceback" not in said


def test_without_loaders_it_goes_on_where_that_was_asked_for(
    here: Namespace, kernel: str, state: tuple[str, ...]
) -> None:
    server = Server(here, kernel, *state, within=NO_LOADERS)
    server.ready()
    assert "no boot loader for BIOS PCs, UEFI PCs" in server.until("warning", fix="bootwire assets fetch")["what"]
    assert server.end()[0] == 0


def test_an_address_that_changes_is_followed(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    server = Server(here, kernel, *state)
    server.until("listening", service="syslog", address="10.9.0.1")
    here.run("ip address add 10.9.1.11/24 dev here")
    here.run("ip address del 10.9.0.1/24 dev here")
    server.until("listening", service="tftp", address="10.9.1.11")
    server.until("listening", service="dhcp", address="10.9.1.11")
    assert server.end()[0] == 0


def test_a_reader_who_leaves_does_not_stop_the_server(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    server = Server(here, kernel, *state, read=False)
    server.ready()
    assert server.process.stdout
    server.process.stdout.close()
    with here.call(lambda: socket.create_connection(("10.9.0.1", 80), 5)) as web:
        web.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert web.recv(64).startswith(b"HTTP/1.1 200 ")
    assert server.end()[0] == 0


def bound(kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("0.0.0.0", port))
    return sock


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--web", "10.9.0.99:8067"), "cannot listen on 10.9.0.99:8067"),
        (("--pcap", "/nowhere/boot.pcap"), "cannot record to /nowhere/boot.pcap"),
        (("--state-dir", "/dev/null"), "cannot keep the page's token in /dev/null"),
    ],
)
def test_what_shows_late_in_the_start_is_one_message_too(
    here: Namespace, kernel: str, state: tuple[str, ...], options: tuple[str, str], says: str
) -> None:
    status, said = Server(here, kernel, *state, *options).wait()
    assert (status, said.count("error:"), "Traceback" in said) == (1, 1, False), said
    assert says in said


def test_the_hand_over_counts_the_last_file_too(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    here.run("ip link set lo up")
    server = Server(here, kernel, *state)
    server.ready()
    below = "boot/52-54-00-12-34-56"

    def boot() -> None:
        with contextlib.closing(http.client.HTTPConnection("10.9.0.1", timeout=10)) as connection:
            for path in ("boot.ipxe?mac=52-54-00-12-34-56", f"{below}/kernel", f"{below}/started"):
                connection.request("GET", f"/{path}")
                connection.getresponse().read()

    here.call(boot)
    assert server.until("hand-over")["octets"] == 4096
    assert server.end()[0] == 0
