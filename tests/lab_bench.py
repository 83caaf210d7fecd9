"""A lab as the end-to-end tests need it: one network, a DHCP server nobody touched, Bootwire, and real firmware."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from bootwire.facts import Fact, Record, ScriptServed, TransferDone
from bootwire.lab import initrd
from bootwire.lab.dhcp_servers import DHCP_SERVERS, Pool
from bootwire.lab.firmware import FIRMWARE, Machine, power_on
from bootwire.lab.linux import Linux
from bootwire.lab.network import Host, LabError, Network, Segment
from bootwire.lab.server import Server, start_server
from bootwire.observe import prose
from bootwire.observe.boots import stage_of

NEAR = Pool("10.77.0.0", 24, "255.255.255.0", "10.77.0.100", "10.77.0.199", "10.77.0.1")
FAR = Pool("10.77.1.0", 24, "255.255.255.0", "10.77.1.100", "10.77.1.199", "10.77.1.1")
DHCP_SERVER, BOOTWIRE, WEB_SERVER, RELAY = "10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.254"
PATIENCE = 180.0  # seconds from power-on to the end of /init; 20 to 40 are usual on an idle machine
MAC = "52:54:00:77:00:01"
F = TypeVar("F", bound=Fact)
SECOND = "what only the second archive holds"


@dataclass
class Booted:
    """One boot that is over: what the machine printed, and what Bootwire told of it."""

    machine: Machine
    records: list[Record]
    token: str
    linux: Linux
    initrds: tuple[Path, ...]
    beside: str
    seconds: float

    @property
    def facts(self) -> list[Fact]:
        """About this machine."""
        return [record.fact for record in self.records if record.fact.machine == self.machine.mac]

    @property
    def command_line(self) -> str:
        """As the kernel itself printed it, "" if it never did."""
        found = self.machine.said(r"Kernel command line: (.*)")
        return found[1].strip() if found else ""

    @property
    def delivered(self) -> list[TransferDone]:
        return [fact for fact in self.facts if isinstance(fact, TransferDone)]

    @property
    def loaders(self) -> list[tuple[str, str]]:
        """Protocol and name of every loader that was delivered, in order."""
        return [(fact.protocol, fact.name) for fact in self.delivered if stage_of(fact.name) == "loader"]

    def row(self) -> str:
        """Of the table in docs/reference/firmware.md."""
        firmware = self.machine.firmware
        packages = [name for _, name in firmware.needs if not name.startswith("qemu-system")]
        versions = ", ".join(f"{name} {_version(name)}" for name in dict.fromkeys(packages))
        card = firmware.card.split(",")[0]
        asked = [fact.loader for fact in self.facts if isinstance(fact, ScriptServed) and fact.name == "boot.ipxe"]
        path = " → ".join([*(f"{name} ({protocol})" for protocol, name in self.loaders), *asked[-1:], "kernel (http)"])
        kernel = self.linux.version.removeprefix("linux-image-")
        return f"| {firmware.title} | {versions} | {card} | {self.beside} | {path} | {self.seconds:.0f} | {kernel} |"


@dataclass
class Bench:
    """Builds the network on entering. Bootwire starts with `serve`; `finish` follows one machine to its end."""

    directory: Path
    linux: Linux
    state: Path
    dhcp_server: str = "dnsmasq"
    token: str = field(default_factory=lambda: f"bootwire.test={secrets.token_hex(6)}")

    def __enter__(self) -> Bench:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._open = ExitStack()
        self.network = self._open.enter_context(Network())
        self.lan: Segment = self.network.segment()
        self.dhcp: Host = self.network.host("dhcp", {self.lan: f"{DHCP_SERVER}/24"})
        self.ours: Host = self.network.host("bootwire", {self.lan: f"{BOOTWIRE}/24"})
        first, second = self.directory / "system.gz", self.directory / "second.gz"
        first.write_bytes(self.linux.initrd())
        second.write_bytes(initrd.extra({"second": SECOND}))
        self.initrds: tuple[Path, ...] = (first, second)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def start_dhcp(self, pools: Sequence[Pool] = (NEAR,)) -> None:
        DHCP_SERVERS[self.dhcp_server].start(self.dhcp, pools, self.directory)

    def serve(self, firmware: str, images: Sequence[str] = (), more: Sequence[str] = ()) -> Server:
        """Start Bootwire with a command line for that firmware. images: kernel and initrds; none: the bench's own."""
        names = images or [str(self.linux.kernel), *map(str, self.initrds)]
        cmdline = f"console={FIRMWARE[firmware].console} {self.token}"
        options = [
            "-i",
            "eth0",
            "--state-dir",
            str(self.state),
            "--no-fetch",
            "--pcap",
            str(self.directory / "lan.pcap"),
        ]
        self.server = start_server(self.ours, ["boot", *names, "--cmdline", cmdline, *options, *more], self.directory)
        return self.server

    def fleet(self, more: Sequence[str] = ()) -> Server:
        """Start Bootwire with the bench's fleet.toml; again, when it has ended."""
        options = ["-i", "eth0", "--state-dir", str(self.state), "--no-fetch"]
        command = ["serve", str(self.directory / "fleet.toml"), *options, *more]
        self.server = start_server(self.ours, command, self.directory)
        return self.server

    def power_on(self, firmware: str, segment: Segment | None = None, options: Sequence[str] = ()) -> Machine:
        return power_on(FIRMWARE[firmware], segment or self.lan, MAC, self.directory / firmware, options)

    def said(self, machine: Machine, pattern: str, timeout: float = PATIENCE) -> str:
        """What the machine printed where the pattern is; the timeline with it where it never did."""
        try:
            return machine.wait_for(pattern, timeout)[0]
        except LabError as error:
            story = "\n".join(prose.line(record) for record in self.server.records())
            raise LabError(f"{error}\n{story}\n{self.server.said()}") from None

    def finish(self, machine: Machine) -> Booted:
        """Wait for the end of the machine's /init, then end Bootwire and gather everything."""
        self.said(machine, f"{initrd.MARK} done")
        seconds = time.time() - machine.started
        assert self.server.stop() == 0, self.server.said()
        records, beside = self.server.records(), self.dhcp_server
        return Booted(machine, records, self.token, self.linux, self.initrds, beside, seconds)


def told(bench: Bench, kind: type[F], what: Callable[[F], bool] = lambda _: True) -> F:
    """Wait for a fact about the machine."""
    found: list[F] = []

    def seen(records: list[Record]) -> bool:
        found[:] = [r.fact for r in records if isinstance(r.fact, kind) and r.fact.machine == MAC and what(r.fact)]
        return bool(found)

    bench.server.wait_for(seen, kind.__name__, 60)
    return found[0]


def heard_of(bench: Bench) -> Counter[type[Fact]]:
    """How many facts there are about the machine so far, of each kind."""
    return Counter(type(fact) for fact in bench.server.facts(MAC))


class Monitor:
    """QEMU's monitor of a machine that was started with `options`: keys, and a look into its memory."""

    def __init__(self, directory: Path) -> None:
        self._door = directory / "monitor"
        self.options = ["-monitor", f"unix:{self._door},server=on,wait=off"]

    def __enter__(self) -> Monitor:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(self._door))
        self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def do(self, command: str) -> str:
        """Type a command; what QEMU says to it, its echo included."""
        self._socket.sendall(command.encode() + b"\n")
        return self._answer()

    def bios_ticks(self) -> int:
        """The machine's own count of timer interrupts since midnight, 18.2 a second (BIOS data area, 0040:006C)."""
        found = re.search(r"46c: 0x([0-9a-f]{8})", self.do("xp /1wx 0x46c"))
        assert found
        return int(found[1], 16)

    def _answer(self) -> str:
        said = b""
        while not said.endswith(b"(qemu) "):
            piece = self._socket.recv(4096)
            assert piece, said
            said += piece
        return said.decode("ascii", "replace")


def type_at_prompt(machine: Machine, *commands: str) -> None:
    """Type commands at iPXE's prompt, each when the one before is done."""
    for command in commands:
        done = machine.text.count("iPXE> ")
        machine.type(command + "\r")
        machine.wait_for(r"(?s)(iPXE> .*){" + str(done + 1) + "}", 60)


def _version(package: str) -> str:
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    return re.sub(r"^\d+:", "", subprocess.run(query, capture_output=True, text=True, check=False).stdout)
