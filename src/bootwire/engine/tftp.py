"""TFTP transfers, both roles: RFC 1350, options as in RFC 2347-2349, windows as in RFC 7440.

`Sender` is the hot path, so it takes and returns plain integers: which blocks to send now. The octets of a block, and
the sockets, are the caller's business. A block is counted without wrapping, from 1; 0 stands for the option
acknowledgement, which is acknowledged like a block. `Receiver` takes and returns datagrams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bootwire.engine import MS, Ns, S
from bootwire.wire import tftp as wire
from bootwire.wire.reader import WireError

WINDOW_LIMIT: Final = 64  # blocks; what one UDP_SEGMENT send can carry (Linux UDP_MAX_SEGMENTS, 64 before 6.9)
FLIGHT_LIMIT: Final = 131_072  # octets in flight: more overruns a default receive buffer (Linux rmem_default 212992)

FIRST_WAITS: Final = (1 * S, 2 * S, 4 * S)  # before anything is acknowledged: one send each, then give up
RTO_START: Final = 1 * S  # until a round trip was measured (RFC 1123 section 4.2.3.2 asks for adaptive time-outs)
RTO_FLOOR: Final = 50 * MS  # shorter ones fire on a busy virtual machine's scheduling alone
RTO_CEILING: Final = 8 * S  # two fit into any firmware's patience (EDK2 Mtftp4 and iPXE wait 24 s and more in all)
PATIENCE: Final = 30 * S  # without a new block acknowledged (or received) a transfer has failed
LAST_TRIES: Final = 5  # re-sends of the last flight before the missing ACK is forgiven (some ROMs never send it)
UNREACHABLE_LIMIT: Final = 3  # "port unreachable" answers without progress in between before we believe them
LOOK: Final = 63  # the round trip is measured at every block whose number has none of these bits


# --- options ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a transfer goes by.

    block_size  octets of a DATA payload, 8..65464
    window      blocks a flight, 1..64
    timeout     seconds, as the client asked; 0 if it did not
    answer      what the OACK says; empty means none is sent
    """

    block_size: int = wire.BLOCK_SIZE
    window: int = 1
    timeout: int = 0
    answer: wire.Options = ()


def agree(
    options: wire.Options, *, size: int | None, block_limit: int = wire.MAX_BLOCK_SIZE, window_limit: int = WINDOW_LIMIT
) -> Agreed:
    """What of the client's `options` the server takes (RFC 2347): nothing unasked, nothing bigger.

    size: octets of the file for tsize, None or 0 leaves it out; block_limit: what fits the path, octets.
    A value that is no number or out of range is as good as not asked: the option is left out of the answer.
    """
    block_size, window, timeout = wire.BLOCK_SIZE, 1, 0
    answer: dict[bytes, bytes] = {}
    seen: set[bytes] = set()
    for name, value in options:
        asked = wire.number(value)
        if asked is None or name in seen:
            seen.add(name)
            continue
        seen.add(name)
        if name == b"blksize" and asked >= wire.MIN_BLOCK_SIZE:
            block_size = max(wire.MIN_BLOCK_SIZE, min(asked, block_limit, wire.MAX_BLOCK_SIZE))
            answer[name] = b"%d" % block_size
        elif name == b"tsize" and size:  # curl (lib/tftp.c, seen in 7.88) takes a size of 0 for a broken OACK
            answer[name] = b"%d" % size
        elif name == b"timeout" and 1 <= asked <= 255:  # RFC 2349: the same value or nothing; U-Boot compares
            timeout = asked
            answer[name] = value
        elif name == b"windowsize" and 1 <= asked <= 65535:  # RFC 7440
            window = min(asked, window_limit)
            answer[name] = b""  # block_size may come after it
    if b"windowsize" in answer:
        window = max(1, min(window, FLIGHT_LIMIT // block_size))
        answer[b"windowsize"] = b"%d" % window
    return Agreed(block_size, window, timeout, tuple(answer.items()))


# --- the serving side -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """All blocks were sent. confirmed: the last ACK came; False for a client that hung up without it."""

    confirmed: bool


@dataclass(frozen=True, slots=True)
class Probed:
    """The client asked for the size, got it, and hung up: normal for EDK2, Intel ROMs and PXELINUX."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The client sent an ERROR."""

    code: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The client never acknowledged anything: it is gone, or never asked (a forged source address)."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """PATIENCE is over. block: the first one that was not acknowledged."""

    block: int


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The client's port is closed, says its network stack."""


Outcome = Finished | Probed | Aborted | Unanswered | Stalled | Unreachable


class Sender:
    """Serves one file to one client.

    `start`, `acked`, `repeated` and `tick` return how many blocks to send now, in order, from `first` on; block 0 is
    the OACK and comes alone. After each call look at `outcome`: once it is set nothing more is sent. `deadline` is
    when `tick` is due; calling it early does nothing. Nothing the client sends raises.

    Until the first ACK the client is unproven: one datagram in flight, and len(FIRST_WAITS) sends a request in all,
    so that a forged request is no amplifier.
    """

    # The path of an ACK stores no more than `base` and `progress_at`: with hundreds of transfers in turn, each further
    # integer object would cost a cache miss to free and another to make.
    __slots__ = (
        "_block_size",
        "_ceiling",
        "_deviation",
        "_doubted",
        "_flight",
        "_look",
        "_probing",
        "_resent_at",
        "_rto",
        "_size",
        "_smooth",
        "_tail",
        "_tries",
        "_unreachable",
        "_wait",
        "_window",
        "base",
        "last",
        "outcome",
        "progress_at",
        "proven",
        "resent",
    )

    def __init__(self, size: int, agreed: Agreed) -> None:
        """size: octets of the file."""
        self._size, self._block_size, self._window = size, agreed.block_size, agreed.window
        self._probing = wire.find(agreed.answer, b"tsize") is not None
        self._ceiling = min(RTO_CEILING, agreed.timeout * S) if agreed.timeout else RTO_CEILING
        self.base = -1 if agreed.answer else 0  # the last block acknowledged; -1: not even the OACK
        self.last = size // agreed.block_size + 1  # a short block, maybe empty, ends it: RFC 1350 section 6
        self._tail = self.last - agreed.window  # past it less than a window is left
        self._flight = 1  # blocks in flight, from first on; -1 once closed
        self.progress_at: Ns = 0  # when this flight was first sent, which is when a block was last acknowledged
        self._wait: Ns = FIRST_WAITS[0]  # from progress_at to the deadline
        self._rto: Ns = min(RTO_START, self._ceiling)
        self._smooth: Ns = 0  # smoothed round trip and its mean deviation, as in RFC 6298; 0: none measured
        self._deviation: Ns = 0
        self._look = True  # the next ACK is to be looked at closely: it is the first, or there was trouble
        self._resent_at: Ns = 0
        self._tries = 0  # sends of this flight after the first
        self._doubted = False  # the flight before was sent twice, so ACKs of its copies may still come
        self._unreachable = 0
        self.proven = False
        self.resent = 0  # octets of DATA sent more than once
        self.outcome: Outcome | None = None

    @property
    def first(self) -> int:
        """The first block in flight."""
        return self.base + 1

    @property
    def deadline(self) -> Ns | None:
        """When `tick` is due; None once closed."""
        return None if self.outcome is not None else self.progress_at + self._wait

    @property
    def acknowledged(self) -> int:
        """Octets the client has for sure."""
        return max(0, min(self.base * self._block_size, self._size))

    def start(self, now: Ns) -> int:
        self.progress_at = now
        return 1

    def acked(self, block: int, now: Ns) -> int:
        """An ACK came. block: 0..65535 as on the wire."""
        progress = (block - self.base) & 0xFFFF
        if progress != self._flight:
            return self._acked_oddly(progress, now)
        base = self.base = self.base + progress
        if self._look or not base & LOOK:
            self._look_closely(now)
        self.progress_at = now
        if base > self._tail:
            self._flight = self.last - base
            if self._flight == 0:
                return self._close(Finished(confirmed=True))
        return self._flight

    def repeated(self, now: Ns) -> int:
        """The same request came again while nothing was acknowledged: it earns the first packet once more."""
        if self.proven or self.outcome is not None:
            return 0
        self._tries = 0
        self.progress_at, self._wait = now, FIRST_WAITS[0]
        return 1

    def aborted(self, code: int, text: bytes) -> None:
        """An ERROR came."""
        if self.outcome is None:
            probe = self._probing and not self.proven and code in (wire.REFUSED_OPTIONS, wire.UNDEFINED)
            self._close(Probed() if probe else Aborted(code, text))

    def unreachable(self) -> None:
        """ICMP says that nobody listens at the client's port."""
        self._unreachable += 1
        self._look = True
        if self.outcome is None and (not self.proven or self._unreachable >= UNREACHABLE_LIMIT):
            self._close(Finished(confirmed=False) if self._at_the_end() else Unreachable())

    def tick(self, now: Ns) -> int:
        since = now - self.progress_at
        if self.outcome is not None or since < self._wait:
            return 0
        self._tries += 1
        self._look = True
        if not self.proven:
            if self._tries == len(FIRST_WAITS):
                return self._close(Unanswered())
            self._wait = since + FIRST_WAITS[self._tries]
        else:
            if self._tries > LAST_TRIES and self._at_the_end():
                return self._close(Finished(confirmed=False))
            if since >= PATIENCE:
                return self._close(Stalled(self.first))
            self._rto = min(2 * self._rto, self._ceiling)
            self._wait = min(since + self._rto, PATIENCE)
        self._resent_at = now
        self.resent += self._octets(self.first, self._flight)
        return self._flight

    def _acked_oddly(self, progress: int, now: Ns) -> int:
        """An ACK that is not of the whole flight: of a part of it, of what was acknowledged before, or nonsense.

        Answering an old ACK with DATA doubles every later packet (the Sorcerer's Apprentice, RFC 1123 section 4.2.3.1).
        In a window an ACK short of its end reports a gap (RFC 7440 section 4), which is worth sending again from there:
        once in a round trip, because some receivers (EDK2 Mtftp4) report it for every later block of the window.
        """
        if progress > self._flight or not self.proven:
            return 0
        # Too soon to be an answer to what was sent last?
        fresh = now - max(self.progress_at, self._resent_at) < self._smooth >> 1
        if progress == 0:
            if fresh or self._window == 1 or self._doubted or self._tries:
                return 0
            flight = self._flight
            self.resent += self._octets(self.first, flight)
        else:
            self._learn(now)
            self.base += progress
            self.progress_at = now
            self._unreachable = 0
            ahead = self._flight - progress
            if fresh:
                flight = ahead
            else:
                flight = min(self._window, self.last - self.base)
                self.resent += self._octets(self.first, ahead)
        self._look = True
        self._flight = flight
        self._tries = 1  # which sending of it the next ACK answers is unknown from now on
        self._wait = now - self.progress_at + self._rto
        if fresh:
            return 0
        self._resent_at = now
        return flight

    def _look_closely(self, now: Ns) -> None:
        """A whole flight was acknowledged: learn from it, and put away the marks of trouble."""
        self.proven = True
        self._unreachable = 0
        self._flight = self._window
        self._doubted = self._look = self._tries > 0
        self._learn(now)
        self._tries = 0

    def _learn(self, now: Ns) -> None:
        """Blocks in flight were acknowledged: estimate the time-out (RFC 6298 section 2), which ends its doubling."""
        if self._tries == 0:  # else which of the copies was acknowledged is not known (Karn)
            sample = now - self.progress_at
            if self._smooth:
                self._deviation += (abs(sample - self._smooth) - self._deviation) // 4
                self._smooth += (sample - self._smooth) // 8
            else:
                self._smooth, self._deviation = max(1, sample), sample // 2
        wanted = max(self._smooth + 4 * self._deviation, RTO_FLOOR) if self._smooth else RTO_START
        self._wait = self._rto = min(wanted, self._ceiling)

    def _at_the_end(self) -> bool:
        return self.proven and self.base + self._flight == self.last

    def _octets(self, first: int, count: int) -> int:
        """How many octets of the file the blocks hold."""
        begin = max(0, (first - 1) * self._block_size)
        return max(0, min((first + count - 1) * self._block_size, self._size) - begin)

    def _close(self, outcome: Outcome) -> int:
        self.outcome, self._flight = outcome, -1
        return 0


# --- the asking side --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A read request. Options that are at their protocol default are not asked for.

    block_size  octets, 8..65464
    window      blocks, 1..65535
    timeout     seconds, 1..255, or 0 not to ask
    ask_size    send tsize
    limit       octets; a longer file is refused with ERROR 3
    order       names of options in the order sent: servers must not care, but firmware is told apart by it
    waits       how long each send of one packet waits, as firmware counts; after the last it gives up. Empty: by the
                transfer's own round trip, for PATIENCE in all
    """

    filename: bytes
    mode: bytes = b"octet"
    block_size: int = wire.BLOCK_SIZE
    window: int = 1
    timeout: int = 0
    ask_size: bool = True
    limit: int = 1 << 40
    order: tuple[bytes, ...] = (b"tsize", b"blksize", b"timeout", b"windowsize")
    waits: tuple[Ns, ...] = ()

    def request(self) -> wire.ReadRequest:
        options: list[tuple[bytes, bytes]] = []
        if self.ask_size:
            options.append((b"tsize", b"0"))
        if self.block_size != wire.BLOCK_SIZE:
            options.append((b"blksize", b"%d" % self.block_size))
        if self.timeout:
            options.append((b"timeout", b"%d" % self.timeout))
        if self.window > 1:
            options.append((b"windowsize", b"%d" % self.window))
        options.sort(key=lambda option: self.order.index(option[0]))
        return wire.ReadRequest(self.filename, self.mode, tuple(options))


@dataclass(frozen=True, slots=True)
class Packet:
    """Send `data` to `to`, a source that `receive` was given, or to the server's request port if it is None."""

    data: bytes
    to: object | None


@dataclass(frozen=True, slots=True)
class Received:
    """The whole file came. octets: its length."""

    octets: int


@dataclass(frozen=True, slots=True)
class Denied:
    """The server sent an ERROR."""

    code: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """The server broke the protocol or our limits; it was told so with an ERROR."""

    because: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing new from the server for PATIENCE, or no answer at all."""

    octets: int


Verdict = Received | Denied | Broken | Silence


class Receiver:
    """Fetches one file.

    `start`, `receive` and `tick` return the packets to send; `take` the payloads that came since, in order. `outcome`
    is set when it is over; go on feeding datagrams for a while then, for the server may have lost the last ACK.
    A source is whatever tells one sender of datagrams from another, an (address, port) pair for one: the first
    sensible answer settles the server's (its TID, RFC 1350 section 4), others get ERROR 5.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._request = wire.emit(wanted.request())
        self._server: object | None = None
        self._block_size, self._window = wire.BLOCK_SIZE, 1
        self._got = 0  # the last block received in order, not wrapped
        self._since_ack = 0  # blocks taken since the last ACK
        self._sent_at: Ns = 0
        self._smooth: Ns = 0
        self._tries = 0
        self._progress_at: Ns = 0
        self._payloads: list[bytes] = []
        self.octets = 0
        self.size: int | None = None  # as the server's tsize said
        self.options: wire.Options = ()  # as the server acknowledged them
        self.outcome: Verdict | None = None
        self.deadline: Ns | None = None

    def start(self, now: Ns) -> list[Packet]:
        self._progress_at = now
        return self._send(self._request, None, now)

    def take(self) -> list[bytes]:
        payloads, self._payloads = self._payloads, []
        return payloads

    def receive(self, data: bytes, source: object, now: Ns) -> list[Packet]:
        if self._server is not None and source != self._server:
            return [] if data[:2] == b"\0\5" else [Packet(_UNKNOWN, source)]  # an ERROR is never answered
        if data[:2] == b"\0\3" and len(data) >= wire.HEADER:
            return self._take_block(int.from_bytes(data[2:4], "big"), data[wire.HEADER :], source, now)
        try:
            message = wire.parse(data)
        except WireError as error:
            return self._fail(f"unreadable answer: {error}", source) if self._server is None else []
        match message:
            case wire.Error(code, text):
                if self.outcome is None:
                    self.outcome, self.deadline = Denied(code, text), None
                return []
            case wire.OptionAck(options):
                return self._take_options(options, source, now)
            case _:
                return []

    def tick(self, now: Ns) -> list[Packet]:
        """Ask or acknowledge again when the server has been silent for too long."""
        if self.deadline is None or now < self.deadline:
            return []
        waits = self._wanted.waits
        if self._tries + 1 == len(waits) if waits else now - self._progress_at >= PATIENCE:
            self.outcome, self.deadline = Silence(self.octets), None
            return []
        self._tries += 1
        if self._server is None:
            return self._send(self._request, None, now)
        return self._acknowledge(now)

    def _take_options(self, options: wire.Options, source: object, now: Ns) -> list[Packet]:
        if self._server is not None:
            first = self._got == 0 and options == self.options and self.outcome is None
            return self._acknowledge(now) if first else []
        asked = dict(self._wanted.request().options)
        block_size, window, size = wire.BLOCK_SIZE, 1, None
        for name, value in options:
            number = wire.number(value)
            if name not in asked or number is None:
                return self._fail("an option we did not ask for, or no number", source, wire.REFUSED_OPTIONS)
            if name == b"blksize":
                block_size = number
            elif name == b"windowsize":
                window = number
            elif name == b"tsize":
                size = number
        if not wire.MIN_BLOCK_SIZE <= block_size <= max(self._wanted.block_size, wire.BLOCK_SIZE):
            return self._fail(f"block size {block_size}", source, wire.REFUSED_OPTIONS)
        if not 1 <= window <= self._wanted.window:
            return self._fail(f"window {window}", source, wire.REFUSED_OPTIONS)
        if size is not None and size > self._wanted.limit:
            return self._fail(f"a file of {size} octets", source, wire.DISK_FULL)
        self._server, self.options = source, options
        self._block_size, self._window, self.size = block_size, window, size
        self._progress(now)
        return self._acknowledge(now)

    def _take_block(self, block: int, payload: bytes, source: object, now: Ns) -> list[Packet]:
        if self.outcome is not None:
            return self._acknowledge(now) if isinstance(self.outcome, Received) else []
        ahead = (block - self._got) & 0xFFFF
        if ahead != 1:
            return self._out_of_order(ahead, now)
        if len(payload) > self._block_size:
            return self._fail(f"a block of {len(payload)} octets", source)
        self._server = source  # a DATA as the first answer: the server takes no options
        if self.octets + len(payload) > self._wanted.limit:
            return self._fail("a file over the limit", source, wire.DISK_FULL)
        if self._since_ack == 0:
            self._progress(now)
        self._got += 1
        self._since_ack += 1
        self.octets += len(payload)
        self._payloads.append(payload)
        self._progress_at = now
        if len(payload) < self._block_size:
            self.outcome = Received(self.octets)
        elif self._since_ack < self._window:
            self.deadline = now + self._patience()
            return []
        packets = self._acknowledge(now)
        if self.outcome is not None:
            self.deadline = None
        return packets

    def _out_of_order(self, ahead: int, now: Ns) -> list[Packet]:
        """Say which block we have, so that the server goes back to a gap (RFC 7440 section 4), or on after a lost ACK.

        ahead: how far the block is past the last one we have, modulo 65536. In a window this is said once of a burst,
        and a copy of an old block is no news while the window is still coming.
        """
        if self._server is None:
            return []
        copy = ahead == 0 or ahead > 0x8000
        if self._window > 1 and (now - self._sent_at < self._smooth >> 1 or (copy and self._since_ack > 0)):
            return []
        return self._acknowledge(now)

    def _acknowledge(self, now: Ns) -> list[Packet]:
        self._since_ack = 0
        return self._send(b"\0\4" + (self._got & 0xFFFF).to_bytes(2, "big"), self._server, now)

    def _send(self, data: bytes, to: object | None, now: Ns) -> list[Packet]:
        self._sent_at = now
        self.deadline = None if self.outcome is not None else now + self._patience()
        return [Packet(data, to)]

    def _patience(self) -> Ns:
        if self._wanted.waits:
            return self._wanted.waits[self._tries]
        start = max(4 * self._smooth, 4 * RTO_FLOOR) if self._smooth else RTO_START
        ceiling = min(RTO_CEILING, self._wanted.timeout * S) if self._wanted.timeout else RTO_CEILING
        return min(start << min(self._tries, 8), ceiling)

    def _progress(self, now: Ns) -> None:
        """The answer to what we sent last has come."""
        if self._tries == 0:
            sample = now - self._sent_at
            self._smooth = self._smooth + (sample - self._smooth) // 8 if self._smooth else max(1, sample)
        self._tries = 0
        self._progress_at = now

    def _fail(self, because: str, source: object, code: int = wire.ILLEGAL) -> list[Packet]:
        self.outcome, self.deadline = Broken(because), None
        return [Packet(wire.emit(wire.Error(code, because.encode("ascii", "replace"))), source)]


_UNKNOWN: Final = wire.emit(wire.Error(wire.UNKNOWN_TID, b"unknown transfer"))
