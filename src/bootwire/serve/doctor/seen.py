"""What the doctor saw, as values: how each firmware fared, and what a plain host found when it looked at the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bootwire.observe.explain.gather import Capture, Machine, Said
from bootwire.preboot.dhcp import Network
from bootwire.wire import dhcp4

NOWHERE = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Program:
    """A file that firmware started, or would have: the first of a trial, and what follows behind shim.

    kind, version  as `assets.loaders` knows it; "" for none of those, and for what is no program at all
    architecture   "bios", "x86_64", …; "" where it is neither an EFI program nor begins as a network boot program does
    signers        issuers of the signing certificates; sbat: whether it has the section that revocation needs
    """

    url: str
    octets: int
    kind: str
    version: str
    architecture: str
    signers: tuple[str, ...]
    sbat: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """How one firmware fared. ends: a sentence; well: it started something; screen: its last lines.

    programs  what it started
    urls      (what for, URL, whether it had it) of files that it fetched, or was told of, over HTTP
    """

    firmware: str
    mac: str
    ends: str
    well: bool
    seconds: float
    screen: tuple[str, ...]
    capture: Capture
    programs: tuple[Program, ...] = ()
    urls: tuple[tuple[str, str, bool], ...] = ()

    @property
    def machine(self) -> Machine | None:
        return self.capture.machines.get(self.mac)

    @property
    def offers(self) -> list[Said]:
        """In the order that they were heard."""
        return self.machine.of(dhcp4.OFFER, client=False) if self.machine is not None else []


@dataclass(frozen=True, slots=True)
class Fetch:
    """One TFTP transfer of a plain host.

    why      "" where it came whole; "no service" (port unreachable), "prohibited" (a firewall says so), "silent",
             "unreachable" (no way there), "error" (the server's), "broken"
    trouble  the same for people
    """

    server: str
    name: str
    block: int
    window: int
    octets: int
    seconds: float
    repeats: int
    why: str
    trouble: str


@dataclass(frozen=True, slots=True)
class Web:
    """One URL fetched by a plain host.

    role     "kernel", "initrd", "script", "loader", "" for others
    had      a machine of ours had it: what is refused now is refused to others only
    length   as Content-Length says, -1 where it does not; octets: that came, maybe not all (`whole`)
    ranges   whether a part can be had; None where that was not tried
    connect  seconds until the connection stood; date: the server's clock less ours, seconds, None if it told none
    why      "" where it came; "refused", "silent", "prohibited", "unreachable", "name" (does not resolve), "status",
             "short", "stalled", "broken"
    """

    url: str
    role: str
    had: bool = False
    server: str = ""
    port: int = 0
    status: int = 0
    octets: int = 0
    length: int = -1
    whole: bool = False
    ranges: bool | None = None
    connect: float = 0.0
    seconds: float = 0.0
    media_type: str = ""
    date: float | None = None
    why: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Echoes:
    """Answers of one host to echo requests. times: seconds, sorted; why: of the last that was not answered."""

    address: str
    roles: tuple[str, ...]
    sent: int
    times: tuple[float, ...]
    why: str = ""
    by: str = ""

    @property
    def loss(self) -> float:
        """Share that was not answered, 0 to 1."""
        return 1 - len(self.times) / self.sent if self.sent else 0.0

    @property
    def median(self) -> float:
        return self.times[len(self.times) // 2] if self.times else 0.0


@dataclass(frozen=True, slots=True)
class PathMtu:
    """The longest IP packet that went to a host and back whole. ours: of our own card; passes: 0 where none did."""

    address: str
    ours: int
    passes: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one name server said of one name. why: "" where it has addresses; "silent", else in its words."""

    server: str
    name: str
    addresses: tuple[str, ...]
    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """offset: seconds that a clock is ahead of ours, None where it did not answer. kind: "HTTP", "NTP", "time"."""

    server: str
    kind: str
    offset: float | None


@dataclass(frozen=True, slots=True)
class Six:
    """IPv6 here. addresses: global ones; answered: by a DHCPv6 server; boot_trouble: why the boot URL's file does not
    come, "" where it does."""

    routers: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    dhcp_address: str = ""
    answered: bool = False
    boot_url: str = ""
    boot_trouble: str = ""
    name_servers: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """All that was seen.

    conflicts  address given to somebody here -> MACs of others that have it
    claimed    addresses that were looked for
    """

    trials: list[Trial] = field(default_factory=list)
    host: Network | None = None
    host_trouble: str = ""
    tftp: list[Fetch] = field(default_factory=list)
    web: list[Web] = field(default_factory=list)
    echoes: list[Echoes] = field(default_factory=list)
    mtus: list[PathMtu] = field(default_factory=list)
    names: list[Resolved] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    six: Six | None = None
    claimed: tuple[str, ...] = ()
    conflicts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: float = 0.0
