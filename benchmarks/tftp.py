#!/usr/bin/python3
"""TFTP beside dnsmasq, tftpd-hpa and atftpd: throughput, tail, client time-outs, CPU and memory, all in one run.

    sudo benchmarks/tftp.py            quick: three minutes
    sudo benchmarks/tftp.py --full     every window and number of clients, more repetitions: twenty minutes
    sudo benchmarks/tftp.py --only w16x200 --peers dnsmasq

Server on CPU 0, client on CPU 1, in a network namespace of their own, one server at a time on 127.0.0.1:69. All serve
the same files to the same client, which checks every octet and waits a second before it asks again, as firmware does.
Peers take turns within a repetition, after one round that is not counted; a ratio is the median of the repetitions'
own ratios, because the machine's speed wanders more between repetitions than within one. Bootwire runs with its
journal writing JSON lines.

Peers come from Debian: the installed dnsmasq; tftpd-hpa and atftpd are downloaded and unpacked into .cache, because
their packages exclude each other. Needs root (or user namespaces), iproute2 and two CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import gc
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "peers"
PYTHON = "/usr/bin/python3"  # Debian's: built with optimisation
AT = ("127.0.0.1", 69)
BLOCK = 1468
STRIDE = BLOCK + 4  # octets of a DATA datagram
JOINED = 65536  # octets of the most that the kernel joins
SOL_UDP, UDP_GRO = 17, 104  # linux/udp.h
RETRY = 1.0  # seconds until the client asks or acknowledges again
OURS = "bootwire"


@dataclass(frozen=True)
class Work:
    """`clients` fetch one file of `octets` each, all at once."""

    window: int
    clients: int
    octets: int

    @property
    def name(self) -> str:
        return f"w{self.window}x{self.clients}"


MB = 1_000_000
WORKS = [
    Work(1, 1, 20 * MB), Work(1, 20, 3 * MB), Work(1, 200, 300_000), Work(1, 1000, 60_000),
    Work(4, 1, 20 * MB), Work(4, 20, 6 * MB), Work(4, 200, 600_000), Work(4, 1000, 120_000),
    Work(16, 1, 40 * MB), Work(16, 20, 10 * MB), Work(16, 200, 1 * MB), Work(16, 1000, 200_000),
]  # fmt: skip
QUICK = ("w1x20", "w1x200", "w1x1000", "w16x20", "w16x200", "w16x1000")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all cells, 7 repetitions instead of 5")
    parser.add_argument("--reps", type=int, help="repetitions")
    parser.add_argument("--only", action="append", help="a cell, as in w16x200 (repeatable)")
    parser.add_argument("--peers", action="append", help="a peer (repeatable); none: --peers ''")
    parser.add_argument("--gro", action="store_true", help="a client whose kernel joins datagrams (UDP_GRO)")
    parser.add_argument("--real-time", action="store_true", help="before all else on this machine (SCHED_FIFO)")
    parser.add_argument("--out", type=pathlib.Path, help="write every single result there, as JSON")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    for hidden in ("--serve", "--load", "--inside"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    if options.load:
        return load(json.loads(options.load))
    if not options.inside:
        peers = {name: binary for name in options.peers or PEERS if name and (binary := PEERS[name]())}
        argument = json.dumps(peers)
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        first = ["chrt", "--fifo", "10"] if options.real_time else []
        command = [*first, "unshare", *own, "--net", PYTHON, __file__, *sys.argv[1:], "--inside", argument]
        os.execvp(command[0], command)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return measure(options, json.loads(options.inside))


# --- peers ------------------------------------------------------------------------------------------------------


def dnsmasq() -> str | None:
    return shutil.which("dnsmasq", path="/usr/sbin:/usr/bin") or unpacked("dnsmasq-base", "usr/sbin/dnsmasq")


def unpacked(package: str, member: str) -> str | None:
    """The program out of a Debian package that is not installed."""
    there = CACHE / package / member
    if not there.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=CACHE, capture_output=True, check=False)
        for deb in sorted(CACHE.glob(f"{package}_*.deb")):
            subprocess.run(["dpkg-deb", "-x", deb, CACHE / package], check=True)
    if not there.exists():
        print(f"{package} could not be had from apt: left out", file=sys.stderr)
        return None
    return str(there)


PEERS = {
    "dnsmasq": dnsmasq,
    "tftpd-hpa": lambda: unpacked("tftpd-hpa", "usr/sbin/in.tftpd"),
    "atftpd": lambda: unpacked("atftpd", "usr/sbin/atftpd"),
}


def command(name: str, binary: str, files: str) -> list[str]:
    match name:
        case "dnsmasq":
            return [
                binary, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--enable-tftp", f"--tftp-root={files}",
                "--tftp-max=5000", "--user=root", "--log-facility=/dev/null", "--pid-file=",
            ]  # fmt: skip
        case "tftpd-hpa":
            return [binary, "--foreground", "-4", "--user", "root", "-s", files]  # --address needs more than lo
        case "atftpd":
            return [
                binary, "--daemon", "--no-fork", "--bind-address", AT[0], "--port", str(AT[1]), "--user", "root.root",
                "--maxthread", "5000", "--logfile", "/dev/null", files,
            ]  # fmt: skip
        case _:
            return [PYTHON, __file__, "--serve", files]


# --- the run ----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, peers: dict[str, str]) -> int:
    works = [w for w in WORKS if w.name in (options.only or ([x.name for x in WORKS] if options.full else QUICK))]
    reps = options.reps or (7 if options.full else 5)
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as files:
        os.chmod(files, 0o755)
        for work in works:
            pathlib.Path(files, str(work.octets)).write_bytes(random.Random(work.octets).randbytes(work.octets))
        pathlib.Path(files, "tiny").write_bytes(b"x")
        for name in [OURS, *peers]:  # a network namespace just made is slower for a moment, whoever comes first
            one(name, peers.get(name, ""), works[0], files, options.gro)
        for work in works:
            for rep in range(reps):
                names = [OURS, *peers]
                for name in names[rep % len(names) :] + names[: rep % len(names)]:
                    results.append(one(name, peers.get(name, ""), work, files, options.gro))
                    results[-1]["rep"] = rep
            show(work, [r for r in results if r["work"] == work.name])
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    return 1 if verdict(results) and options.check else 0


def one(name: str, binary: str, work: Work, files: str, gro: bool) -> dict:
    with running(command(name, binary, files), cpu=0) as process:
        until_ready(process)
        before = cpu_seconds(process.pid)
        job = {"window": work.window, "clients": work.clients, "path": f"{files}/{work.octets}", "gro": gro}
        client = ["taskset", "-c", "1", PYTHON, __file__, "--load", json.dumps(job)]
        done = subprocess.run(client, capture_output=True, text=True, check=True)
        result: dict = json.loads(done.stdout)
        result |= {"peer": name, "work": work.name, "cpu": cpu_seconds(process.pid) - before, "peak": peak(process.pid)}
        return result


@contextlib.contextmanager
def running(arguments: list[str], cpu: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def until_ready(process: subprocess.Popen[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        for _ in range(100):
            sock.sendto(b"\0\1tiny\0octet\0", AT)
            with contextlib.suppress(OSError):
                data, tid = sock.recvfrom(600)
                if data == b"\0\3\0\1x":
                    sock.sendto(b"\0\4\0\1", tid)
                    return
            if process.poll() is not None:
                assert process.stderr is not None
                raise SystemExit(f"{process.args} ended: {process.stderr.read().decode()}")
    raise SystemExit(f"{process.args} does not answer")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    """MB of memory at most, of the process alone: tftpd-hpa's children are not in it."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return 0


# --- the report -------------------------------------------------------------------------------------------------


COLUMNS = "  {:10} {:>7} {:>13} {:>7} {:>7} {:>9} {:>8} {:>7}  {}"


def show(work: Work, results: list[dict]) -> None:
    print(f"\nwindowsize {work.window}, {work.clients} clients, {work.octets / MB:g} MB each, blksize {BLOCK}")
    heads = ("", "MB/s", "(min..max)", "p50 ms", "p99 ms", "time-outs", "CPU s/GB", "peak MB")
    print(COLUMNS.format(*heads, "ours/theirs: MB/s, p99, CPU"))
    by_peer: dict[str, list[dict]] = {}
    for result in results:
        by_peer.setdefault(result["peer"], []).append(result)
    for peer, own in sorted(by_peer.items(), key=lambda item: item[0] != OURS):
        speeds = [speed(r) for r in own]
        pairs = list(zip(by_peer[OURS], own, strict=True))
        forks = peer == "tftpd-hpa"  # and does not wait for its children: their time and memory are not known
        ratios = [statistics.median(f(a) / (f(b) or 1) for a, b in pairs) for f in (speed, tail, cost)]
        failures = sum(r["failures"] for r in own)
        print(COLUMNS.format(
            peer, f"{statistics.median(speeds):.0f}", f"({min(speeds):.0f}..{max(speeds):.0f})",
            f"{med(own, 'p50'):.0f}", f"{med(own, 'p99'):.0f}", f"{med(own, 'timeouts'):.0f}",
            "-" if forks else f"{statistics.median(cost(r) for r in own):.2f}",
            "-" if forks else f"{med(own, 'peak'):.0f}",
            ("" if peer == OURS else "  ".join(f"{r:5.2f}" for r in ratios[: 2 if forks else 3]))
            + (f"   {failures} FAILED" if failures else ""),
        ), flush=True)  # fmt: skip


def speed(result: dict) -> float:
    return result["octets"] / result["seconds"] / MB


def tail(result: dict) -> float:
    return result["p99"]


def cost(result: dict) -> float:
    return result["cpu"] / (result["octets"] / 1e9 or 1)


def med(results: list[dict], field: str) -> float:
    return statistics.median(result[field] for result in results)


def verdict(results: list[dict]) -> int:
    """Compare with the targets; the best peer is the best one of each repetition. Returns how many were missed."""
    print("\ntargets")
    missed = 0

    def judge(met: bool, what: str) -> None:
        nonlocal missed
        missed += not met
        print(f"  {'met   ' if met else 'MISSED'} {what}")

    for work in dict.fromkeys(r["work"] for r in results):
        own = [r for r in results if r["work"] == work]
        ours = [r for r in own if r["peer"] == OURS]
        ratios = []
        for result in ours:
            peers = [speed(r) for r in own if r["rep"] == result["rep"] and r["peer"] != OURS]
            ratios += [speed(result) / max(peers)] if peers else []
        window, clients = (int(part) for part in work[1:].split("x"))
        least = 2.5 if window == 16 else 0.9 if window == 1 and clients in (20, 200) else 0
        if ratios and least:
            each = " ".join(f"{r:.2f}" for r in ratios)
            ratio = statistics.median(ratios)
            judge(ratio >= least, f"{work}: {ratio:.2f} of the best peer's MB/s ({each}), at least {least}")
        if window == 1 and clients == 1000:
            timeouts = [r["timeouts"] for r in ours]
            judge(not any(timeouts), f"{work}: client time-outs {timeouts}, none")
        judge(not any(r["failures"] for r in ours), f"{work}: every transfer octet for octet")
    peaks = {r["work"]: r["peak"] for r in results if r["peer"] == OURS}
    print(f"  peak MB by cell: {', '.join(f'{work} {peak:.0f}' for work, peak in peaks.items())}")
    return missed


# --- Bootwire under test ----------------------------------------------------------------------------------------


def serve(files: str) -> int:
    sys.path[:0] = [str(ROOT / "src"), *map(str, ROOT.glob(".venv/lib/python3*/site-packages"))]
    from bootwire.serve import descriptors
    from bootwire.serve.files import PublishedDirectory
    from bootwire.serve.journal import Journal
    from bootwire.serve.loop import Loop
    from bootwire.serve.tftp import TftpServer

    directory = PublishedDirectory(files)
    with open("/dev/null", "wb", buffering=0) as out:
        journal = Journal(out.fileno(), json=True)
        journal.start()
        descriptors.prepare()
        loop = Loop()
        TftpServer(loop, [(AT[0], AT[1], "")], lambda name, peer: directory.open(name), journal.record)
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        gc.collect()
        gc.freeze()  # as app.py does
        loop.run()
        journal.close()
    return 0


# --- the client -------------------------------------------------------------------------------------------------


def load(job: dict) -> int:
    """Fetch with many clients at once, check every octet, print what it took as JSON."""
    body = pathlib.Path(job["path"]).read_bytes()
    name = os.path.basename(job["path"]).encode()
    window, count = job["window"], job["clients"]
    request = b"\0\1" + name + b"\0octet\0blksize\0%d\0" % BLOCK
    if window > 1:
        request += b"windowsize\0%d\0" % window
    mailbox = Mailbox(datagrams(body), window, job["gro"])
    epoll = select.epoll()
    clients: dict[int, Client] = {}
    for _ in range(count):
        client = Client(request, mailbox)
        clients[client.sock.fileno()] = client
        epoll.register(client.sock.fileno(), select.EPOLLIN)
    started = time.perf_counter()
    for client in clients.values():
        client.begin(started)
    done: list[float] = []
    timeouts = failures = 0
    look_again = started + 0.1
    clock = time.perf_counter
    sleep = 0.1 if count > 1 else 0  # one alone would measure how long this machine takes to wake somebody up
    while clients:
        for fd, _ in epoll.poll(sleep):
            client = clients[fd]
            outcome = client.run(clock())
            if outcome is not None:
                failures += not outcome
                done.append(clock() - started)
                client.sock.close()
                del clients[fd]
        now = clock()
        if now >= look_again:
            look_again = now + 0.1
            for client in clients.values():
                if now - client.last >= RETRY:
                    timeouts += 1
                    client.again(now)
            if now - started > 120:
                failures += len(clients)
                break
    seconds = clock() - started
    done.sort()
    at = [done[min(len(done) - 1, int(len(done) * share))] * 1000 if done else 0 for share in (0.5, 0.99)]
    print(json.dumps({
        "octets": len(body) * (count - failures), "seconds": seconds, "p50": at[0], "p99": at[1], "timeouts": timeouts,
        "failures": failures, "client_cpu": time.process_time(),
    }))  # fmt: skip
    return 0


def datagrams(body: bytes) -> bytes:
    """All DATA datagrams of the file, one after the other: what the client has to get."""
    parts = []
    for block in range(1, len(body) // BLOCK + 2):
        parts.append((0x30000 | block & 0xFFFF).to_bytes(4, "big"))
        parts.append(body[(block - 1) * BLOCK : block * BLOCK])
    return b"".join(parts)


class Mailbox:
    """Takes up to `most` waiting datagrams of a socket in one call (recvmmsg), or what the kernel has joined of them.

    A client that takes them one by one in Python would be slower than any server, and measure itself.
    """

    def __init__(self, wanted: bytes, most: int, gro: bool) -> None:
        class Vector(ctypes.Structure):
            _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

        class Header(ctypes.Structure):
            _fields_ = (
                ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("vectors", ctypes.c_void_p),
                ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("received", ctypes.c_uint),
            )  # fmt: skip

        self.wanted, self.gro = wanted, gro
        size = JOINED if gro else STRIDE  # so that whole datagrams lie side by side, as in `wanted`
        self.buffer = bytearray(max(most * size, JOINED))
        self.view = memoryview(self.buffer)
        self.slots = [self.view[index * size : (index + 1) * size] for index in range(most)]
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))
        self.vectors = (Vector * most)(*(Vector(base + index * size, size) for index in range(most)))
        self.headers = list((Header * most).from_buffer(bytearray(ctypes.sizeof(Header) * most)))
        for header, vector in zip(self.headers, self.vectors, strict=True):
            header.vectors, header.vector_count = ctypes.addressof(vector), 1
        self.receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self.arguments = (ctypes.byref(self.headers[0]), most, socket.MSG_DONTWAIT, None)


class Client:
    """One fetch. It acknowledges the last block of a window, or the last one before a gap (RFC 7440 section 4)."""

    __slots__ = ("acked", "block", "connected", "fd", "last", "mailbox", "message", "request", "sock", "window")

    def __init__(self, request: bytes, mailbox: Mailbox) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.bind((AT[0], 0))
        if mailbox.gro:
            self.sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.fd = self.sock.fileno()
        self.request, self.mailbox = request, mailbox
        self.message = request
        self.connected = False
        self.block = 0  # the last one taken
        self.acked = 0
        self.window = 1
        self.last = 0.0

    def begin(self, now: float) -> None:
        self.last = now
        self.sock.sendto(self.request, AT)

    def again(self, now: float) -> None:
        self.last = now
        with contextlib.suppress(OSError):
            if self.connected:
                self.sock.send(self.message)
            else:
                self.sock.sendto(self.request, AT)

    def run(self, now: float) -> bool | None:
        """Take what is there. True when the file is complete, False when something is wrong."""
        if not self.connected:
            return self.meet(now)
        self.last = now
        mailbox = self.mailbox
        if self.window == 1:
            try:
                size = self.sock.recv_into(mailbox.buffer)
            except OSError as error:
                return None if error.errno == errno.EAGAIN else False
            return self.take(mailbox.view[:size])
        count = mailbox.receive(self.fd, *mailbox.arguments)
        if count < 0:
            return None if ctypes.get_errno() == errno.EAGAIN else False
        if not mailbox.gro:
            size = (count - 1) * STRIDE + mailbox.headers[count - 1].received
            if mailbox.wanted.startswith(mailbox.view[:size], self.block * STRIDE):
                return self.take(mailbox.view[:size])
        for index in range(count):
            outcome = self.take(mailbox.slots[index][: mailbox.headers[index].received])
            if outcome is not None:
                return outcome
        return None

    def take(self, datagrams: memoryview) -> bool | None:
        """One datagram, or several in a row: those that were due, or others."""
        wanted = self.mailbox.wanted
        at = self.block * STRIDE
        if wanted.startswith(datagrams, at):
            block = self.block = self.block + (len(datagrams) + STRIDE - 1) // STRIDE
            whole = at + len(datagrams) == len(wanted)
            if whole or block - self.acked >= self.window:
                self.acknowledge(block)
            return True if whole else None
        if datagrams[:2] != b"\0\3":
            return False
        if self.acked != self.block or not self.window > 1:
            self.acknowledge(self.block)  # a gap, or a copy: say where we are
        return None

    def meet(self, now: float) -> bool | None:
        """The first answer: an OACK, from the port that the transfer goes on with."""
        try:
            data, source = self.sock.recvfrom(2048)
        except OSError:
            return None
        if data[:2] != b"\0\6":
            return False
        words = data[2:].split(b"\0")
        options = dict(zip(words[::2], words[1::2], strict=False))
        if int(options[b"blksize"]) != BLOCK:
            return False
        self.window = int(options.get(b"windowsize", 1))
        self.sock.connect(source)
        self.connected = True
        self.last = now
        self.acknowledge(0)
        return None

    def acknowledge(self, block: int) -> None:
        self.acked = block
        self.message = (0x40000 | block & 0xFFFF).to_bytes(4, "big")
        with contextlib.suppress(OSError):
            self.sock.send(self.message)


if __name__ == "__main__":
    sys.exit(main())
