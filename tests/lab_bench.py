"""A lab as the end-to-end tests need it: one network, a DHCP server nobody touched, Bootwire, and real firmware."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from bootwire.facts import Fact, Record
from bootwire.lab import initrd
from bootwire.lab.dhcp_servers import DHCP_SERVERS, Pool
from bootwire.lab.firmware import FIRMWARE, Machine, power_on
from bootwire.lab.linux import Linux
from bootwire.lab.network import Host, Network, Segment
from bootwire.lab.server import Server, start_server

NEAR = Pool("10.77.0.0", 24, "255.255.255.0", "10.77.0.100", "10.77.0.199", "10.77.0.1")
FAR = Pool("10.77.1.0", 24, "255.255.255.0", "10.77.1.100", "10.77.1.199", "10.77.1.1")
DHCP_SERVER, BOOTWIRE, WEB_SERVER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
PATIENCE = 180.0  # seconds from power-on to the end of /init; 25 to 45 are usual on an idle machine
MAC = "52:54:00:77:00:01"
SECOND = "what only the second archive holds"


@dataclass
class Booted:
    """One boot that is over: what the machine printed, and what Bootwire told of it."""

    machine: Machine
    records: list[Record]
    token: str
    kernel: Path
    initrds: tuple[Path, ...]
    seconds: float

    @property
    def facts(self) -> list[Fact]:
        """About this machine."""
        return [record.fact for record in self.records if record.fact.machine == self.machine.mac]

    @property
    def command_line(self) -> str:
        """As the kernel itself printed it, "" if it never did."""
        found = re.search(r"Kernel command line: (.*)", self.machine.text)
        return found[1].strip() if found else ""

    def of(self, *kinds: type[Fact]) -> list[Fact]:
        return [fact for fact in self.facts if isinstance(fact, kinds)]

    def story(self) -> str:
        """For a failing test: the facts, then the end of the serial port."""
        return "\n".join([*map(str, self.facts), self.machine.tail(30)])


@dataclass
class Bench:
    """Builds the network on entering. Bootwire starts with `serve`; `boot` runs one machine to its end."""

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
        self.kernel = self.linux.kernel
        first, second = self.directory / "system.gz", self.directory / "second.gz"
        first.write_bytes(self.linux.initrd())
        second.write_bytes(initrd.extra({"second": SECOND}))
        self.initrds: tuple[Path, ...] = (first, second)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def start_dhcp(self, pools: Sequence[Pool] = (NEAR,)) -> None:
        DHCP_SERVERS[self.dhcp_server].start(self.dhcp, pools, self.directory)

    def serve(self, firmware: str, images: Sequence[str] = (), options: Sequence[str] = ()) -> Server:
        """Start Bootwire for that firmware's kind of console. images: kernel and initrds, the bench's own if empty."""
        names = images or [str(self.kernel), *map(str, self.initrds)]
        cmdline = f"console={FIRMWARE[firmware].console} {self.token}"
        common = [
            "-i",
            "eth0",
            "--state-dir",
            str(self.state),
            "--no-fetch",
            "--pcap",
            str(self.directory / "lan.pcap"),
        ]
        self.server = start_server(self.ours, ["boot", *names, "--cmdline", cmdline, *common, *options], self.directory)
        return self.server

    def power_on(self, firmware: str, segment: Segment | None = None) -> Machine:
        self._began = time.monotonic()
        return power_on(FIRMWARE[firmware], segment or self.lan, MAC, self.directory / firmware)

    def finish(self, machine: Machine) -> Booted:
        """Wait for the end of the machine's /init, then end Bootwire and gather everything."""
        machine.wait_for(f"{initrd.MARK} done", PATIENCE)
        seconds = time.monotonic() - self._began
        assert self.server.stop() == 0, self.server.said()
        return Booted(machine, self.server.records(), self.token, self.kernel, self.initrds, seconds)

    def boot(self, firmware: str) -> Booted:
        self.start_dhcp()
        self.serve(firmware)
        return self.finish(self.power_on(firmware))
