#!/usr/bin/python3
"""Our TCP/IP, in Python on a TAP device, beside the kernel's own: goodput of one connection, in one run.

    sudo benchmarks/stack.py              400 MB each way, 3 repetitions: a minute
    sudo benchmarks/stack.py --bad        instead: both through the same bad cable, with the same seeds
    sudo benchmarks/stack.py --gigabyte   instead: 1 GB from nginx by our HTTP client through each of the cables below,
                                          its SHA-256 compared; 15 minutes. --cable NAME, repeatable: only that one

The server (nginx, and a sink in Python) is pinned to CPU 0 in a namespace, the client to CPU 1. "tap" is our stack on a
TAP device with checksum and segmentation offload, "tap, plain" the same without, "packet" our stack on a packet socket
on a veth pair, "kernel" the kernel's own TCP on that veth pair, read by the same Python loop. Each repetition runs
every path once; CPU is the client process's own, which for the kernel's TCP includes what the kernel does for it.
The bad cable is preboot.bridge between two TAP devices (kernel to kernel) or between a TAP device and our card; it is
Python in either case, and neither side has offload there. nginx's kernel sends by the congestion control that is said:
by BBR where that may be used, for CUBIC and Reno take one loss in ten for a full link and would need an hour at 50 ms.
Status 1: less than 1 Gbit/s received with offload, or a file that differs. Needs root, iproute2, nginx and two CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

PYTHON = "/usr/bin/python3"  # Debian's: built with optimisation
TAP, VETH = "10.77.0", "10.78.0"
SINK = 9
READ = 1 << 20  # octets a read
MS = 1_000_000  # nanoseconds
CABLES: dict[str, tuple[dict[str, float], int]] = {  # faults each way, octets to move
    "50 ms, 100 Mbit/s": ({"delay": 25 * MS, "bandwidth": 12_500_000}, 8_000_000),
    "50 ms, 1 % loss": ({"delay": 25 * MS, "loss": 0.01}, 1_000_000),
    "50 ms, 10 % loss": ({"delay": 25 * MS, "loss": 0.10}, 200_000),
    "10 ms, 5 % reordered, 2 % twice": (
        {"delay": 5 * MS, "reorder": 0.05, "jitter": 3 * MS, "duplicate": 0.02}, 4_000_000,
    ),
}  # fmt: skip
GIGABYTE: dict[str, dict[str, float]] = {  # faults each way; the first: none, and with offload
    "clean": {},
    "1 % loss": {"loss": 0.01},
    "10 % loss": {"loss": 0.10},
    "5 % reordered by 3 ms, 2 % twice": {"reorder": 0.05, "jitter": 3 * MS, "duplicate": 0.02},
    "50 ms": {"delay": 25 * MS},
    "50 ms, 1 % loss": {"delay": 25 * MS, "loss": 0.01},
    "50 ms, 10 % loss": {"delay": 25 * MS, "loss": 0.10},
    "all at once": {"delay": 25 * MS, "loss": 0.10, "reorder": 0.05, "jitter": 3 * MS, "duplicate": 0.02},
}
WANTED = 1000  # Mbit/s received with offload
PATHS = ("tap", "tap, one thread", "tap, plain", "packet", "kernel")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--bad", action="store_true")
    parser.add_argument("--gigabyte", action="store_true")
    parser.add_argument("--cable", action="append", metavar="NAME", help="of --gigabyte")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--octets", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--upload", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child == "sink":
        return sink()
    if asked.child in ("bad ours", "bad kernel"):
        kernel_end = asked.child == "bad kernel"
        result = through_cable(kernel_end, asked.upload, asked.octets, CABLES[asked.cable[0]][0], asked.seed)
        print(json.dumps(result))
        return 0
    if asked.child == "plain":
        print(json.dumps(measure(connect_kernel(f"{TAP}.1", asked.upload), asked.upload, asked.octets, False)))
        return 0
    if asked.child == "gigabyte":
        print(json.dumps(fetch_gigabyte(GIGABYTE[asked.cable[0]])))
        return 0
    if asked.child:
        print(json.dumps(client(asked.child, asked.upload, asked.megabytes * 1_000_000)))
        return 0
    cables = asked.cable or list(GIGABYTE)
    if unknown := [name for name in cables if name not in GIGABYTE]:
        parser.error(f"no cable is called {unknown[0]!r}: {', '.join(GIGABYTE)}")
    with network() as (server, other), tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        root.chmod(0o755)
        with services(server, root, asked.megabytes * 1_000_000):
            if asked.gigabyte:
                return gigabyte_table(server, root, cables)
            if asked.bad:
                bad_table(server, asked.repetitions)
                return 0
            return table(server, other, asked)


def table(server: str, other: str, asked: argparse.Namespace) -> int:
    """Run all paths in turn, and print medians with their spread. Status 0 if we receive fast enough."""
    found: dict[tuple[str, bool], list[dict[str, float]]] = {}
    for _ in range(asked.repetitions):
        for upload in (False, True):
            for path in PATHS:
                megabytes = asked.megabytes // 8 if path == "tap, plain" else asked.megabytes
                found.setdefault((path, upload), []).append(run(server, other, path, upload, megabytes))
    print(f"{'':18}{'Mbit/s wall (least .. most)':>32}{'Mbit per CPU second':>22}{'of the kernel':>15}")
    for upload in (False, True):
        print("sending" if upload else "receiving")
        for path in PATHS:
            runs, base = found[path, upload], found["kernel", upload]
            wall = sorted(r["octets"] * 8e-6 / r["seconds"] for r in runs)
            cpu = statistics.median(r["octets"] * 8e-6 / r["cpu"] for r in runs)
            ratio = statistics.median(
                (r["octets"] / r["seconds"]) / (k["octets"] / k["seconds"]) for r, k in zip(runs, base, strict=True)
            )
            spread = f"{statistics.median(wall):.0f} ({wall[0]:.0f} .. {wall[-1]:.0f})"
            print(f"  {path:16}{spread:>32}{cpu:>22.0f}{ratio:>15.2f}")
    received = statistics.median(r["octets"] * 8e-6 / r["seconds"] for r in found["tap", False])
    print(f"{received:.0f} Mbit/s received on one core with offload: {'PASS' if received >= WANTED else 'FAIL'}")
    return 0 if received >= WANTED else 1


def run(server: str, other: str, path: str, upload: bool, megabytes: int) -> dict[str, float]:
    """One client process, in the namespace that its path needs."""
    where = server if path.startswith("tap") else other
    command = ["ip", "netns", "exec", where, "taskset", "-c", "1", PYTHON, __file__, "--child", path]
    command += ["--megabytes", str(megabytes)] + ["--upload"] * upload
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def bad_table(server: str, repetitions: int) -> None:
    """Ours and the kernel's TCP in turn through the same faults."""
    print(
        f"{'Mbit/s, median (least .. most)':34}{'receiving: ours':>24}{'kernel':>24}{'sending: ours':>24}{'kernel':>24}"
    )
    for name, (_, octets) in CABLES.items():
        cells = []
        for upload in (False, True):
            rates: dict[str, list[float]] = {"bad ours": [], "bad kernel": []}
            for seed in range(1, repetitions + 1):
                for child in rates:
                    command = ["ip", "netns", "exec", server, "taskset", "-c", "1", PYTHON, __file__, "--child", child]
                    command += ["--cable", name, "--seed", str(seed), "--octets", str(octets)] + ["--upload"] * upload
                    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
                    result = json.loads(done.stdout)
                    rates[child].append(result["octets"] * 8e-6 / result["seconds"])
            cells += [f"{statistics.median(r):.2f} ({min(r):.2f} .. {max(r):.2f})" for r in rates.values()]
        print(f"{name:34}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


def gigabyte_table(server: str, root: pathlib.Path, cables: list[str]) -> int:
    """1 GB through each cable; what it took, and whether it is the same. Status 0 if all are."""
    digest = hashlib.sha256()
    with (root / "gigabyte").open("wb") as file:
        for _ in range(1000):
            data = os.urandom(1_000_000)
            digest.update(data)
            file.write(data)
    print(
        f"{'1 GB from nginx':34}{'seconds':>9}{'Mbit/s':>9}{'frames':>11}{'lost':>9}{'late':>9}{'twice':>9}"
        f"{'connections':>13}  sender  SHA-256"
    )
    status = 0
    for name in cables:
        command = ["ip", "netns", "exec", server, "taskset", "-c", "1", PYTHON, __file__, "--child", "gigabyte"]
        done = subprocess.run([*command, "--cable", name], check=True, capture_output=True, text=True, timeout=1200)
        found = json.loads(done.stdout)
        same = found["sha256"] == digest.hexdigest()
        status |= not same
        rate = found["octets"] * 8e-6 / found["seconds"]
        print(
            f"{name:34}{found['seconds']:>9.1f}{rate:>9.0f}{found['frames']:>11}{found['lost']:>9}{found['late']:>9}"
            f"{found['twice']:>9}{found['opened']:>13}  {found['sender']:6}  {'equal' if same else 'DIFFERENT'}",
            flush=True,
        )
    return status


def fetch_gigabyte(faults: dict[str, float]) -> dict[str, object]:
    """By our HTTP client, on our TCP, through `faults`; what came and what the cable did to it."""
    from bootwire.preboot.bridge import Bridge
    from bootwire.preboot.fetch import Fetcher
    from bootwire.preboot.impair import Faults
    from bootwire.preboot.nic import TapNic, cable, random_mac
    from bootwire.preboot.stack import Stack
    from bootwire.preboot.transport import StackTransport, Stream

    sender = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
    with contextlib.suppress(OSError):  # this kernel has none, or does not lend it to namespaces
        sender.write_text("bbr")
    tap = TapNic(f"bwg{os.getpid() % 10000}", random_mac(), offload=not faults)
    bridge, ours = None, tap
    if faults:
        tap.open()
        ours, far = cable(random_mac(), random_mac(), offload=False)
        bridge = Bridge(tap, far, Faults(**faults), 1).start()  # type: ignore[arg-type]
    opened = 0

    class Counted(StackTransport):
        def stream(self, address: str, port: int, timeout: float) -> Stream:
            nonlocal opened
            opened += 1
            return super().stream(address, port, timeout)

    with Stack(ours) as stack:
        tap.carrier()
        subprocess.run(["ip", "address", "add", f"{TAP}.1/24", "dev", tap.name], check=True)
        stack.add_address(f"{TAP}.9/24")
        for _ in range(10):  # some are lost
            with contextlib.suppress(OSError):
                stack.ping(f"{TAP}.1")
                break
        with Fetcher(Counted(stack)) as fetcher:
            got = fetcher.fetch(f"http://{TAP}.1/gigabyte", len)
    if bridge is None:
        frames = ours.statistics.received + ours.statistics.sent
        did = {"frames": frames, "lost": 0, "late": 0, "twice": 0}
    else:
        bridge.close()
        did = {
            "frames": sum(way.passed + way.lost for way in bridge.ways),
            "lost": sum(way.lost for way in bridge.ways),
            "late": sum(way.reordered for way in bridge.ways),
            "twice": sum(way.duplicated for way in bridge.ways),
        }
    result = {"octets": got.octets, "seconds": got.seconds, "sha256": got.sha256, "opened": opened}
    return result | did | {"sender": sender.read_text().strip()}


def through_cable(kernel: bool, upload: bool, octets: int, faults: dict[str, float], seed: int) -> dict[str, object]:
    """One transfer from this namespace's server, through a bad cable, by our TCP or by a second kernel's."""
    from bootwire.preboot.bridge import Bridge
    from bootwire.preboot.impair import Faults
    from bootwire.preboot.nic import TapNic, cable, random_mac
    from bootwire.preboot.sockets import create_connection
    from bootwire.preboot.stack import Stack

    near = TapNic(f"bwn{os.getpid() % 10000}", random_mac(), offload=False)
    near.open()
    near.carrier()
    subprocess.run(["ip", "address", "add", f"{TAP}.1/24", "dev", near.name], check=True)
    made = Faults(**faults)  # type: ignore[arg-type]
    if not kernel:
        ours, far = cable(random_mac(), random_mac(), offload=False)
        bridge = Bridge(near, far, made, seed).start()
        with Stack(ours) as stack:
            stack.add_address(f"{TAP}.9/24")
            for _ in range(10):  # some are lost
                with contextlib.suppress(OSError):
                    stack.ping(f"{TAP}.1")
                    break
            result = measure(create_connection(stack, (f"{TAP}.1", SINK if upload else 80), 30), upload, octets)
        bridge.close()
        return result
    far_tap = TapNic(f"bwf{os.getpid() % 10000}", random_mac(), offload=False)
    far_tap.open()
    name = f"bwstack{os.getpid()}k"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            f"link set {far_tap.name} netns {name}",
            f"-n {name} address add {TAP}.9/24 dev {far_tap.name}",
            f"-n {name} link set {far_tap.name} up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        bridge = Bridge(near, far_tap, made, seed).start()
        command_line = ["ip", "netns", "exec", name, PYTHON, __file__, "--child", "plain", "--octets", str(octets)]
        done = subprocess.run(command_line + ["--upload"] * upload, check=True, capture_output=True, text=True)
        bridge.close()
        found: dict[str, object] = json.loads(done.stdout)
        return found
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def connect_kernel(host: str, upload: bool) -> socket.socket:
    return socket.create_connection((host, SINK if upload else 80))


@contextlib.contextmanager
def network() -> Iterator[tuple[str, str]]:
    server, other = f"bwstack{os.getpid()}s", f"bwstack{os.getpid()}c"
    for name in (server, other):
        subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            f"-n {server} link set lo up",
            f"-n {server} link add cable type veth peer name cable netns {other}",
            f"-n {server} address add {VETH}.1/24 dev cable",
            f"-n {other} address add {VETH}.2/24 dev cable",
            f"-n {server} link set cable up",
            f"-n {other} link set cable up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        yield server, other
    finally:
        for name in (server, other):
            subprocess.run(["ip", "netns", "delete", name], check=True)


@contextlib.contextmanager
def services(server: str, root: pathlib.Path, octets: int) -> Iterator[None]:
    """nginx and the sink, on CPU 0."""
    with (root / "file").open("wb") as file:
        file.truncate(octets)
    (root / "nginx.conf").write_text(
        f"daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1; user root; events {{}}\n"
        f"http {{ access_log off; sendfile on; server {{ listen 80; root {root}; }} }}\n"
    )
    prefix = ["ip", "netns", "exec", server, "taskset", "-c", "0"]
    web = ["nginx", "-c", str(root / "nginx.conf"), "-p", str(root)]
    running = [
        subprocess.Popen([*prefix, *web], stderr=subprocess.DEVNULL),
        subprocess.Popen([*prefix, PYTHON, __file__, "--child", "sink"]),
    ]  # fmt: skip
    time.sleep(1)
    try:
        yield
    finally:
        for process in running:
            process.terminate()
            process.wait()


def sink() -> int:
    """Take everything, and say so at the end."""
    with socket.create_server(("", SINK)) as listener:
        buffer = bytearray(READ)
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                while connection.recv_into(buffer):
                    pass
                connection.sendall(b"ok")


def client(path: str, upload: bool, octets: int) -> dict[str, object]:
    """Fetch or send once; what it took."""
    if path == "kernel":
        return measure(connect_kernel(f"{VETH}.1", upload), upload, octets)
    from bootwire.engine.tcp import Config
    from bootwire.preboot.nic import Nic, PacketNic, TapNic, random_mac
    from bootwire.preboot.sockets import create_connection
    from bootwire.preboot.stack import Stack

    net = VETH if path == "packet" else TAP
    nic: Nic
    if path == "packet":
        nic = PacketNic("cable", random_mac())
    else:
        nic = TapNic(f"bwtap{os.getpid() % 10000}", random_mac(), offload=path != "tap, plain")
    config = Config(receive_buffer=4 << 20, send_buffer=4 << 20)
    with Stack(nic, threaded=path != "tap, one thread", tcp=config) as stack:
        if isinstance(nic, TapNic):
            nic.carrier()
            subprocess.run(["ip", "address", "add", f"{TAP}.1/24", "dev", nic.name], check=True)
        stack.add_address(f"{net}.9/24")
        stack.ping(f"{net}.1", timeout=5)
        return measure(create_connection(stack, (f"{net}.1", SINK if upload else 80), 10), upload, octets)


def measure(connection: object, upload: bool, octets: int) -> dict[str, object]:
    s: socket.socket = connection  # type: ignore[assignment]  # ours has the same methods
    began, cpu = time.perf_counter(), time.process_time()
    got = 0
    if upload:
        data = bytes(min(READ, octets))
        while got < octets:
            s.sendall(data[: octets - got])
            got += min(len(data), octets - got)
        s.shutdown(socket.SHUT_WR)
        assert s.recv(2) == b"ok"
    else:
        s.sendall(f"GET /file HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{octets - 1}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += s.recv(65_536)
        assert b" 206 " in head[:20], head
        got = len(head.partition(b"\r\n\r\n")[2])
        while got < octets:
            data = s.recv(READ)
            assert data
            got += len(data)
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    s.close()
    return {"octets": got, "seconds": seconds, "cpu": spent}


if __name__ == "__main__":
    sys.exit(main())
