#!/usr/bin/python3
"""HTTP beside nginx: throughput, time to the first octet, small requests a second, CPU and memory, all in one run.

    benchmarks/http.py                     quick: two minutes
    benchmarks/http.py --full              more repetitions: ten minutes
    benchmarks/http.py --only big-200      one cell
    benchmarks/http.py --check             exit status 1 when a target is missed

Server on CPU 0, client on CPU 1, one server at a time on loopback. Both serve the same files to the same client, which
compares every octet. They take turns within a repetition; a ratio is the median of the repetitions' own ratios, because
the machine's speed wanders more between repetitions than within one. nginx is Debian's with one worker, sendfile and no
access log; Bootwire runs with its journal writing JSON lines.

The client never sleeps: on one machine, waking it would be charged to the server that has just sent, and most to the
slower one. Time to the first octet counts from the moment a client starts to connect; all of them start at once.
Needs nginx and two CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import random
import select
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
PYTHON = "/usr/bin/python3"  # Debian's: built with optimisation
NGINX = "/usr/sbin/nginx"
OURS, THEIRS = "bootwire", "nginx"
MB = 1_000_000
BIG = 20 * MB
SMALL = 1024
RECEIVE = 256 * 1024  # octets a recv of the client


@dataclass(frozen=True)
class Work:
    """`clients` at once; big: each fetches the 20 MB file `times` in a row; small: 1 KB scripts for `seconds`."""

    clients: int
    times: int = 0
    seconds: float = 0

    @property
    def name(self) -> str:
        return f"{'big' if self.times else 'small'}-{self.clients}"

    @property
    def title(self) -> str:
        if self.times:
            return (
                f"{self.clients} clients fetch 20 MB, {self.times} times"
                if self.times > 1
                else f"{self.clients} clients fetch 20 MB"
            )
        return f"1 KB scripts on {self.clients} kept connections"


WORKS = [Work(1, 60), Work(20, 10), Work(200, 1), Work(1000, 1), Work(20, seconds=3), Work(1000, seconds=3)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="9 repetitions instead of 3")
    parser.add_argument("--reps", type=int, help="repetitions")
    parser.add_argument("--only", action="append", help="a cell, as in big-200 or small-20 (repeatable)")
    parser.add_argument("--out", type=pathlib.Path, help="write every single result there, as JSON")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a target is missed")
    parser.add_argument("--profile", type=pathlib.Path, help="write a cProfile of Bootwire's transfer loop there")
    for hidden in ("--serve", "--load"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.profile)
    if options.load:
        return load(json.loads(options.load))
    return measure(options)


# --- the run ----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> int:
    works = [work for work in WORKS if not options.only or work.name in options.only]
    reps = options.reps or (9 if options.full else 3)
    results: list[dict] = []
    with tempfile.TemporaryDirectory() as files:
        os.chmod(files, 0o755)
        for name, octets in (("big", BIG), ("script.ipxe", SMALL)):
            pathlib.Path(files, name).write_bytes(random.Random(octets).randbytes(octets))
        for work in works:
            for rep in range(reps):
                for server in (OURS, THEIRS) if rep % 2 else (THEIRS, OURS):
                    results.append(one(server, work, files, options.profile))
                    results[-1]["rep"] = rep
            show(work, [r for r in results if r["work"] == work.name])
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    return 1 if verdict(results) and options.check else 0


def one(server: str, work: Work, files: str, profile: pathlib.Path | None) -> dict:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if server == OURS:
        command = [PYTHON, __file__, "--serve", f"{files}:{port}", *(["--profile", str(profile)] if profile else [])]
    else:
        command = [NGINX, "-c", configure_nginx(files, port)]
    with running(command, cpu=0) as process:
        until_ready(process, port)
        before = cpu_seconds(process.pid)
        job = {"port": port, "clients": work.clients, "times": work.times, "seconds": work.seconds, "files": files}
        client = ["taskset", "-c", "1", PYTHON, __file__, "--load", json.dumps(job)]
        done = subprocess.run(client, capture_output=True, text=True, check=True)
        result: dict = json.loads(done.stdout)
        result |= {"server": server, "work": work.name, "cpu": cpu_seconds(process.pid) - before}
        result["peak"] = peak(process.pid)
        return result


def configure_nginx(files: str, port: int) -> str:
    """One worker that is told to do nothing but this, as fast as it can."""
    path = f"{files}.nginx"
    os.makedirs(path, exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    pathlib.Path(path, "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
        events {{ worker_connections 4096; multi_accept on; use epoll; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 60;
            types {{ text/plain ipxe; }} default_type application/octet-stream; {temporary}
            server {{ listen 127.0.0.1:{port} backlog=4096; root {files}; }}
        }}
    """)
    return f"{path}/nginx.conf"


@contextlib.contextmanager
def running(arguments: list[str], cpu: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["taskset", "-c", str(cpu), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET /script.ipxe HTTP/1.1\r\nHost: x\r\n\r\n")
            if sock.recv(100).startswith(b"HTTP/1.1 200"):
                return
        if process.poll() is not None:
            assert process.stderr is not None
            raise SystemExit(f"{process.args} ended: {process.stderr.read().decode()}")
        time.sleep(0.05)
    raise SystemExit(f"{process.args} does not answer")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:13]) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> float:
    """MB of memory at most."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    return 0


# --- the report -------------------------------------------------------------------------------------------------


COLUMNS = "  {:10} {:>9} {:>17} {:>9} {:>9} {:>12} {:>8}  {}"


def show(work: Work, results: list[dict]) -> None:
    unit, waiting, cost = ("MB/s", "TTFB", "CPU s/GB") if work.times else ("req/s", "answer", "CPU us/req")
    print(f"\n{work.name}: {work.title}")
    print(
        COLUMNS.format(
            "", unit, "(min..max)", "p50 ms", "p99 ms", cost, "peak MB", f"ours/theirs: {unit}, p99 {waiting}, CPU"
        )
    )
    sides = {server: [r for r in results if r["server"] == server] for server in (OURS, THEIRS)}
    for server, own in sides.items():
        rates = [rate(r) for r in own]
        ratios = [median_ratio(sides, of) for of in (rate, lambda r: r["p99"], price)] if server == OURS else []
        print(COLUMNS.format(
            server, f"{statistics.median(rates):,.0f}", f"({min(rates):,.0f}..{max(rates):,.0f})",
            f"{med(own, 'p50'):.2f}", f"{med(own, 'p99'):.2f}", f"{statistics.median(price(r) for r in own):.3g}",
            f"{med(own, 'peak'):.0f}", "  ".join(f"{ratio:.2f}" for ratio in ratios),
        ) + (f"  {failed} FAILED" if (failed := sum(r["failures"] for r in own)) else ""), flush=True)  # fmt: skip


def median_ratio(sides: dict[str, list[dict]], of) -> float:  # type: ignore[no-untyped-def]
    return statistics.median(of(a) / (of(b) or 1e-9) for a, b in zip(sides[OURS], sides[THEIRS], strict=True))


def rate(result: dict) -> float:
    """Megabytes or requests a second."""
    return (result["octets"] / MB if result["octets"] else result["requests"]) / result["seconds"]


def price(result: dict) -> float:
    """CPU seconds a gigabyte, or microseconds a request."""
    return result["cpu"] / (result["octets"] / 1e9) if result["octets"] else result["cpu"] * 1e6 / result["requests"]


def med(results: list[dict], field: str) -> float:
    return statistics.median(result[field] for result in results)


def verdict(results: list[dict]) -> int:
    """Compare with the targets; returns how many were missed."""
    print("\ntargets")
    missed = 0
    for work in dict.fromkeys(r["work"] for r in results):
        own = [r for r in results if r["work"] == work]
        sides = {server: [r for r in own if r["server"] == server] for server in (OURS, THEIRS)}
        of_rate, of_p99 = median_ratio(sides, rate), median_ratio(sides, lambda r: r["p99"])
        judged = [
            (
                of_rate >= 0.8,
                f"{of_rate:.2f} of nginx's {'MB/s' if work.startswith('big') else 'requests/s'}, at least 0.8",
            )
        ]
        if work.startswith("big"):
            judged.append((of_p99 <= 1, f"{of_p99:.2f} of nginx's p99 time to the first octet, at most 1"))
        judged.append((not any(r["failures"] for r in sides[OURS]), "every answer octet for octet"))
        for met, what in judged:
            missed += not met
            print(f"  {'met   ' if met else 'MISSED'} {work}: {what}")
    peaks = {r["work"]: r["peak"] for r in results if r["server"] == OURS}
    print(f"  peak MB by cell: {', '.join(f'{work} {peak:.0f}' for work, peak in peaks.items())}")
    return missed


# --- Bootwire under test ----------------------------------------------------------------------------------------


def serve(where: str, profile: str | None) -> int:
    sys.path.insert(0, str(ROOT / "src"))
    from bootwire.serve.files import PublishedDirectory
    from bootwire.serve.http import HttpServer
    from bootwire.serve.journal import Journal
    from bootwire.serve.loop import Loop

    files, _, port = where.rpartition(":")
    directory = PublishedDirectory(files)
    with open("/dev/null", "wb", buffering=0) as out:
        journal = Journal(out.fileno(), json=True)
        journal.start()
        loop = Loop()
        HttpServer(loop, [("127.0.0.1", int(port))], lambda request, peer: directory.open(request.path), journal.record)
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        if profile:
            import cProfile

            cProfile.runctx("loop.run()", {}, {"loop": loop}, str(profile))
        else:
            loop.run()
        journal.close()
    return 0


# --- the client -------------------------------------------------------------------------------------------------


def load(job: dict) -> int:
    result = (fetch_big if job["times"] else ask_small)(job)
    print(json.dumps(result))
    return 0


class Fetch:
    """One client: connects, asks, compares every octet with `body`, asks again."""

    __slots__ = ("asked", "first", "got", "head", "left", "sock")

    def __init__(self, port: int, times: int) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.asked = time.perf_counter()
        self.sock.connect_ex(("127.0.0.1", port))
        self.left = times
        self.got = -1  # octets of the body; -1 before the end of the head
        self.head = b""
        self.first: list[float] = []


def fetch_big(job: dict) -> dict:
    body = pathlib.Path(job["files"], "big").read_bytes()
    size, address = len(body), address_of(body)
    buffer = bytearray(RECEIVE)
    received = address_of(buffer)
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    request = b"GET /big HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
    clock = time.perf_counter
    epoll = select.epoll()
    fetches: dict[int, Fetch] = {}
    started = clock()
    for _ in range(job["clients"]):
        fetch = Fetch(job["port"], job["times"])
        fetches[fetch.sock.fileno()] = fetch
        epoll.register(fetch.sock.fileno(), select.EPOLLOUT)
    first: list[float] = []
    octets = failures = 0
    while fetches:
        for fd, events in epoll.poll(0):
            fetch = fetches[fd]
            if events & select.EPOLLOUT:
                epoll.modify(fd, select.EPOLLIN)
                with contextlib.suppress(OSError):
                    fetch.sock.send(request)
                continue
            try:
                count = fetch.sock.recv_into(buffer)
            except BlockingIOError:
                continue
            except OSError:
                count = 0
            start = 0
            if count and fetch.got < 0:
                if not fetch.head:
                    first.append(clock() - fetch.asked)
                fetch.head += buffer[:count]
                end = fetch.head.find(b"\r\n\r\n") + 4
                if end == 3:
                    continue
                if not fetch.head.startswith(b"HTTP/1.1 200 ") or b"ontent-Length: %d\r\n" % size not in fetch.head:
                    count = 0
                start = end - (len(fetch.head) - count)
                fetch.got = 0
            length = count - start
            if not count or compare(received + start, address + fetch.got, min(length, size - fetch.got)):
                failures += 1
                fetch.sock.close()
                del fetches[fd]
                continue
            fetch.got += length
            octets += length
            if fetch.got >= size:
                fetch.left -= 1
                if not fetch.left:
                    fetch.sock.close()
                    del fetches[fd]
                    continue
                fetch.got, fetch.head, fetch.asked = -1, b"", clock()
                fetch.sock.send(request)
    return {"octets": octets, "requests": 0, "seconds": clock() - started, "failures": failures, **shares(first)}


def ask_small(job: dict) -> dict:
    body = pathlib.Path(job["files"], "script.ipxe").read_bytes()
    request = b"GET /script.ipxe HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nConnection: keep-alive\r\n\r\n"
    clock = time.perf_counter
    epoll = select.epoll()
    peers: dict[int, list] = {}
    for _ in range(job["clients"]):
        sock = socket.create_connection(("127.0.0.1", job["port"]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
        peers[sock.fileno()] = [sock, 0.0]
    for peer in peers.values():  # once before it counts
        peer[0].send(request)
    failures = 0
    waits: list[float] = []
    started = until = 0.0
    while not until or clock() < until:
        for fd, _ in epoll.poll(0):
            peer = peers[fd]
            data = peer[0].recv(4096)
            failures += not (data.startswith(b"HTTP/1.1 200 ") and data.endswith(body))
            now = clock()
            if until:
                waits.append(now - peer[1])
            peer[1] = now
            peer[0].send(request)
        if not until:
            started = clock()
            until = started + job["seconds"]
            for peer in peers.values():
                peer[1] = started
    return {"octets": 0, "requests": len(waits), "seconds": clock() - started, "failures": failures, **shares(waits)}


def address_of(data: bytes | bytearray) -> int:
    if isinstance(data, bytearray):
        return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def shares(waits: list[float]) -> dict[str, float]:
    waits.sort()
    return {
        name: waits[min(len(waits) - 1, int(len(waits) * part))] * 1000 for name, part in (("p50", 0.5), ("p99", 0.99))
    }


if __name__ == "__main__":
    sys.exit(main())
