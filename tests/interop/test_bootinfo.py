"""bootinfo over a real cable: the product in one namespace, machines in the other."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootinfo_peers import BootinfoClient, Deterboot, Emuboot, Peer
from bootwire.serve.ports import owners
from bootwire.wire import bootinfo as wire
from namespaces import Namespace, dnsmasq, pair
from product import PATIENCE, ROOT, Server
from vector_files import octets

pytestmark = pytest.mark.interop


@pytest.fixture
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as ends:
        yield ends


def run(where: Namespace, *arguments: str) -> subprocess.Popen[bytes]:
    """`bootwire ARGUMENTS` in a namespace."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = (sys.executable, "-m", "bootwire", *arguments)
    return where.start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/")


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Its status, stdout and stderr, when it has ended."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out.decode(), err.decode()


def be(peer: Peer) -> str:
    """A testbed's client in real time over the kernel's sockets; what it did."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
    ):
        ear.bind(("0.0.0.0", 9696))
        until = time.monotonic() + PATIENCE
        peer.start(time.monotonic_ns())
        while not peer.did:
            assert time.monotonic() < until, "it came to nothing"
            for data, port in peer.sends:
                (ear if port else out).sendto(data, (peer.server, 6969))
            peer.sends.clear()
            now = time.monotonic_ns()
            if peer.deadline is not None and peer.deadline <= now:
                peer.tick(now)
                continue
            patience = 1.0 if peer.deadline is None else (peer.deadline - now) / 1e9
            if select.select([ear], [], [], min(patience, 1.0))[0]:
                data, source = ear.recvfrom(4096)
                peer.receive(data, source, time.monotonic_ns())
        return peer.did


@pytest.mark.parametrize(
    ("peer", "answer", "did"),
    [
        (BootinfoClient, "partition 2 -- root=/dev/sda2", "partition:2 root=/dev/sda2"),
        (Emuboot, "disk 0x80 partition 3", "disk 0x80 part 3"),
        (Emuboot, "memory /tftpboot/freebsd -- -s", "load /tftpboot/freebsd [-s]"),
        (Deterboot, "partition 1", "chain.c32 hd0 1"),
    ],
)
def test_a_testbed_client_obeys_the_product(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...], peer: type[Peer], answer: str, did: str
) -> None:
    here, there = cable
    server = Server(here, kernel, *state, "--bootinfo-answer", answer)
    server.ready()
    assert there.call(lambda: be(peer("10.9.0.1"))) == did
    fact = server.until("bootinfo-answer", address="10.9.0.2")
    assert fact["answer"] == answer
    assert server.end()[0] == 0


def test_deterboot_fetches_what_every_machine_gets(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...], tmp_path: Path
) -> None:
    """Its kernel and initrd are asked for as it does: by HTTP, below the URL that it was told."""
    here, there = cable
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"\x1f\x8b" + bytes(998))
    server = Server(here, kernel, str(initrd), *state, "--bootinfo")
    server.ready()
    did = there.call(lambda: be(Deterboot("10.9.0.1")))
    words = did.split()
    assert words[0] == "linux.c32"
    fetched = [
        there.call(lambda url=url: subprocess.run(["curl", "-sfL", url], check=True, capture_output=True).stdout)
        for url in (words[1], words[2].removeprefix("initrd="))
    ]
    assert fetched == [Path(kernel).read_bytes(), initrd.read_bytes()]
    assert server.end()[0] == 0


def test_a_machine_waits_is_listed_takes_an_order_and_says_so(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    here, there = cable
    server = Server(here, kernel, *state, "--bootinfo-answer", "wait")
    server.ready()
    machine = run(there, "ask", "10.9.0.1", "--wait", "--json")
    server.until("bootinfo-answer", answer="wait")
    status, listed, _ = ended(run(here, "order", "--list", *state[:2]))
    assert (status, "10.9.0.2" in listed) == (0, True)
    status, said, _ = ended(run(here, "order", "10.9.0.2", "memory", "http://h/m", "--cmdline", "quiet", *state[:2]))
    assert (status, said.endswith("memory http://h/m -- quiet  taken: it says so\n")) == (0, True)
    status, told, _ = ended(machine)
    assert status == 0
    assert {"by": "order", "path": "http://h/m", "cmdline": "quiet"}.items() <= json.loads(told).items()
    server.until("order-end", taken=True)
    assert server.end()[0] == 0


def test_a_machine_that_waited_before_the_server_was_started_is_known_by_its_mac(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    here, there = cable
    here.run("ping -c 1 10.9.0.2")
    server = Server(here, kernel, *state, "--bootinfo-answer", "wait")
    server.ready()
    machine = run(there, "ask", "10.9.0.1", "--wait")
    server.until("bootinfo-answer", answer="wait", machine="02:00:00:00:00:02")
    status, said, _ = ended(run(here, "order", "02:00:00:00:00:02", "reboot", *state[:2]))
    assert (status, said) == (0, "02:00:00:00:00:02 (10.9.0.2)  reboot  taken: it says so\n")
    assert ended(machine)[:2] == (0, "reboot\n")
    assert server.end()[0] == 0


def test_a_machine_that_nobody_knows_is_sent_no_order_and_the_reason_is_said(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    server = Server(cable[0], kernel, *state, "--bootinfo")
    server.ready()
    status, said, _ = ended(run(cable[0], "order", "52:54:00:00:00:07", "reboot", *state[:2]))
    assert (status, "not sent: 52:54:00:00:00:07 does not wait" in said) == (1, True)
    assert server.end()[0] == 0


def test_orders_need_a_server_and_the_error_says_how_to_get_one(tmp_path: Path, here: Namespace) -> None:
    status, _, said = ended(run(here, "order", "all", "reboot", "--state-dir", str(tmp_path)))
    assert (status, "start it with --bootinfo" in said) == (1, True)


def test_the_door_for_orders_is_the_owners_alone(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    server = Server(here, kernel, *state, "--bootinfo")
    server.ready()
    door = Path(state[1], "control.sock")
    assert stat.S_IMODE(door.stat().st_mode) == 0o600
    assert server.end()[0] == 0
    assert not door.exists()


def test_machines_with_keys_are_served_and_those_without_are_not_where_keys_are_demanded(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...], tmp_path: Path
) -> None:
    here, there = cable
    keys = tmp_path / "keys"
    keys.write_text("52:54:00:12:34:56 00112233445566778899aabbccddeeff\n")
    answer = ("--bootinfo-answer", "partition 2")
    server = Server(here, kernel, *state, *answer, "--bootinfo-keys", str(keys), "--bootinfo-demand-keys")
    server.ready()
    server.until("warning", fix=f"chmod 600 {keys}")
    status, said, _ = ended(run(there, "ask", "10.9.0.1", "--keys", str(keys)))
    assert (status, said) == (0, "partition 2\n")
    server.until("bootinfo-ask", how="sealed", machine="52:54:00:12:34:56")
    status, said, why = ended(run(there, "ask", "10.9.0.1"))
    assert (status, said, why) == (1, "", "the server has nothing for this machine\n")
    assert server.end()[0] == 0


def test_from_a_card_of_our_own_the_server_is_the_one_that_dhcp_names(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    here, there = cable
    with dnsmasq(here):
        server = Server(here, kernel, *state, "--bootinfo-answer", "disk 0x80 partition 1")
        server.ready()
        status, said, why = ended(run(there, "ask", "--nic", "there", "--mac", "52:54:00:12:34:56"))
        assert (status, said) == (0, "disk 0x80 partition 1\n"), why
        assert server.end()[0] == 0


def test_a_client_whose_port_is_taken_says_so(here: Namespace) -> None:
    def bound() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 9696))
        return made

    with here.call(bound):
        status, _, said = ended(run(here, "ask", "10.9.0.2"))
    assert (status, "UDP port 9696 is taken" in said) == (1, True)


def test_in_api_mode_the_service_says_what_waiting_machines_do_next(
    cable: tuple[Namespace, Namespace], state: tuple[str, ...], tmp_path: Path
) -> None:
    """The service is a directory of files: what a machine is told changes with its file, and `auto` has it ask."""
    here, there = cable
    here.run("ping -c 1 10.9.0.2")
    answer = tmp_path / "service" / "v1" / "boot" / "02:00:00:00:00:02"
    answer.parent.mkdir(parents=True)
    answer.write_text('{"bootinfo": "wait"}')
    command = (
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "10.9.0.1",
        "--directory",
        str(tmp_path / "service"),
        "8000",
    )
    service = here.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        here.call(lambda: _until_listening(8000))
        server = Server(here, "http://10.9.0.1:8000", *state, "--bootinfo", verb="api")
        server.ready()
        machine = run(there, "ask", "10.9.0.1", "--wait")
        server.until("bootinfo-answer", answer="wait")
        answer.write_text('{"bootinfo": "disk 0x80 partition 2", "because": "its experiment begins"}')
        assert ended(run(here, "order", "02:00:00:00:00:02", "auto", *state[:2]))[0] == 0
        assert ended(machine)[:2] == (0, "disk 0x80 partition 2\n")
        told = server.until("bootinfo-answer", answer="disk 0x80 partition 2")
        assert told["because"] == "the boot service says: its experiment begins"
        assert server.end()[0] == 0
    finally:
        service.kill()
        service.wait()


def _until_listening(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while not owners("tcp", port):
        assert time.monotonic() < until, f"nobody listens on port {port}"
        time.sleep(0.02)


C = r"""
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>
#include <arpa/inet.h>
/* The layout that docs/reference/bootinfo.md gives, as a compiler lays it out. */
struct what { short flags, type; union {
    int partition; int system_id; struct { struct in_addr address; char file[256]; } multiboot;
    char memory[256]; struct { int disk, partition; } disk; } u; char cmdline[224]; };
struct packet { short version, opcode; int status; union { char octets[512]; struct what what; } data; };
static void put(struct packet *p) { fwrite(p, sizeof *p, 1, stdout); memset(p, 0, sizeof *p); p->version = 1; }
int main(void) {
    struct packet p; memset(&p, 0, sizeof p); p.version = 1;
    p.opcode = 1; put(&p);
    p.opcode = 2; p.data.what.type = 7; strcpy(p.data.what.u.memory, "10.0.0.1:/tftpboot/frisbee");
    strcpy(p.data.what.cmdline, "-s"); put(&p);
    p.opcode = 2; p.data.what.type = 9; p.data.what.u.disk.disk = 0x80; p.data.what.u.disk.partition = 2; put(&p);
    p.opcode = 2; p.data.what.type = 3; inet_aton("10.0.0.1", &p.data.what.u.multiboot.address);
    strcpy(p.data.what.u.multiboot.file, "/k"); put(&p);
    p.opcode = 4; p.data.what.type = 8; put(&p);
    return 0; }
"""


def test_a_c_compiler_lays_the_documented_structure_out_as_the_vectors_are(tmp_path: Path) -> None:
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    source.write_text(C)
    subprocess.run(["gcc", "-o", program, source], check=True)
    out = subprocess.run([program], check=True, capture_output=True).stdout
    wanted = ("request", "reply-memory-fs", "reply-disk-partition", "reply-multiboot", "order-restart")
    assert [out[at : at + wire.SIZE] for at in range(0, len(out), wire.SIZE)] == [
        octets("bootinfo", name) for name in wanted
    ]
