"""The first minute: what a person sees when something is in the way, and that the server starts and ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from namespaces import Namespace, pair

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

pytestmark = pytest.mark.interop


@pytest.fixture
def here() -> Iterator[Namespace]:
    with pair() as (one, _two):
        yield one


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    """A bzImage as far as its header goes (Documentation/arch/x86/boot.rst)."""
    image = bytearray(4096)
    image[0x1F1] = 1  # setup sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = (0x020F).to_bytes(2, "little")
    path = tmp_path / "vmlinuz"
    path.write_bytes(image)
    return str(path)


class Server:
    """`bootwire boot` in a namespace, its facts read as they come."""

    def __init__(self, namespace: Namespace, *arguments: str, user: int = 0) -> None:
        command = [sys.executable, "-m", "bootwire", "boot", *arguments]
        self.process = namespace.start(
            *command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            user=user,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "BOOTWIRE_COMMAND": "/opt/bootwire/bootwire"},
        )
        self.facts: list[dict[str, Any]] = []

    def until(self, kind: str, **fields: object) -> dict[str, Any]:
        """Read facts up to the first of this kind with these fields."""
        assert self.process.stdout
        for line in self.process.stdout:
            fact = json.loads(line)
            self.facts.append(fact)
            if fact["kind"] == kind and all(fact[name] == value for name, value in fields.items()):
                return fact
        pytest.fail(f"no {kind} {fields} in {self.facts}; stderr: {self.process.communicate()[1].decode()}")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        out, err = self.process.communicate(timeout=30)
        self.facts += [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
        return self.process.returncode, err.decode()


@pytest.fixture
def state(tmp_path: Path) -> tuple[str, ...]:
    """Options every run here has: an own state directory, nothing fetched, JSON."""
    return ("--state-dir", str(tmp_path / "state"), "--no-fetch", "--json")


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
    os.chmod(kernel, 0o644)
    for folder in Path(kernel).parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            os.chmod(folder, folder.stat().st_mode | 0o055)
    status, said = Server(here, kernel, *state, user=NOBODY).wait()
    assert status == 1
    assert f"sudo /opt/bootwire/bootwire boot {kernel}" in said
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


def test_an_address_that_changes_is_followed(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    server = Server(here, kernel, *state)
    server.until("listening", service="syslog", address="10.9.0.1")
    here.run("ip address add 10.9.1.11/24 dev here")
    here.run("ip address del 10.9.0.1/24 dev here")
    server.until("listening", service="tftp", address="10.9.1.11")
    server.until("listening", service="dhcp", address="10.9.1.11")
    assert server.end()[0] == 0


def test_a_reader_who_leaves_does_not_stop_the_server(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    server = Server(here, kernel, *state)
    server.until("listening", service="syslog")
    assert server.process.stdout
    server.process.stdout.close()
    with here.call(lambda: socket.create_connection(("10.9.0.1", 80), 5)) as web:
        web.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert web.recv(64).startswith(b"HTTP/1.1 200 ")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.stderr
    with server.process.stderr:
        assert server.process.wait(30) == 0


def bound(kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("0.0.0.0", port))
    return sock
