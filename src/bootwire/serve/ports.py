"""Who owns a UDP or TCP port of this machine, and what to tell a person about it (proc(5)).

Best effort by nature: a process of another user or another container hides its descriptors, and then we say so.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bootwire.wire.ip import v4_text
from bootwire.wire.text import printable

Protocol = Literal["udp", "tcp"]

_LISTEN = "0A"  # include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Owner:
    """A socket on the port, and who holds it.

    address   what it is bound to: dotted, "*" for any address, "[…]" for one of IPv6
    name      of the process, of its program where that is run by Python, "" if it could not be found out
    pid       0 if it could not be found out
    unit      the systemd service it runs in, "" if none
    """

    address: str
    name: str = ""
    pid: int = 0
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})" if self.pid else "a process that we may not look at"


def owners(protocol: Protocol, port: int) -> tuple[Owner, ...]:
    """Every socket of this network namespace that is bound to the port (listening, for TCP), with each holder."""
    sockets = dict(_sockets(protocol, port))
    if not sockets:
        return ()
    found: dict[tuple[str, int], Owner] = {}
    for inode, pid in _holders(set(sockets)):
        name, unit = _process(pid)
        found[inode, pid] = Owner(sockets[inode], name, pid, unit)
    seen = {inode for inode, _ in found}
    return (*found.values(), *(Owner(address) for inode, address in sockets.items() if inode not in seen))


def taken(protocol: Protocol, port: int, option: str = "") -> tuple[str, str]:
    """(what, fix) for a port that could not be bound because it is in use, for an error message or a `Warned` fact.

    option: the flag that moves our service to another port, "" where the port is fixed (firmware knows no other).
    """
    return advice(protocol, port, owners(protocol, port), option)


def advice(protocol: Protocol, port: int, holders: Sequence[Owner], option: str = "") -> tuple[str, str]:
    """What `taken` says when these hold the port."""
    who = " and ".join(dict.fromkeys(str(owner) for owner in holders)) or "somebody who is gone by now"
    what = f"{protocol.upper()} port {port} is taken by {who}"
    fix = "start again"
    if holders:
        fix = f"sudo ss -lpn 'sport = :{port}' shows who it is"
    if pid := next((owner.pid for owner in holders if owner.pid), 0):
        fix = f"sudo kill {pid}"
    if unit := next((owner.unit for owner in holders if owner.unit), ""):
        fix = f"sudo systemctl stop {unit}"
    if option:  # a port below 1024 has a customary twin above it: 80 and 8080
        fix = f"{option} {8000 + port if port < 1024 else port + 1}, or {fix}"
    return what, fix


def _sockets(protocol: Protocol, port: int) -> Iterator[tuple[str, str]]:
    """(inode, address) of the rows of /proc/net/{udp,udp6,tcp,tcp6} that are bound to the port."""
    for table in (protocol, protocol + "6"):
        with contextlib.suppress(OSError):
            for row in Path("/proc/thread-self/net", table).read_text("ascii").splitlines()[1:]:
                columns = row.split()
                local, _, number = columns[1].partition(":")
                if int(number, 16) == port and (protocol == "udp" or columns[3] == _LISTEN):
                    yield columns[9], _address(local)


def _address(local: str) -> str:
    """The kernel prints an address as 32-bit words of the host's order, in hexadecimal."""
    if not int(local, 16):
        return "*"
    words = [int(local[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(local), 8)]
    octets = b"".join(words)
    return v4_text(octets) if len(octets) == 4 else f"[{octets.hex(':', 2)}]"


def _holders(inodes: set[str]) -> Iterator[tuple[str, int]]:
    """(inode, pid) for every process that has one of the sockets open, as far as we may look."""
    targets = {f"socket:[{inode}]": inode for inode in inodes}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            held: set[str] = set()
            with contextlib.suppress(OSError):  # it ended, or it is not ours to look at
                for fd in os.listdir(f"/proc/{entry}/fd"):
                    with contextlib.suppress(OSError):
                        held.add(os.readlink(f"/proc/{entry}/fd/{fd}"))
            for link in held & targets.keys():
                yield targets[link], int(entry)


def _process(pid: int) -> tuple[str, str]:
    """(name, systemd unit) of a process."""
    name = unit = ""
    with contextlib.suppress(OSError):
        name = printable(Path(f"/proc/{pid}/comm").read_bytes().rstrip(b"\n"))
        if name.startswith("python"):
            name = _program(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")) or name
        for part in printable(Path(f"/proc/{pid}/cgroup").read_bytes().rstrip(b"\n"), 4096).split("/"):
            # Template instances of user sessions (user@1000.service) are not what to stop.
            if part.endswith(".service") and not part.startswith("user@"):
                unit = part.removesuffix(".service")
    return name, unit


def _program(arguments: Sequence[bytes]) -> str:
    """What a Python interpreter runs: another of us is to be told from other people's programs."""
    left = iter(arguments[1:])
    for argument in left:
        if argument == b"-m":
            return printable(next(left, b""))
        if argument in (b"-X", b"-W"):  # the options of Python's that take a word of their own
            next(left, None)
        elif not argument.startswith(b"-"):
            return printable(argument.rpartition(b"/")[2])
    return ""
