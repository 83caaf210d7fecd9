"""Our TCP/IP against the kernel's own, over TAP devices and packet sockets in namespaces of the test's own."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest

import bootwire as bootwire_package
from bootwire.engine import MS, S
from bootwire.engine.dhcp6_client import Wants
from bootwire.engine.tcp import Config
from bootwire.preboot.bridge import Bridge
from bootwire.preboot.dhcp import Dhcp
from bootwire.preboot.impair import Faults
from bootwire.preboot.nic import PacketNic, PcapTee, TapNic, cable, random_mac
from bootwire.preboot.sockets import Socket, create_connection
from bootwire.preboot.stack import Stack
from namespaces import Namespace, pair
from wireshark import complaints, tshark, unexplained

pytestmark = pytest.mark.interop

KERNEL, OURS = "10.77.0.1", "10.77.0.2"
KERNEL6, OURS6 = "2001:db8:77::1", "2001:db8:77::2"


@dataclass
class Rig:
    """The kernel in a namespace at one end, our stack at the other."""

    kernel: Namespace
    stack: Stack
    capture: Path | None = None


@contextlib.contextmanager
def rig(
    faults: Faults | None = None, capture: Path | None = None, offload: bool = True, tcp: Config | None = None
) -> Iterator[Rig]:
    """faults: a bad cable between the TAP device and our card."""
    kernel = Namespace()
    tap = TapNic("bwstack", random_mac(), offload=offload and faults is None)
    nic, bridge = tap, None
    if faults is not None:
        nic, far = cable(tap.mac, tap.mac, offload=False)
        bridge = Bridge(tap, far, faults, seed=7)
        kernel.call(tap.open)
    file = capture.open("wb") if capture else None
    stack = Stack(PcapTee(nic, file, as_wired=not nic.offload.segmentation) if file else nic, tcp=tcp)
    try:
        kernel.call(stack.start)
        if bridge:
            bridge.start()
        kernel.run(f"ip address add {KERNEL}/24 dev bwstack")
        kernel.run(f"ip address add {KERNEL6}/64 dev bwstack nodad")
        kernel.run("ip link set bwstack up")
        kernel.wait_for_carrier()
        stack.add_address(f"{OURS}/24")
        stack.add_address(f"{OURS6}/64")
        yield Rig(kernel, stack, capture)
    finally:
        stack.close()
        if bridge:
            bridge.close()
        if file:
            file.close()
        kernel.close()


@contextlib.contextmanager
def listening(stack: Stack, handle, port: int) -> Iterator[None]:
    listener = Socket(stack)
    listener.bind(("", port))
    listener.listen(64)

    def run() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted, contextlib.suppress(OSError):
                handle(accepted)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        listener.close()
        thread.join(10)


def knock(host: str, port: int) -> int:
    """The number of the error that a connect ends with, 0 for none."""
    with socket.socket() as s:
        return s.connect_ex((host, port))


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@contextlib.contextmanager
def nginx(kernel: Namespace, root: Path, address: str = KERNEL) -> Iterator[None]:
    config = root / "nginx.conf"
    config.write_text(
        f"daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1; user root;\n"
        f"events {{}} http {{ access_log off; sendfile on; server {{ listen 80; listen [::]:80; root {root}; }} }}\n"
    )
    process = kernel.start("nginx", "-c", str(config), "-p", str(root), stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while kernel.call(lambda: knock(address, 80)) != 0:
            assert time.monotonic() < until, "nginx does not listen"
        yield
    finally:
        process.terminate()
        process.wait(10)


def fetch(stack: Stack, host: str, path: str) -> str:
    """SHA-256 of what an HTTP server gives."""
    with create_connection(stack, (host, 80), 30) as connection:
        connection.settimeout(60)
        name = f"[{host}]" if ":" in host else host
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        digest, head = sha256(), b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        head, _, body = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        digest.update(body)
        while data := connection.recv(1 << 20):
            digest.update(data)
        return digest.hexdigest()


def test_ping_both_ways_in_both_families():
    with rig() as r:
        for address in (KERNEL, KERNEL6):
            assert r.stack.ping(address, timeout=5) < 5
            assert r.stack.ping(address, timeout=5, size=5000) < 5  # in fragments
        for address in (OURS, OURS6):
            shown = r.kernel.run(f"ping -c 3 -i 0.05 -W 5 -s 3000 {address}")
            assert "3 received, 0% packet loss" in shown


def test_curl_fetches_from_our_passive_socket():
    body = noise(5_000_000)

    def answer(connection: Socket) -> None:
        while b"\r\n\r\n" not in connection.recv(65_536):
            pass
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)

    with rig() as r, listening(r.stack, answer, 80):
        for host in (OURS, f"[{OURS6}]"):
            got = r.kernel.call(
                lambda host=host: (
                    subprocess.run(
                        ["curl", "-gsS", "-m", "30", f"http://{host}/"], capture_output=True, check=True
                    ).stdout
                )
            )
            assert got == body


def test_netcat_talks_to_our_passive_socket_and_closes_its_half_first():
    data = noise(300_000)

    def echo_at_the_end(connection: Socket) -> None:
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
        connection.sendall(b"".join(parts))

    with rig() as r, listening(r.stack, echo_at_the_end, 7):
        got = r.kernel.call(
            lambda: subprocess.run(["nc", "-N", OURS, "7"], input=data, capture_output=True, check=True, timeout=30)
        )
    assert got.stdout == data


def test_a_port_nobody_listens_on_refuses_in_both_directions():
    with rig() as r:
        with pytest.raises(ConnectionRefusedError):
            create_connection(r.stack, (KERNEL, 81), 5)
        code = r.kernel.call(lambda: knock(OURS, 81))
        assert code == errno.ECONNREFUSED


@pytest.mark.parametrize("offload", [True, False], ids=["offload", "plain"])
def test_a_fetch_from_nginx_is_octet_exact_and_wireshark_finds_nothing(tmp_path: Path, offload: bool):
    data = noise(20_000_000 if offload else 5_000_000)
    (tmp_path / "file").write_bytes(data)
    capture = tmp_path / "clean.pcap"
    # a TAP device queues 500 frames: with a window above that a busy machine loses some
    config = Config() if offload else Config(receive_buffer=400_000)
    with rig(capture=capture, offload=offload, tcp=config) as r, nginx(r.kernel, tmp_path):
        for host in (KERNEL, KERNEL6):
            assert fetch(r.stack, host, "/file") == sha256(data).hexdigest()
    assert complaints(capture, 80, checksums=not offload) == []


@pytest.mark.parametrize(
    ("faults", "size"),
    [
        (Faults(delay=25 * MS, bandwidth=12_500_000), 4_000_000),
        (Faults(loss=0.01, delay=25 * MS), 2_000_000),
        (Faults(loss=0.10, delay=25 * MS), 250_000),
        (Faults(reorder=0.05, duplicate=0.02, delay=5 * MS, jitter=3 * MS), 4_000_000),
        (Faults(loss=0.02, reorder=0.05, duplicate=0.02, delay=5 * MS), 2_000_000),
    ],
    ids=["50 ms", "1 % loss", "10 % loss", "reordering and duplication", "all at once"],
)
def test_through_a_bad_cable_every_octet_arrives_both_ways(tmp_path: Path, faults: Faults, size: int):
    data = noise(size)
    (tmp_path / "file").write_bytes(data)

    def take(connection: Socket) -> None:
        digest = sha256()
        while part := connection.recv(1 << 20):
            digest.update(part)
        connection.sendall(digest.hexdigest().encode())

    def push() -> str:
        with socket.create_connection((OURS, 9), 30) as s:
            s.settimeout(120)
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            return s.recv(100).decode()

    def give(connection: Socket) -> None:
        connection.sendall(data)

    def pull() -> str:
        digest = sha256()
        with socket.create_connection((OURS, 19), 30) as s:
            s.settimeout(120)
            while part := s.recv(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    capture = tmp_path / "bad.pcap"
    with rig(faults, capture) as r, nginx(r.kernel, tmp_path):
        assert fetch(r.stack, KERNEL, "/file") == sha256(data).hexdigest()
        with listening(r.stack, give, 19), listening(r.stack, take, 9):
            assert r.kernel.call(pull) == sha256(data).hexdigest()
            assert r.kernel.call(push) == sha256(data).hexdigest()
    assert tshark(capture, "_ws.malformed") == []
    if faults.loss:  # then frames are missed, and told from those that only lay about
        assert unexplained(capture, 80)


def test_a_vlan_over_packet_sockets(tmp_path: Path):
    """Two stacks of ours, for many kernels have no VLAN interface; what passes the kernel is read by Wireshark."""
    data = noise(3_000_000)
    capture = tmp_path / "vlan.pcap"
    with pair() as (one, two), capture.open("wb") as file:
        far = Stack(PacketNic("there", b"\x02\0\0\0\0\x98", tagged=True), vlan=5)
        near = Stack(PcapTee(PacketNic("here", b"\x02\0\0\0\0\x99", tagged=True), file, as_wired=False), vlan=5)
        try:
            two.call(far.start)
            one.call(near.start)
            far.add_address("10.9.0.8/24")
            near.add_address("10.9.0.9/24")
            with (
                listening(far, lambda connection: connection.sendall(data), 19),
                create_connection(near, ("10.9.0.8", 19), 10) as connection,
            ):
                connection.settimeout(30)
                got = bytearray()
                while part := connection.recv(1 << 20):
                    got += part
            assert got == data
            with pytest.raises(OSError, match="no answer"):
                near.ping("10.9.0.2", timeout=0.3)  # the kernel at the other end, which is on no VLAN
        finally:
            near.close()
            far.close()
    assert tshark(capture, "_ws.malformed") == []
    assert len(tshark(capture, "vlan.id == 5 && tcp.len > 1448")) > 20  # merged by offload
    assert tshark(capture, "tcp && not vlan") == []


def test_a_packet_socket_beside_the_machines_own_stack():
    data = noise(3_000_000)

    def give(connection: Socket) -> None:
        connection.sendall(data)

    def pull() -> bytes:
        parts = []
        with socket.create_connection(("10.9.0.9", 19), 30) as s:
            while part := s.recv(1 << 20):
                parts.append(part)
        return b"".join(parts)

    with pair() as (one, two):
        stack = Stack(PacketNic("here", b"\x02\0\0\0\0\x99"))
        try:
            one.call(stack.start)
            stack.add_address("10.9.0.9/24")
            assert stack.ping("10.9.0.2", timeout=5) < 5
            assert "1 received" in two.run("ping -c 1 -W 5 10.9.0.9")
            with listening(stack, give, 19):
                assert two.call(pull) == data
        finally:
            stack.close()


def test_datagrams_that_a_sender_left_to_be_cut_arrive_one_by_one():
    """UDP_SEGMENT over a veth pair: nobody has cut them when they come to the packet socket."""
    data = noise(10_500)
    with pair() as (one, two):
        stack = Stack(PacketNic("here", b"\x02\0\0\0\0\x99"))
        try:
            one.call(stack.start)
            stack.add_address("10.9.0.9/24")
            ours = Socket(stack, socket.SOCK_DGRAM)
            ours.bind(("", 5000))
            ours.settimeout(10)
            theirs = two.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with theirs:
                theirs.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT of linux/udp.h
                theirs.sendto(data, ("10.9.0.9", 5000))
            got = [ours.recvfrom(65_536)[0] for _ in range(11)]
            assert [len(part) for part in got] == [1000] * 10 + [500]
            assert b"".join(got) == data
        finally:
            stack.close()


def test_the_kernel_sees_our_address_conflict_and_we_its():
    with rig() as r:
        r.kernel.run(f"ip address add {OURS}/24 dev bwstack")
        shown = r.kernel.call(
            lambda: subprocess.run(
                ["arping", "-D", "-c", "1", "-w", "2", "-I", "bwstack", OURS], capture_output=True, text=True
            )
        )
        assert shown.returncode == 1, shown.stdout + shown.stderr  # iputils: somebody answered
        assert "02:" in shown.stdout


def test_dnsmasq_configures_us_and_names_the_boot_file(tmp_path: Path):
    kernel = Namespace()
    tap = TapNic("bwstack", random_mac())
    stack = Stack(tap)
    try:
        kernel.call(stack.start)
        kernel.run(f"ip address add {KERNEL}/24 dev bwstack")
        kernel.run("ip link set bwstack up")
        kernel.wait_for_carrier()
        server = kernel.start(
            "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=bwstack", "--bind-interfaces",
            "--no-ping",
            "--dhcp-range=10.77.0.100,10.77.0.120,255.255.255.0,2m", f"--dhcp-leasefile={tmp_path}/leases",
            "--dhcp-option=option:router,10.77.0.1", "--dhcp-option=option:dns-server,10.77.0.1",
            "--dhcp-option=option:mtu,1400", "--dhcp-option=option:domain-name,lan.example",
            "--dhcp-option=option:classless-static-route,192.0.2.0/24,10.77.0.7,0.0.0.0/0,10.77.0.1",
            "--dhcp-boot=tag:!x,loader.efi,srv,10.77.0.1", "--user=root",
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            network = stack.obtain(20, host_name="ours")
            assert network.address.startswith("10.77.0.1")
            assert (network.prefix, network.server, network.seconds) == (24, KERNEL, 120)
            assert (network.boot_server, network.boot_file) == (KERNEL, "loader.efi")
            assert (network.dns, network.domain, network.mtu) == ((KERNEL,), "lan.example", 1400)
            assert network.routes == (("192.0.2.0", 24, "10.77.0.7"), ("0.0.0.0", 0, KERNEL))
            assert stack.host.mtu == 1400
            assert stack.ping(KERNEL, timeout=5) < 5
            assert tap.mac.hex(":") in (tmp_path / "leases").read_text()
        finally:
            server.terminate()
            server.wait(10)
    finally:
        stack.close()
        kernel.close()


def test_a_lease_of_udhcpd_is_renewed(tmp_path: Path):
    (tmp_path / "leases").touch()
    (tmp_path / "conf").write_text(
        f"start 10.77.0.100\nend 10.77.0.120\ninterface bwstack\nlease_file {tmp_path}/leases\n"
        f"pidfile {tmp_path}/pid\noption subnet 255.255.255.0\noption lease 6\nmin_lease 1\n"
    )
    with rig() as r:
        server = r.kernel.start("udhcpd", "-f", str(tmp_path / "conf"), stderr=subprocess.PIPE)
        try:
            network = r.stack.obtain(20)
            assert (network.server, network.seconds) == (KERNEL, 6)
            agent = next(one for one in r.stack.agents if isinstance(one, Dhcp))
            for _ in range(2):  # after three seconds each
                before = agent.network
                assert r.stack.wait(lambda before=before: agent.network is not before, 30)
                assert agent.network is not None
                assert (agent.network.address, agent.network.lease.renewed) == (network.address, True)
        finally:
            server.terminate()
            server.communicate(timeout=10)


def test_keep_alive_finds_out_that_the_kernel_has_forgotten_us():
    with rig(tcp=Config(keepalive=S // 5, keepalive_gap=S // 5, keepalive_probes=5)) as r:
        listener = r.kernel.call(lambda: socket.create_server((KERNEL, 9)))
        with listener, create_connection(r.stack, (KERNEL, 9), 10) as connection:
            connection.settimeout(30)
            accepted, _ = listener.accept()
            with accepted:
                sent = r.stack.nic.statistics.sent
                assert r.stack.wait(lambda: r.stack.nic.statistics.sent >= sent + 3, 10)  # probed, answered, alive
                accepted.sendall(b"still here")
                assert connection.recv(100) == b"still here"
                r.kernel.run(f"ip address del {KERNEL}/24 dev bwstack")
                with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
                    connection.recv(1)


def test_datagrams_to_and_from_the_kernel_and_what_its_icmp_says():
    with rig() as r:
        theirs = r.kernel.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        theirs.settimeout(10)
        theirs.bind((KERNEL, 5000))
        ours = Socket(r.stack, socket.SOCK_DGRAM)
        ours.settimeout(10)
        data = noise(30_000)
        ours.sendto(data, (KERNEL, 5000))
        got, sender = theirs.recvfrom(65_536)
        assert (got, sender[0]) == (data, OURS)
        theirs.sendto(data[::-1], sender)
        assert ours.recvfrom(65_536) == (data[::-1], (KERNEL, 5000))
        theirs.close()
        ours.connect((KERNEL, 5000))
        ours.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            ours.recv(1)
        asking = r.kernel.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking.settimeout(10)
        asking.connect((OURS, 9))
        asking.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(1)
        asking.close()


def test_a_router_with_a_smaller_mtu_behind_it_is_heeded_in_both_families():
    """Our stack -- a kernel that forwards -- a link of 1300 octets -- a kernel that listens."""
    data = noise(1_000_000)
    with rig() as r:
        beyond = Namespace()
        try:
            r.kernel.run(
                f"ip link add narrow mtu 1300 type veth peer name narrow mtu 1300 netns /proc/{beyond.tid}/ns/net"
            )
            for end, last in ((r.kernel, 1), (beyond, 2)):
                end.run(f"ip address add 10.78.0.{last}/24 dev narrow")
                end.run(f"ip address add 2001:db8:78::{last}/64 dev narrow nodad")
                end.run("ip link set narrow up")
            for end in (r.kernel, beyond):
                end.wait_for_carrier()
            r.kernel.run("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
            beyond.run("ip route add default via 10.78.0.1")
            beyond.run("ip -6 route add default via 2001:db8:78::1")
            r.stack.add_route("default", KERNEL)
            r.stack.add_route("::/0", KERNEL6)
            for family, host, headers in ((socket.AF_INET, "10.78.0.2", 40), (socket.AF_INET6, "2001:db8:78::2", 60)):
                listener = beyond.call(lambda family=family: socket.create_server(("", 9), family=family))
                got = bytearray()

                def take(listener=listener, got=got) -> None:
                    accepted, _ = listener.accept()
                    with accepted:
                        while part := accepted.recv(1 << 20):
                            got.extend(part)
                        accepted.sendall(b"ok")

                thread = threading.Thread(target=take)
                thread.start()
                # the far kernel announces what its own link takes, so a larger one is pretended
                with create_connection(r.stack, (host, 9), 20) as connection:
                    connection._flow.connection._mss = 1500 - headers - 12
                    connection.settimeout(30)
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    assert connection.recv(2) == b"ok"
                    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1300 - headers - 12
                thread.join(10)
                listener.close()
                assert got == data
        finally:
            beyond.close()


def test_addresses_and_a_router_come_from_a_real_router_advertisement():
    with rig() as r:
        daemon = r.kernel.start(
            "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=bwstack", "--enable-ra",
            "--dhcp-range=2001:db8:77::,ra-only,64,10m", "--dhcp-leasefile=/dev/null", "--user=root",
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            r.stack.start_ipv6()

            def configured() -> bool:
                found = [a.hex() for a, _ in r.stack.host.addresses if a.hex().startswith("20010db800770000")]
                return any("fffe" in a for a in found)

            assert r.stack.wait(configured, 30)
            router = r.stack.host.routes.find(bytes.fromhex("2001" + "0" * 27 + "1"))
            assert router is not None
            assert router.gateway.startswith(bytes.fromhex("fe80"))
            assert r.stack.ping(KERNEL6, timeout=5) < 5
        finally:
            daemon.terminate()
            daemon.wait(10)


@pytest.mark.parametrize("address", [True, False], ids=["stateful", "stateless"])
def test_dnsmasq_configures_us_by_dhcpv6(address: bool):
    with rig() as r:
        server = r.kernel.start(
            "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=bwstack", "--enable-ra",
            f"--dhcp-range=2001:db8:77::100,{'2001:db8:77::1ff' if address else 'static'},64,10m",
            "--dhcp-option=option6:dns-server,[2001:db8:77::1]", "--dhcp-option=option6:domain-search,lan.example",
            "--dhcp-option=option6:bootfile-url,http://[2001:db8:77::1]/loader.efi", "--dhcp-leasefile=/dev/null",
            "--user=root", stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            r.stack.start_ipv6()
            network = r.stack.obtain6(30, Wants(address=address))
            assert network.address.startswith("2001:db8:77::1") if address else network.address == ""
            assert (network.dns, network.domains) == ((KERNEL6,), ("lan.example",))
            assert network.boot_url == "http://[2001:db8:77::1]/loader.efi"
        finally:
            server.terminate()
            server.wait(10)


def test_ping_resolve_and_fetch_by_command_line_with_an_address_from_dhcp(tmp_path: Path):
    data = noise(10_000_000)
    capture = tmp_path / "card.pcap"
    with pair() as (one, two):
        server = two.start(
            "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--interface=there",
            "--bind-interfaces", "--no-ping", "--dhcp-range=10.9.0.100,10.9.0.120,255.255.255.0,2m",
            f"--dhcp-leasefile={tmp_path}/leases", "--host-record=host.example,10.9.0.2", "--user=root",
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:

            def bootwire(*words: str) -> subprocess.CompletedProcess[str]:
                command = [sys.executable, "-m", "bootwire", *words, "--nic", "here"]
                source = str(Path(bootwire_package.__file__).parents[1])
                environment = {**os.environ, "PYTHONPATH": source}
                return one.call(lambda: subprocess.run(command, capture_output=True, text=True, env=environment))

            pinged = bootwire("ping", "host.example", "-c", "1", "--pcap", str(capture))
            assert pinged.returncode == 0, pinged.stderr
            assert "1 of 1 answered" in pinged.stdout
            assert bootwire("resolve", "HOST.example").stdout == "10.9.0.2\n"
            missing = bootwire("resolve", "none.example")
            assert missing.returncode == 1
            assert "none.example" in missing.stderr
            (tmp_path / "file").write_bytes(data)
            with nginx(two, tmp_path, "10.9.0.2"):
                copy = tmp_path / "copy"
                digest = f"sha256:{sha256(data).hexdigest()}"
                fetched = bootwire("fetch", "http://host.example/file", "-o", str(copy), "--digest", digest)
                assert fetched.returncode == 0, fetched.stderr
                assert copy.read_bytes() == data
                absent = bootwire("fetch", "http://host.example/absent", "-o", str(tmp_path / "absent"))
                assert (absent.returncode, (tmp_path / "absent").exists()) == (1, False)
                assert "404" in absent.stderr
            nobody = bootwire("ping", "10.9.0.77", "-c", "1", "--address", "10.9.0.9/24")
            assert nobody.returncode == 1
            assert "none of 1 answered" in nobody.stdout
        finally:
            server.terminate()
            server.wait(10)
    shown = subprocess.run(["tshark", "-n", "-r", str(capture)], capture_output=True, text=True, check=True).stdout
    assert all(word in shown for word in ("DHCP Discover", "DHCP ACK", "A host.example", "Echo (ping) reply"))
