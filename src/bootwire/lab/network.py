"""A private network on this machine: namespaces, bridges, and ports for hosts and virtual machines.

Nothing here touches the host's own network: every interface is made inside a namespace of ours, and the bridges live
in one of their own (the "wire"). Names say who made them (`bw<pid>-<n>-<host>`), so that what a killed process left
behind is found and removed by the next one. Processes started in a host die with us (PR_SET_PDEATHSIG).

Needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN), `ip` (iproute2), and `nsenter` and `setpriv` (util-linux).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

NETNS_DIR = Path("/run/netns")  # where ip(8) keeps named namespaces
_OURS = re.compile(r"bw(\d+)-\d+-")
_PATIENCE = 3.0  # seconds a process has between SIGTERM and SIGKILL
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_serial = itertools.count(1)


class LabError(Exception):
    """The lab could not be built or a machine in it could not be started; the text says why and what to do."""


@dataclass(eq=False)
class Segment:
    """One broadcast domain: a bridge without spanning tree, so that a port forwards from its first frame on."""

    network: Network
    bridge: str

    def tap(self) -> str:
        """Add a port for a virtual machine; its interface name. Open it from `network.wire`."""
        name = f"tap{next(self.network.ports)}"
        self.network.wire.ip(f"tuntap add dev {name} mode tap", f"link set {name} master {self.bridge} up")
        return name


@dataclass(eq=False)
class Host:
    """A namespace: a computer of its own as far as the network goes."""

    namespace: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ip(self, *lines: str) -> None:
        """Run ip(8) commands in this host, as one batch."""
        script = "\n".join(lines).encode()
        _run(["ip", "-n", self.namespace, "-batch", "-"], input=script)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argv that runs `argv` in this host, bound to die with the thread that starts it."""
        inside = ["nsenter", f"--net={NETNS_DIR / self.namespace}", "--", *argv]
        return ["setpriv", "--pdeathsig", "KILL", "--", *inside]

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process in this host and remember to stop it. `options` as subprocess.Popen takes them.

        It gets its own session: Ctrl-C reaches us alone, and we end what we started in good order.
        Call it in a thread that lives as long as the process should.
        """
        options.setdefault("env", {**os.environ, "PATH": search_path()})
        process = subprocess.Popen(self.command(argv), start_new_session=True, **options)
        self.processes.append(process)
        return process

    def run(self, argv: Sequence[str], timeout: float = 30) -> bytes:
        """Run a command in this host to its end; its standard output. Raises LabError with its standard error."""
        return _run(self.command(argv), timeout=timeout)

    def stop(self) -> None:
        """End every process started here: SIGTERM first, SIGKILL for who does not listen."""
        stop(self.processes)
        self.processes.clear()


class Network:
    """Segments and hosts, as a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self.prefix = f"bw{os.getpid()}-{next(_serial)}-"
        self.ports = itertools.count(1)
        self.hosts: list[Host] = []
        self._segments = itertools.count(1)
        self._wire: Host | None = None

    @property
    def wire(self) -> Host:
        """Where the bridges and taps are; virtual machines run here. It has no address of its own."""
        if self._wire is None:
            raise LabError("the network is not open")
        return self._wire

    def __enter__(self) -> Network:
        remove_leftovers()
        _remove(name for name in _namespaces() if name.startswith(self.prefix))  # of a dead process that had our pid
        try:
            self._wire = self._add_host("wire")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def segment(self) -> Segment:
        bridge = f"br{next(self._segments)}"
        self.wire.ip(
            f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0", f"link set {bridge} up"
        )
        return Segment(self, bridge)

    def host(self, name: str, ports: dict[Segment, str], gateway: str = "", forwards: bool = False) -> Host:
        """Add a computer. ports: its address with prefix length ("10.0.0.2/24") on each segment, eth0 onwards in order.

        gateway: default route, "" for none; forwards: it is a router.
        """
        host = self._add_host(name)
        for number, (segment, address) in enumerate(ports.items()):
            peer = f"v{next(self.ports)}"
            self.wire.ip(
                f"link add {peer} type veth peer name eth{number} netns {host.namespace}",
                f"link set {peer} master {segment.bridge} up",
            )
            host.ip(f"address add {address} dev eth{number}", f"link set eth{number} up")
        if gateway:
            host.ip(f"route add default via {gateway}")
        if forwards:
            host.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        return host

    def close(self) -> None:
        """Stop every process and remove every namespace of this network. A signal waits until that is done."""
        with _undisturbed():
            stop([process for host in self.hosts for process in host.processes])
            self.hosts.clear()
            self._wire = None
            _remove(name for name in _namespaces() if name.startswith(self.prefix))

    def _add_host(self, name: str) -> Host:
        host = Host(self.prefix + name)
        _run(["ip", "netns", "add", host.namespace])
        self.hosts.append(host)
        host.ip("link set lo up")
        return host


def search_path() -> str:
    """PATH, and where Debian keeps its servers."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def find_program(name: str) -> str | None:
    """The path of an installed program, None if there is none."""
    return shutil.which(name, path=search_path())


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes, all at once: SIGTERM, then SIGKILL after 3 seconds. Who reads their output closes it."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.01, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for process in processes:
        if process.stdin:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def remove_leftovers() -> list[str]:
    """Remove the namespaces of labs whose process is gone, and what still runs in them; their names."""
    found = [(name, match) for name in _namespaces() if (match := _OURS.match(name))]
    stale = [name for name, match in found if not is_running(int(match[1]))]
    _remove(stale)
    return stale


def is_running(pid: int) -> bool:
    """Whether there is such a process and it is more than a zombie."""
    return Path(f"/proc/{pid}/exe").exists()


def _namespaces() -> list[str]:
    try:
        return sorted(os.listdir(NETNS_DIR))
    except FileNotFoundError:
        return []


def _remove(names: Iterator[str] | list[str]) -> None:
    for name in names:
        inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, check=False).stdout
        for pid in inside.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _run(argv: Sequence[str], input: bytes | None = None, timeout: float = 30) -> bytes:
    try:
        done = subprocess.run(argv, input=input, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is missing: apt-get install iproute2 util-linux") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)} did not end within {timeout:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise LabError(f"{' '.join(argv)} failed: {said}")
    return done.stdout


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold back the signals that end us while we clean up; they arrive afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
