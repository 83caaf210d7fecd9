"""Two hundred machines ask at once for a 200 MB image that nobody has fetched yet, from the server as it ships.

    sudo ./.venv/bin/python benchmarks/cache.py                both ways, a minute
    sudo ./.venv/bin/python benchmarks/cache.py --machines 50 --megabytes 1000

Makes a private network (namespaces, one bridge) with an origin that counts, `bootwire serve` and the machines' sockets.
The origin answers only when all machines have asked. Every octet that a machine gets is compared. Once with the image
pinned by its digest (nothing is served before it is whole and verified), once without and with --cache (machines get it
while it comes). Exit status 1 if any machine got a wrong octet or too few, if the origin was asked for the image more
than once, or if the server's memory grew with the machines or the image. Nothing of this machine's own network is
touched; everything ends with this process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from namespaces import Namespace, lan  # noqa: E402
from origin_program import PROGRAM, octets  # noqa: E402
from product import Server  # noqa: E402

OURS, ORIGIN = "http://10.9.0.1:8080", "http://10.9.0.3:8000"
MOST_MEMORY = 200.0  # MB resident: half of it is Python and its libraries
PATIENCE = 120.0
PIECE = 1 << 20


@dataclass
class Machine:
    sock: socket.socket
    head: bytes = b""
    at: int = 0
    wrong: bool = False
    first: float = 0.0
    last: float = 0.0


@dataclass
class Run:
    machines: list[Machine] = field(default_factory=list)
    began: float = 0.0
    fetches: int = 0
    memory: float = 0.0  # MB resident at most
    processor: float = 0.0  # seconds


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--machines", type=int, default=200)
    options.add_argument("--megabytes", type=int, default=200)
    given = options.parse_args()
    image = octets(given.megabytes * 1_000_000)
    good = True
    print(f"{given.machines} machines, {given.megabytes} MB, one origin, all on this machine's cores\n")
    print("             whole   fetches   all done   to machines   first octet, median   memory    processor")
    for name, pinned in (("pinned", True), ("pull-through", False)):
        run = storm(image, given.machines, pinned=pinned)
        whole = sum(one.at == len(image) and not one.wrong for one in run.machines)
        seconds = max(one.last for one in run.machines) - run.began
        first = statistics.median(one.first for one in run.machines) - run.began
        rate = sum(one.at for one in run.machines) * 8e-9 / seconds
        print(
            f"{name:<12} {whole:>5}   {run.fetches:>7}   {seconds:>6.1f} s   {rate:>6.1f} Gbit/s   {first:>17.2f} s"
            f"   {run.memory:>4.0f} MB   {run.processor:>7.1f} s"
        )
        good = good and whole == given.machines and run.fetches == 1 and run.memory < MOST_MEMORY
    return 0 if good else 1


def storm(image: bytes, machines: int, *, pinned: bool) -> Run:
    run = Run()
    with tempfile.TemporaryDirectory(prefix="bootwire-") as name, network(len(image)) as (ours, client):
        folder = Path(name)
        pin = f', sha256 = "{hashlib.sha256(image).hexdigest()}"' if pinned else ""
        (folder / "fleet.toml").write_text(
            f'[server]\nhttp-port = 8080\n[profiles.p]\nkernel = {{ location = "{ORIGIN}/held/image"{pin} }}\n'
            '[[group]]\nname = "all"\nprofile = "p"\n'
        )
        arguments = (str(folder / "fleet.toml"), "--state-dir", name, "--no-fetch", "--json", "--web", "off")
        server = Server(ours, *arguments, *(() if pinned else ("--cache",)), verb="serve")
        try:
            server.ready()
            urls = [link(client, number) for number in range(machines)]
            fetch(run, client, urls, image)
            calls = json.loads(curl(client, f"{ORIGIN}/calls"))
            run.fetches = sum(not asked.startswith("bytes=0-") for _, asked, _ in calls)
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            run.memory = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6  # type: ignore[index]
            fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
            run.processor = (int(fields[11]) + int(fields[12])) / 100  # USER_HZ, proc(5)
        finally:
            server.end()
    return run


@contextlib.contextmanager
def network(size: int) -> Iterator[tuple[Namespace, Namespace]]:
    """Bootwire's host and the machines', with an origin on a third."""
    with lan(3) as (ours, client, theirs):
        origin = theirs.start(sys.executable, "-c", PROGRAM, str(size))
        try:
            until = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(subprocess.CalledProcessError):
                    curl(client, f"{ORIGIN}/calls")
                    break
                if time.monotonic() > until:
                    raise TimeoutError("the origin does not start")
                time.sleep(0.1)
            yield ours, client
        finally:
            origin.kill()
            origin.wait()


def curl(client: Namespace, url: str) -> str:
    return client.run(f"curl -sSf -m {PATIENCE:.0f} {url}")


def link(client: Namespace, number: int) -> str:
    mac = f"52-54-00-00-{number >> 8:02x}-{number & 255:02x}"
    script = client.run(f"curl -sSf '{OURS}/boot.ipxe?mac={mac}&arch=i386&platform=pcbios'")
    found = re.search(r"kernel --name kernel (\S+)", script)
    assert found, script
    return found[1]


def fetch(run: Run, client: Namespace, urls: list[str], image: bytes) -> None:
    """All of them at once; each octet compared."""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    with selectors.DefaultSelector() as ready:
        for url in urls:
            sock = client.call(socket.socket)
            sock.connect(("10.9.0.1", 8080))
            path = url.removeprefix(OURS)
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 10.9.0.1:8080\r\nConnection: close\r\n\r\n".encode())
            run.machines.append(Machine(sock))
            ready.register(sock, selectors.EVENT_READ, run.machines[-1])
        curl(client, f"{ORIGIN}/go")
        run.began = time.monotonic()
        while ready.get_map():
            events = ready.select(PATIENCE)
            if not events:
                raise TimeoutError("nothing came for two minutes")
            for key, _ in events:
                one: Machine = key.data
                count = one.sock.recv_into(buffer)
                one.last = time.monotonic()
                if count == 0:
                    ready.unregister(one.sock)
                    one.sock.close()
                    continue
                piece = view[:count]
                if not one.first:
                    one.head += piece
                    if b"\r\n\r\n" not in one.head:
                        continue
                    one.head, _, rest = one.head.partition(b"\r\n\r\n")
                    one.wrong = not one.head.startswith(b"HTTP/1.1 200 ")
                    piece, one.first = memoryview(rest), one.last
                one.wrong = one.wrong or not image.startswith(piece, one.at)
                one.at += len(piece)


if __name__ == "__main__":
    sys.exit(main())
