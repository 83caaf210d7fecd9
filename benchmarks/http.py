#!/usr/bin/python3
"""HTTP beside nginx: throughput, time to the first octet, small requests a second, CPU and memory, all in one run.

    benchmarks/http.py                     quick: two minutes
    benchmarks/http.py --full              more repetitions: ten minutes
    benchmarks/http.py --only big-200      one cell
    benchmarks/http.py --sleep             with a client that sleeps when nothing has come
    benchmarks/http.py --check             exit status 1 when a target is missed

Server on CPU 0, client on CPU 1, one server at a time on loopback. Both serve the same files to the same client, which
compares every octet. They take turns within a repetition; a ratio is the median of the repetitions' own ratios: the
machine's speed wanders more between repetitions than within one. nginx is Debian's with one worker, sendfile and no
access log; Bootwire looks names up as `bootwire boot --files` does, and its journal writes JSON lines into a file: one
for every answer, or the run counts as failed.

The client never sleeps: on one machine, waking it would be charged to the server that has just sent, most to the
slower one; --sleep shows how much that is. Time to the first octet counts from the moment a client starts to connect
or, on a kept connection, asks; all of them start at once. Needs nginx and two CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import itertools
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
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where files and journal are: no disk in between


@dataclass(frozen=True)
class Work:
    """`clients` at once; big: each fetches the 20 MB file `times` in a row; small: 1 KB for `seconds`.

    scripts: how many different ones are asked for, one after another
    """

    clients: int
    times: int = 0
    seconds: float = 0
    scripts: int = 1

    @property
    def name(self) -> str:
        return f"{'big' if self.times else 'small' if self.scripts == 1 else 'mixed'}-{self.clients}"

    @property
    def title(self) -> str:
        if self.times:
            return (
                f"{self.clients} clients fetch 20 MB, {self.times} times"
                if self.times > 1
                else f"{self.clients} clients fetch 20 MB"
            )
        what = "a 1 KB script" if self.scripts == 1 else f"{self.scripts:,} scripts of 1 KB in turn"
        return f"{what} on {self.clients:,} kept connections"


SCRIPTS = 1000
WORKS = [
    Work(1, 300), Work(20, 20), Work(200, 1), Work(1000, 1),
    Work(20, seconds=3), Work(1000, seconds=3),
    Work(20, seconds=3, scripts=SCRIPTS), Work(1000, seconds=3, scripts=SCRIPTS),
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="9 repetitions instead of 3")
    parser.add_argument("--reps", type=int, help="repetitions")
    parser.add_argument("--only", action="append", help="a cell, as in big-200 or small-20 (repeatable)")
    parser.add_argument("--out", type=pathlib.Path, help="write every single result there, as JSON")
    parser.add_argument("--sleep", action="store_true", help="let the client sleep when nothing has come")
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
    with tempfile.TemporaryDirectory(dir=MEMORY) as room:
        os.chmod(room, 0o755)
        os.mkdir(files := f"{room}/files", 0o755)
        for name, octets in (("big", BIG), *((script(number), SMALL) for number in range(SCRIPTS))):
            pathlib.Path(files, name).write_bytes(random.Random(name).randbytes(octets))
        for work in works:
            for rep in range(reps):
                for server in (OURS, THEIRS) if rep % 2 else (THEIRS, OURS):
                    results.append(one(server, work, room, options))
                    results[-1]["rep"] = rep
            show(work, [r for r in results if r["work"] == work.name])
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    return 1 if verdict(results) and options.check else 0


def script(number: int) -> str:
    return f"script-{number:04}.ipxe"


def one(server: str, work: Work, room: str, options: argparse.Namespace) -> dict:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if server == OURS:
        profile = ["--profile", str(options.profile)] if options.profile else []
        command = [PYTHON, __file__, "--serve", f"{room}:{port}", *profile]
    else:
        command = [NGINX, "-c", configure_nginx(room, port)]
    with running(command, cpu=0) as process:
        until_ready(process, port)
        before = cpu_seconds(process.pid)
        job = {"port": port, "room": room, "sleep": options.sleep} | dataclasses.asdict(work)
        client = ["taskset", "-c", "1", PYTHON, __file__, "--load", json.dumps(job)]
        done = subprocess.run(client, capture_output=True, text=True, check=True)
        result: dict = json.loads(done.stdout)
        result |= {"server": server, "work": work.name, "cpu": cpu_seconds(process.pid) - before}
        result["peak"] = peak(process.pid)
    if server == OURS:
        with open(f"{room}/journal", "rb") as journal:
            result["told"] = sum(b'"transfer-done"' in line for line in journal)
    return result


def configure_nginx(room: str, port: int) -> str:
    """One worker that is told to do nothing but this, as fast as it can."""
    path = f"{room}/nginx"
    os.makedirs(path, exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {path};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    pathlib.Path(path, "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
        events {{ worker_connections 4096; multi_accept on; use epoll; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 60;
            types {{ text/plain ipxe; }} default_type application/octet-stream; {temporary}
            server {{ listen 127.0.0.1:{port} backlog=4096; root {room}; }}
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
            sock.sendall(b"GET /files/%s HTTP/1.1\r\nHost: x\r\n\r\n" % script(0).encode())
            if sock.recv(100).startswith(b"HTTP/1.1 200"):
                return
        if process.poll() is not None:
            assert process.stderr is not None
            raise SystemExit(f"{process.args} ended: {process.stderr.read().decode()}")
        time.sleep(0.05)
    raise SystemExit(f"{process.args} does not answer")


def cpu_seconds(pid: int) -> float:
    """Time on the processor of all threads of the process (first field of schedstat, nanoseconds)."""
    return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


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
        told = all(r["told"] >= r["answers"] for r in sides[OURS])
        judged.append((told, "every answer in the journal"))
        for met, what in judged:
            missed += not met
            print(f"  {'met   ' if met else 'MISSED'} {work}: {what}")
    peaks = {r["work"]: r["peak"] for r in results if r["server"] == OURS}
    print(f"  peak MB by cell: {', '.join(f'{work} {peak:.0f}' for work, peak in peaks.items())}")
    return missed


# --- Bootwire under test ----------------------------------------------------------------------------------------


def serve(where: str, profile: str | None) -> int:
    # In place of this directory, where Python would find this very file for its own package `http`.
    sys.path[:1] = [str(ROOT / "src"), *map(str, ROOT.glob(".venv/lib/python3*/site-packages"))]
    from bootwire.engine.lru import Lru
    from bootwire.serve import descriptors
    from bootwire.serve.answers import Answers
    from bootwire.serve.boot_scripts import Script
    from bootwire.serve.files import PublishedDirectory
    from bootwire.serve.http import HttpServer
    from bootwire.serve.journal import Journal
    from bootwire.serve.loop import Loop

    room, _, port = where.rpartition(":")
    machines = Lru[str, str](4096)
    with open(f"{room}/journal", "wb", buffering=0) as out:
        journal = Journal(out.fileno(), json=True)
        answers = Answers(
            {},
            first_script=lambda machine, ours: b"",
            boot_script=lambda machine, request, who, peer: Script(b"", ""),
            machine_at=lambda address: machines.get(address) or "",
            published=PublishedDirectory(f"{room}/files"),
            record=journal.record,
        )
        journal.start()
        descriptors.prepare()
        loop = Loop()
        HttpServer(
            loop, [("127.0.0.1", int(port))], answers.http, journal.record, record_made=journal.record_made
        )  # fmt: skip
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())
        gc.collect()
        gc.freeze()  # as app.py does
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
    body = pathlib.Path(job["room"], "files", "big").read_bytes()
    size, address = len(body), address_of(body)
    buffer = bytearray(RECEIVE)
    received = address_of(buffer)
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    request = b"GET /files/big HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
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
    patience = -1 if job["sleep"] else 0
    while fetches:
        for fd, events in epoll.poll(patience):
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
    seconds = clock() - started
    return {
        "octets": octets, "requests": 0, "answers": octets // size, "seconds": seconds, "failures": failures,
        **shares(first),
    }  # fmt: skip


def ask_small(job: dict) -> dict:
    names = [script(number) for number in range(job["scripts"])]
    bodies = [pathlib.Path(job["room"], "files", name).read_bytes() for name in names]
    fields = "Host: 127.0.0.1\r\nUser-Agent: load\r\nConnection: keep-alive"
    requests = [f"GET /files/{name} HTTP/1.1\r\n{fields}\r\n\r\n".encode() for name in names]
    questions = itertools.cycle(zip(requests, bodies, strict=True))
    clock = time.perf_counter
    epoll = select.epoll()
    peers: dict[int, list] = {}  # socket, when it asked, the body it must get
    for _ in range(job["clients"]):
        sock = socket.create_connection(("127.0.0.1", job["port"]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        epoll.register(sock.fileno(), select.EPOLLIN)
        peers[sock.fileno()] = [sock, 0.0, b""]
    for peer in peers.values():  # once before it counts
        request, peer[2] = next(questions)
        peer[0].send(request)
    failures = answers = 0
    waits: list[float] = []
    started = until = 0.0
    patience = -1 if job["sleep"] else 0
    while not until or clock() < until:
        for fd, _ in epoll.poll(patience):
            peer = peers[fd]
            data = peer[0].recv(4096)
            failures += not (data.startswith(b"HTTP/1.1 200 ") and data.endswith(peer[2]))
            answers += 1
            now = clock()
            if until:
                waits.append(now - peer[1])
            peer[1] = now
            request, peer[2] = next(questions)
            peer[0].send(request)
        if not until:
            started = clock()
            until = started + job["seconds"]
            for peer in peers.values():
                peer[1] = started
    seconds = clock() - started
    return {
        "octets": 0, "requests": len(waits), "answers": answers, "seconds": seconds, "failures": failures,
        **shares(waits),
    }  # fmt: skip


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
