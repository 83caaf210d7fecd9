"""The vocabulary of what happened: one frozen value for each kind of line in the timeline.

A fact says what, never when: the edge stamps it (`Record`). Text that came from a peer is kept as the peer's text,
escaped and cut by whoever made the fact (at most 256 characters); whoever prints it prints it as it is.

Addresses are dotted or colon strings, MACs lower-case with colons ("52:54:00:12:34:56"), octets and seconds are
plain numbers. `machine` is the MAC where it is known, else "". `because` is a sentence fragment a person can read.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, slots=True)
class Fact:
    """What every fact has: the machine it is about, or "" when it is about the server itself."""

    kind: ClassVar[str] = ""
    machine: str


# --- the server itself ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listening(Fact):
    """A service took its socket. service: dhcp, pxe, tftp, http, syslog; how: "bound", "capture socket"."""

    kind: ClassVar[str] = "listening"
    service: str
    address: str
    port: int
    interface: str = ""
    how: str = "bound"


@dataclass(frozen=True, slots=True)
class Warned(Fact):
    """Something a person should know or do; `fix` is what to do next, a command where there is one."""

    kind: ClassVar[str] = "warning"
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Stopped(Fact):
    """The server ends."""

    kind: ClassVar[str] = "stopped"
    because: str


# --- DHCP and the PXE boot server -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Discovered(Fact):
    """A machine asked for a network boot (DHCPDISCOVER that we understood).

    client: a short reading ("UEFI x64", "BIOS", "iPXE 1.21 BIOS"); arch: option 93's first known value, -1 if none;
    retry: how many earlier DISCOVERs of the same xid were seen.
    """

    kind: ClassVar[str] = "discover"
    client: str
    arch: int
    uuid: str
    xid: int
    interface: str
    relay: str = ""
    vendor_class: str = ""
    user_class: str = ""
    retry: int = 0


@dataclass(frozen=True, slots=True)
class Decided(Fact):
    """What this machine shall boot was decided. what: in a few words; profile: what the operator calls it, or ""."""

    kind: ClassVar[str] = "decision"
    what: str
    profile: str
    because: str


@dataclass(frozen=True, slots=True)
class Offered(Fact):
    """We answered a DISCOVER. recipe: direct, binl, menu, ipxe, http-boot, raspberry (docs/reference/offers.md)."""

    kind: ClassVar[str] = "offer"
    recipe: str
    boot_file: str
    server: str
    interface: str
    because: str


@dataclass(frozen=True, slots=True)
class PxeRequested(Fact):
    """A machine asked the boot server on port 4011. item: PXE boot item type (43.71), -1 if none."""

    kind: ClassVar[str] = "pxe-request"
    client: str
    address: str
    source_port: int
    item: int = -1


@dataclass(frozen=True, slots=True)
class PxeAnswered(Fact):
    """We answered on port 4011."""

    kind: ClassVar[str] = "pxe-answer"
    boot_file: str
    server: str
    address: str
    because: str


NO_NETBOOT = ("ordinary host", "BOOTP client")
"""How the `client` of a host begins that did not ask for a network boot."""


@dataclass(frozen=True, slots=True)
class Silent(Fact):
    """We understood a packet and chose not to answer."""

    kind: ClassVar[str] = "silence"
    service: str
    because: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class Refused(Fact):
    """A packet or request we could not or would not take. detail: escaped and cut octets of it, may be ""."""

    kind: ClassVar[str] = "refusal"
    service: str
    source: str
    because: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AddressSeen(Fact):
    """The machine's own DHCP server gave it an address (DHCPREQUEST or ACK seen on the wire).

    proxied: whether it says that it has a ProxyDHCP offer, too ("yes", "no"); "" where its firmware does not tell.
    """

    kind: ClassVar[str] = "address"
    address: str
    by: str
    proxied: str = ""


@dataclass(frozen=True, slots=True)
class DhcpHeard(Fact):
    """What the network's own DHCP server told a machine that does not get on with it.

    what: "offer" (an address, and the machine asks again), "no subnet mask" (option 1 is missing), "vendor class alone"
    (option 60 says PXEClient, and nothing to boot), "no next server" (a boot file, and siaddr 0.0.0.0), "refusal"
    (NAK).
    """

    kind: ClassVar[str] = "dhcp-heard"
    server: str
    what: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class RivalSeen(Fact):
    """Another server on this network answered a boot request, too. what: "proxy offer", "offer with a boot file".

    Told once in each attempt of a machine; of one that is not known to netboot once a minute and server.
    """

    kind: ClassVar[str] = "rival"
    server: str
    what: str
    boot_file: str = ""


@dataclass(frozen=True, slots=True)
class StateChanged(Fact):
    """What a machine may install. phase: idle, armed, installing, installed, failed; tries: boots that are left."""

    kind: ClassVar[str] = "state"
    phase: str
    profile: str
    tries: int
    because: str


# --- transfers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TransferStarted(Fact):
    """protocol: tftp or http. octets: -1 where nobody knows beforehand.

    options: what was agreed ("blksize 1468, windowsize 4", "octets 0-99 of 1000"), may be "". An HTTP transfer that
    is over as soon as it begins, because one send took it all, has only its TransferDone.
    """

    kind: ClassVar[str] = "transfer-start"
    protocol: str
    name: str
    peer: str
    octets: int
    options: str = ""


@dataclass(frozen=True, slots=True)
class TransferDone(Fact):
    """octets: of the file as sent, once (a range counts its own length); resent: octets sent more than once.

    confirmed: False where all was sent but the last TFTP ACK never came, as from ROMs that hang up first.
    """

    kind: ClassVar[str] = "transfer-done"
    protocol: str
    name: str
    peer: str
    octets: int
    seconds: float
    resent: int = 0
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class TransferFailed(Fact):
    """octets: how many were acknowledged (tftp) or taken by the kernel (http) before it ended."""

    kind: ClassVar[str] = "transfer-failed"
    protocol: str
    name: str
    peer: str
    octets: int
    seconds: float
    because: str


@dataclass(frozen=True, slots=True)
class SizeProbed(Fact):
    """The client asked for the size alone: RFC 2349 tsize, then ERROR 8 or 0 (EDK2, Intel ROMs), or HTTP HEAD."""

    kind: ClassVar[str] = "size-probe"
    name: str
    peer: str
    octets: int
    protocol: str = "tftp"


@dataclass(frozen=True, slots=True)
class NotFound(Fact):
    """A name we do not serve was asked for. For optional names (autoexec.ipxe, revocations.efi) that is normal."""

    kind: ClassVar[str] = "not-found"
    protocol: str
    name: str
    peer: str
    because: str


# --- other servers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceAsked(Fact):
    """The boot service was asked what a machine boots. outcome: "boot", "no", "failed", or "last good"."""

    kind: ClassVar[str] = "service"
    service: str
    outcome: str
    seconds: float
    because: str


@dataclass(frozen=True, slots=True)
class FleetLoaded(Fact):
    """A fleet file is in force from now on. what: what is in it."""

    kind: ClassVar[str] = "fleet"
    file: str
    what: str


@dataclass(frozen=True, slots=True)
class DocumentServed(Fact):
    """A machine fetched a document that was made for it. secrets: the names of those in it, "" for none."""

    kind: ClassVar[str] = "document"
    name: str
    peer: str
    octets: int
    profile: str
    secrets: str = ""


@dataclass(frozen=True, slots=True)
class ImageFetched(Fact):
    """An image of another server is in the cache now. resumed: how often its server had to be asked for the rest."""

    kind: ClassVar[str] = "image"
    name: str
    octets: int
    seconds: float
    sha256: str
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class ImageRefused(Fact):
    """An image could not be had, or was not what it should be; it is not served."""

    kind: ClassVar[str] = "image-refused"
    name: str
    because: str


# --- after the loader -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScriptServed(Fact):
    """An iPXE script was made for this machine. loader: what iPXE said it is ("iPXE 2.0.0 efi x86_64")."""

    kind: ClassVar[str] = "script"
    name: str
    peer: str
    loader: str
    because: str


@dataclass(frozen=True, slots=True)
class ConsoleSaid(Fact):
    """One line of the machine's own iPXE console, received by syslog."""

    kind: ClassVar[str] = "console"
    peer: str
    text: str


@dataclass(frozen=True, slots=True)
class HandedOver(Fact):
    """iPXE has everything and starts the kernel now (it fetched the marker that the script asks for last)."""

    kind: ClassVar[str] = "hand-over"
    peer: str
    octets: int
    seconds: float


# --- bootinfo ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BootinfoAsked(Fact):
    """A machine asks by bootinfo what it shall do. how: "plain", "host key", "sealed"; version: 0 is an old client;
    again: it was told a moment ago, or it waits and asks from time to time."""

    kind: ClassVar[str] = "bootinfo-ask"
    address: str
    how: str
    version: int
    again: bool


@dataclass(frozen=True, slots=True)
class BootinfoAnswered(Fact):
    """It was told. answer: "partition 2", "wait", "nothing" …; again: as before, to a machine that asks again."""

    kind: ClassVar[str] = "bootinfo-answer"
    address: str
    answer: str
    because: str
    again: bool


@dataclass(frozen=True, slots=True)
class OrderSent(Fact):
    """An order left for a waiting machine. attempt: 1 for the first."""

    kind: ClassVar[str] = "order"
    address: str
    order: str
    attempt: int


@dataclass(frozen=True, slots=True)
class OrderEnded(Fact):
    """A waiting machine took an order, or gave no sign of it. how: by what that was known."""

    kind: ClassVar[str] = "order-end"
    address: str
    order: str
    taken: bool
    how: str


@dataclass(frozen=True, slots=True)
class FellSilent(Fact):
    """A machine that waited and kept asking does not any more. seconds: since it last did."""

    kind: ClassVar[str] = "fell-silent"
    address: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Verdict(Fact):
    """What became of a boot, as far as it can be told now; a boot that moves on gets another one.

    boot: its number; state: booted, stuck, silent (it asked, and nothing followed), declined (we chose not to boot it);
    stage: the last it reached (`observe.boots.STAGES`); cause: an id of `observe.rules`, "" when booted; fix: what to
    do, in order; screen: what the machine's screen shows then, "" if nothing of its own; seconds and octets: of it all.
    """

    kind: ClassVar[str] = "verdict"
    boot: int
    state: str
    stage: str
    cause: str
    because: str
    fix: str
    screen: str
    seconds: float
    octets: int


@dataclass(frozen=True, slots=True)
class ReportReceived(Fact):
    """A program on the bare machine told what that machine is.

    what: in one line; changes: since its report before, "" for none; record: all of it as JSON text
    """

    kind: ClassVar[str] = "report"
    address: str
    program: str
    what: str
    changes: str
    because: str
    record: str


@dataclass(frozen=True, slots=True)
class ProgramSaid(Fact):
    """A program on the bare machine sent a text. how: "note" (its report says so), "log" or "echo" (those ports)."""

    kind: ClassVar[str] = "program"
    address: str
    how: str
    text: str


class Record(NamedTuple):
    """A fact with its moment. wall: seconds since the Unix epoch; at: monotonic nanoseconds."""

    wall: float
    at: int
    fact: Fact

    def as_dict(self) -> dict[str, object]:
        """One JSON object: v, time (Unix seconds), kind, machine, then the fact's own fields in order."""
        body = dataclasses.asdict(self.fact)
        return {"v": 1, "time": round(self.wall, 6), "kind": self.fact.kind, **body}


KINDS: tuple[type[Fact], ...] = (
    Listening,
    Warned,
    Stopped,
    Discovered,
    Decided,
    Offered,
    PxeRequested,
    PxeAnswered,
    Silent,
    Refused,
    AddressSeen,
    DhcpHeard,
    RivalSeen,
    StateChanged,
    TransferStarted,
    TransferDone,
    TransferFailed,
    SizeProbed,
    NotFound,
    ServiceAsked,
    FleetLoaded,
    DocumentServed,
    ImageFetched,
    ImageRefused,
    ScriptServed,
    ConsoleSaid,
    HandedOver,
    Verdict,
    BootinfoAsked,
    BootinfoAnswered,
    OrderSent,
    OrderEnded,
    FellSilent,
    ReportReceived,
    ProgramSaid,
)
"""Every kind, in the order above; one on each line, so that two changes at once do not meet."""
