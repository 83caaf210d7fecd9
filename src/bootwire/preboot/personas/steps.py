"""What a persona may ask of the outside, and what it gets; and the steps that all of them share."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from bootwire.engine import MS, Ns, S
from bootwire.engine import dhcp_client as dhcp
from bootwire.wire import dhcp4
from bootwire.wire.reader import WireError

# --- requests to the outside ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendUdp:
    """A datagram from `source`:`port`; source is the machine's address, or 0.0.0.0 (which only broadcasts).
    Answer: None.
    """

    source: str
    port: int
    to: str
    to_port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Await:
    """The next datagram to one of `ports`, or None at `until`. Datagrams to other ports are lost meanwhile."""

    ports: tuple[int, ...]
    until: Ns


@dataclass(frozen=True, slots=True)
class Configure:
    """The machine's address from now on; "0.0.0.0" takes it away. mask, router: "" if not known. Answer: None."""

    address: str
    mask: str = ""
    router: str = ""


@dataclass(frozen=True, slots=True)
class TftpGet:
    """Fetch `name` from port 69 of `server`. Answer: Fetched or NotFetched.

    options  as sent, in order (lower case)
    waits    how long each send waits for an answer before it is repeated; as many sends of one packet as entries
    probe    learn the size from the OACK, then hang up with this ERROR code; the answer's `octets` is the size, -1
             where the server did not say
    port     our source port, 0 for any
    limit    octets; a longer file fails as "too big"
    """

    server: str
    name: bytes
    options: tuple[tuple[bytes, bytes], ...] = ()
    waits: tuple[Ns, ...] = (4 * S,) * 6
    probe: int | None = None
    port: int = 0
    limit: int = 1 << 32


@dataclass(frozen=True, slots=True)
class HttpGet:
    """One request on a connection kept for the machine where both sides keep it. Answer: Fetched or NotFetched.

    url       absolute, http
    headers   as sent, in order, Host among them
    redirects followed at most; with none, the answer is handed over as it is
    idle      nanoseconds without an octet before the transfer has failed
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    method: Literal["GET", "HEAD"] = "GET"
    redirects: int = 0
    idle: Ns = 30 * S
    limit: int = 1 << 40


@dataclass(frozen=True, slots=True)
class Show:
    """A line on the machine's screen. Answer: None."""

    text: str


Request = SendUdp | Await | Configure | TftpGet | HttpGet | Show


# --- answers ----------------------------------------------------------------------------------------------------

KEEP = 4 << 20
"""Octets of a fetched file that a persona gets to see; the rest is counted and digested only."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came to `to_port` from `source`:`port`."""

    data: bytes
    source: str
    port: int
    to_port: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A transfer that ended well.

    octets   of the whole file
    sha256   lower-case hexadecimal, "" for a probe or a HEAD
    data     the first KEEP octets
    status   and headers (names in lower case) of an HTTP answer
    repeats  packets we sent again because nothing came in time
    """

    octets: int
    sha256: str = ""
    data: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    repeats: int = 0

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")


def whole(
    body: bytes, status: int = 200, headers: tuple[tuple[str, str], ...] = (), repeats: int = 0
) -> Fetched:  # fmt: skip
    """The answer for a file that is in memory."""
    return Fetched(len(body), hashlib.sha256(body).hexdigest(), body[:KEEP], status, headers, repeats)


@dataclass(frozen=True, slots=True)
class NotFetched:
    """why: "timeout", "error" (the server's, `code` is TFTP's), "status" (HTTP's), "options" (a bad OACK),
    "unreachable", "too big", "broken". text: the server's, or what is wrong.
    """

    why: str
    code: int = 0
    text: str = ""
    repeats: int = 0


Answer = Datagram | Fetched | NotFetched | None


# --- how it ends ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """A file as the machine has it in memory. name: what iPXE's --name or its URL calls it."""

    name: str
    url: str
    octets: int
    sha256: str
    data: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, slots=True)
class Booted:
    """The kernel starts now, with these initrds in this order and this command line."""

    kernel: Image
    initrds: tuple[Image, ...]
    cmdline: str


@dataclass(frozen=True, slots=True)
class Started:
    """A program starts that we cannot follow (an EFI application, an NBP, a disk image)."""

    program: Image


@dataclass(frozen=True, slots=True)
class Stopped:
    """The firmware gives up and goes to its next boot device. code: "PXE-E53" and the like, may be ""."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.code else self.text


Outcome = Booted | Started | Stopped

T = TypeVar("T")
Steps = Generator[Request, Answer, T]
Persona = Steps[Outcome]


@dataclass(slots=True)
class Machine:
    """The computer a persona runs on.

    mac   6 octets; uuid: the 16 octets of option 97 as sent (first three fields little-endian), b"" for none
    rng   for transaction numbers and the like; the edge seeds it well, a test for ever the same
    now   set by the driver before each step
    address  what Configure said last
    ipxe  version of the iPXE builds that run here, embedded or downloaded: what they can do follows from it
    discovers, repeats  DISCOVERs sent; sends of anything that were repeated for want of an answer
    """

    mac: bytes
    uuid: bytes = b""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    now: Ns = 0
    address: str = dhcp.ANY
    ipxe: str = "2.0.0"
    discovers: int = 0
    repeats: int = 0

    def xid(self) -> int:
        return self.rng.getrandbits(32)

    @property
    def mac_text(self) -> str:
        return self.mac.hex(":")


# --- steps that all share ---------------------------------------------------------------------------------------

Filter = Callable[[bytes], str]
"""Why this firmware's own parser drops a message, "" if it does not."""


def lease(machine: Machine, client: dhcp.Client, refuses: Filter | None = None) -> Steps[dhcp.Leased | dhcp.Failed]:
    """Run `client` until it has a lease, which is configured, or gives up."""
    effects = client.start(machine.now)
    while True:
        for effect in effects:
            match effect:
                case dhcp.Send(message):
                    machine.discovers += message.type == dhcp4.DISCOVER
                    yield _datagram(effect)
                case dhcp.Leased():
                    yield from configure(machine, effect.address, effect.mask, effect.router)
                    return effect
                case dhcp.Failed():
                    return effect
                case dhcp.Lost():
                    yield from configure(machine, dhcp.ANY)
        heard = yield from hear(machine, (dhcp4.CLIENT_PORT,), client.deadline, refuses)
        effects = client.receive(heard, machine.now) if heard else client.tick(machine.now)


def inquire(
    machine: Machine, inquiry: dhcp.Inquiry, port: int = dhcp4.CLIENT_PORT, refuses: Filter | None = None
) -> Steps[dhcp.Heard | None]:
    """Ask a boot server; None if it does not answer."""
    effects = inquiry.start(machine.now)
    while True:
        for effect in effects:
            match effect:
                case dhcp.Send():
                    yield _datagram(effect)
                case dhcp.Answered(ack):
                    return ack
                case dhcp.Unanswered():
                    return None
        heard = yield from hear(machine, (port,), inquiry.deadline, refuses)
        effects = inquiry.receive(heard, machine.now) if heard else inquiry.tick(machine.now)


def hear(
    machine: Machine, ports: tuple[int, ...], until: Ns | None, refuses: Filter | None = None
) -> Steps[dhcp.Heard | None]:
    """The next DHCP message that parses, or None at `until` (with no `until`, within a day)."""
    until = machine.now + 86_400 * S if until is None else until
    while True:
        answer = yield Await(ports, until)
        if not isinstance(answer, Datagram):
            return None
        if refuses is not None and (because := refuses(answer.data)):
            yield Show(f"(dropped a message from {answer.source}: {because})")
            continue
        try:
            return dhcp.Heard(dhcp4.parse(answer.data), answer.source, answer.port)
        except WireError:
            continue


def agreed(ask: dhcp.Ask) -> dhcp4.Options:
    """Options 54 and 50 of a REQUEST for an offer, in the order that most firmware has; none of a DISCOVER."""
    return (
        *(((dhcp4.SERVER_ID, dhcp4.packed(ask.server)),) if ask.server else ()),
        *(((dhcp4.REQUESTED_ADDRESS, dhcp4.packed(ask.address)),) if ask.address else ()),
    )


def configure(machine: Machine, address: str, mask: str = "", router: str = "") -> Steps[None]:
    """Use an address from now on."""
    machine.address = address
    yield Configure(address, mask, router)


def pause(machine: Machine, wait: Ns) -> Steps[None]:
    """Do nothing for `wait` nanoseconds."""
    until = machine.now + wait
    while machine.now < until:
        yield Await((), until)


def fetch(machine: Machine, wanted: TftpGet | HttpGet) -> Steps[Fetched | NotFetched]:
    """Fetch a file, and count what had to be repeated for it."""
    answer = yield wanted
    assert isinstance(answer, Fetched | NotFetched)
    machine.repeats += answer.repeats
    return answer


def show(text: str) -> Steps[None]:
    """Put a line on the machine's screen."""
    yield Show(text)


def doubling(first: Ns, last: Ns, sends: int) -> tuple[Ns, ...]:
    """Waits that double from `first` and stay at `last`."""
    return tuple(min(first << n, last) for n in range(sends))


QUARTER: Ns = 250 * MS


def _datagram(send: dhcp.Send) -> SendUdp:
    return SendUdp(send.message.ciaddr, send.port, send.to, send.to_port, dhcp4.emit(send.message))
