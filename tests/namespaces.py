"""Private network namespaces for tests: a thread that lives in one, so that nothing is left behind when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from bootwire.serve.interfaces import interfaces
from bootwire.serve.ports import owners

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h


class Namespace:
    """A network namespace of its own. Sockets made in `call` and programs started in it live there."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.tid = self.call(_leave)
        self.run("ip link set lo up")

    def call(self, function: Callable[[], T]) -> T:
        return self._thread.submit(function).result()

    def run(self, command: str) -> str:
        def go() -> str:
            return subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout

        return self.call(go)

    def start(self, *command: str, **options: object) -> subprocess.Popen[bytes]:
        return self.call(lambda: subprocess.Popen(command, **options))  # type: ignore[call-overload,no-any-return]

    def wait_for_carrier(self) -> None:
        """Until what is up can send: the kernel drops frames until an interface has its queue, soon after "up"."""
        until = time.monotonic() + 10
        while any(link.up and not link.running for link in self.call(interfaces)):
            assert time.monotonic() < until, "no carrier"
            time.sleep(0.01)

    def close(self) -> None:
        self._thread.shutdown()


@contextlib.contextmanager
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with a cable: 10.9.0.1/24 on `here` in the first, 10.9.0.2/24 on `there` in the second."""
    one, two = Namespace(), Namespace()
    try:
        one.run("ip link add here address 02:00:00:00:00:01 type veth peer name there address 02:00:00:00:00:02")
        one.run(f"ip link set there netns {two.tid}")
        one.run("ip address add 10.9.0.1/24 dev here")
        two.run("ip address add 10.9.0.2/24 dev there")
        one.run("ip link set here up")
        two.run("ip link set there up")
        for end in (one, two):
            end.wait_for_carrier()
        yield one, two
    finally:
        one.close()
        two.close()


def plug(bridge: Namespace, host: Namespace, number: int, name: str) -> None:
    """A cable from the interface `bridge` of a namespace to a host: 10.9.0.NUMBER/24 on its interface `name`."""
    peer = f"{name} address 02:00:00:00:00:{number:02x} netns {host.tid}"
    bridge.run(f"ip link add to{number} type veth peer name {peer}")
    bridge.run(f"ip link set to{number} master bridge up")
    host.run(f"ip address add 10.9.0.{number}/24 dev {name}")
    host.run(f"ip link set {name} up")


@contextlib.contextmanager
def lan(hosts: int) -> Iterator[list[Namespace]]:
    """So many namespaces on one bridge: 10.9.0.N/24 on `lan` in the Nth, counted from 1."""
    with switched(hosts) as (_, made):
        yield made


@contextlib.contextmanager
def switched(hosts: int) -> Iterator[tuple[Namespace, list[Namespace]]]:
    """`lan`, and the namespace of the bridge, whose interface `toN` is the Nth host's cable."""
    bridge = Namespace()
    made = [Namespace() for _ in range(hosts)]
    try:
        bridge.run("ip link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        bridge.run("ip link set bridge up")
        for number, host in enumerate(made, 1):
            plug(bridge, host, number, "lan")
        for host in made:
            host.wait_for_carrier()
        yield bridge, made
    finally:
        for host in (bridge, *made):
            host.close()


@contextlib.contextmanager
def listening(where: Namespace, port: tuple[str, int], *command: str, cwd: Path | None = None) -> Iterator[int]:
    """A program there, from when it listens on ("udp", 67) to the end of the block; its pid."""
    process = where.start(*command, cwd=cwd, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while not where.call(lambda: owners(*port)):
            assert time.monotonic() < until, f"{command[0]} did not start"
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def dnsmasq(where: Namespace, *options: str) -> Iterator[int]:
    """dnsmasq as a DHCP server for 10.9.0.100 to .200, on all addresses, as it is installed; its pid."""
    with listening(
        where, ("udp", 67),
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=",
        "--leasefile-ro", "--dhcp-range=10.9.0.100,10.9.0.200", "--no-ping", "--log-facility=-", *options,
    ) as pid:  # fmt: skip
        yield pid


def _leave() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return threading.get_native_id()
