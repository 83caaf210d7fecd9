"""Third-party DHCP servers and relays for a lab network, configured as their users would without netbooting in mind.

None of them is told anything of PXE: what boots here boots because of the server beside them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootwire.lab.network import Host, LabError, find_program

LEASE = 3600  # seconds
_PATIENCE = 10.0  # seconds a server has to open its port


@dataclass(frozen=True, slots=True)
class Pool:
    """Addresses to give out. All dotted; `prefix` in bits; `router` is what its clients get as option 3."""

    network: str
    prefix: int
    mask: str
    first: str
    last: str
    router: str


@dataclass(frozen=True, slots=True)
class DhcpServer:
    """A server we can start. program: found in PATH; package: the Debian package it is in."""

    name: str
    title: str
    program: str
    package: str
    argv: Callable[[Sequence[Pool], Path], list[str]]

    @property
    def missing(self) -> bool:
        return find_program(self.program) is None

    def start(self, host: Host, pools: Sequence[Pool], directory: Path) -> subprocess.Popen[bytes]:
        """Start it on the host's eth0. pools: the first is the host's own subnet; others are served through relays.

        Its log is `<name>.log` in directory. Raises LabError when it is not installed.
        """
        if self.missing:
            raise LabError(f"{self.title} is not installed: apt-get install {self.package}")
        return _start(host, self.argv(pools, directory), directory / f"{self.name}.log")


_DNSMASQ = (
    "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--log-facility=-", "--log-dhcp",
    "--port=0", "--pid-file=",
)  # fmt: skip


def _dnsmasq(pools: Sequence[Pool], directory: Path) -> list[str]:
    argv = [*_DNSMASQ, "--interface=eth0", f"--dhcp-leasefile={directory}/dnsmasq.leases"]
    for number, pool in enumerate(pools):
        argv.append(f"--dhcp-range=set:pool{number},{pool.first},{pool.last},{pool.mask},{LEASE}s")
        argv.append(f"--dhcp-option=tag:pool{number},option:router,{pool.router}")
    return argv


def _udhcpd(pools: Sequence[Pool], directory: Path) -> list[str]:
    if len(pools) != 1:
        raise LabError("udhcpd serves one subnet")
    pool = pools[0]
    (directory / "udhcpd.leases").touch()
    settings = directory / "udhcpd.conf"
    settings.write_text(
        f"start {pool.first}\nend {pool.last}\ninterface eth0\n"
        f"lease_file {directory}/udhcpd.leases\npidfile {directory}/udhcpd.pid\n"
        f"option subnet {pool.mask}\noption router {pool.router}\noption lease {LEASE}\n"
    )
    return ["busybox", "udhcpd", "-f", str(settings)]


def _kea(pools: Sequence[Pool], directory: Path) -> list[str]:
    subnets = [
        {
            "id": number,
            "subnet": f"{pool.network}/{pool.prefix}",
            "pools": [{"pool": f"{pool.first} - {pool.last}"}],
            "option-data": [{"name": "routers", "data": pool.router}],
        }
        for number, pool in enumerate(pools, start=1)
    ]
    settings = {
        "Dhcp4": {
            "interfaces-config": {"interfaces": ["eth0"]},
            "lease-database": {"type": "memfile", "persist": False},
            "valid-lifetime": LEASE,
            "subnet4": subnets,
        }
    }
    file = directory / "kea.json"
    file.write_text(json.dumps(settings))
    place = [f"KEA_PIDFILE_DIR={directory}", "KEA_LOCKFILE_DIR=none", f"KEA_DHCP_DATA_DIR={directory}"]
    return ["env", *place, "kea-dhcp4", "-c", str(file)]


DHCP_SERVERS = {
    server.name: server
    for server in (
        DhcpServer("dnsmasq", "dnsmasq", "dnsmasq", "dnsmasq-base", _dnsmasq),
        DhcpServer("udhcpd", "busybox udhcpd", "busybox", "busybox", _udhcpd),
        DhcpServer("kea", "Kea", "kea-dhcp4", "kea-dhcp4-server", _kea),
    )
}


def start_relay(
    name: str, host: Host, below: tuple[str, str], above: str, servers: Sequence[str], directory: Path
) -> subprocess.Popen[bytes]:
    """Relay DHCP between the clients' segment and servers elsewhere.

    below: interface and address of the host on the clients' segment; above: its interface towards the servers.
    """
    interface, address = below
    if name == "dhcrelay":
        argv = [
            "dhcrelay",
            "-4",
            "-d",
            "-a",
            "-pf",
            f"{directory}/dhcrelay.pid",
            "-id",
            interface,
            "-iu",
            above,
            *servers,
        ]
    else:
        argv = [*_DNSMASQ, *(f"--dhcp-relay={address},{server}" for server in servers)]
    return _start(host, argv, directory / f"relay-{name}.log")


def _start(host: Host, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start it and wait until it has port 67. Raises LabError with its log if it does not get there."""
    with log.open("wb") as output:
        process = host.start(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    deadline = time.monotonic() + _PATIENCE
    while not _has_port_67(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"{argv[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
    return process


def _has_port_67(pid: int) -> bool:
    """Whether someone in that process's network namespace has bound UDP port 67 (proc(5), /proc/net/udp)."""
    try:
        lines = Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]
    except OSError:
        return False
    return any(line.split()[1].endswith(":0043") for line in lines)
