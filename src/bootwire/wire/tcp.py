"""TCP segments (RFC 9293 section 3.1) with the options of RFC 2018 (SACK) and RFC 7323 (scale, timestamps).

Sequence numbers are 32-bit as on the wire; `engine.tcp` unwraps them. What the link may have done in the sender's
stead (segmentation, checksum) is not visible here: a parsed payload may be longer than any MTU.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.wire import checksum
from bootwire.wire.reader import WireError

PROTOCOL = 6  # IANA protocol numbers
HEADER = 20  # octets without options
CHECKSUM_AT = 16  # octet offset of the checksum field
OPTIONS_MAX = 40  # octets: the data offset counts 15 words at most

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

# IANA TCP option kinds
END, NOP, MSS, SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8

_FIXED = struct.Struct("!HHIIBBHHH")
_TIMESTAMPS_ONLY = b"\x01\x01\x08\x0a"  # the layout RFC 7323 appendix A recommends, and nearly everyone sends
_PAIR = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Options:
    """What a segment carries besides its fixed header. Of an option given twice the first counts.

    mss             0..65535, on SYN only (RFC 9293 section 3.7.1); None if absent
    scale           0..255 as sent, to be read as at most 14 (RFC 7323 section 2.3), on SYN only
    sack_permitted  RFC 2018 section 2, on SYN only
    sack            (left edge, right edge) of up to 4 blocks, newest first (RFC 2018 section 3)
    timestamps      (TSval, TSecr), RFC 7323 section 3.2
    unknown         (kind, value) of everything else, and of known kinds of a wrong length, in order
    """

    mss: int | None = None
    scale: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None
    unknown: tuple[tuple[int, bytes], ...] = ()


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment.

    source, destination  ports, 0..65535
    seq, ack             0..2**32-1
    flags                FIN | SYN | … , 0..255; the accurate-ECN bit and the reserved ones are dropped
    window               as sent, not scaled, 0..65535
    urgent               0..65535
    """

    source: int
    destination: int
    seq: int
    ack: int
    flags: int
    window: int
    payload: bytes = b""
    options: Options = NO_OPTIONS
    urgent: int = 0

    @property
    def length(self) -> int:
        """Sequence numbers used: payload octets, plus one for SYN and one for FIN."""
        return len(self.payload) + (self.flags >> 1 & 1) + (self.flags & 1)


def parse(data: bytes, at: int = 0, end: int | None = None) -> Segment:
    """The segment in data[at:end]. The checksum is the caller's to verify: `checksum.holds` over the same octets."""
    stop = len(data) if end is None else end
    if stop - at < HEADER:
        raise WireError("truncated TCP header", at)
    source, destination, seq, ack, offset, flags, window, _, urgent = _FIXED.unpack_from(data, at)
    size = (offset >> 4) * 4
    if size < HEADER or at + size > stop:
        raise WireError(f"TCP data offset of {size} octets", at + 12)
    if size == HEADER:
        options = NO_OPTIONS
    elif size == HEADER + 12 and data[at + 20 : at + 24] == _TIMESTAMPS_ONLY:
        value, echo = _PAIR.unpack_from(data, at + 24)
        options = Options(timestamps=(value, echo))
    else:
        options = _parse_options(data, at + HEADER, at + size)
    return Segment(source, destination, seq, ack, flags, window, bytes(data[at + size : stop]), options, urgent)


def emit(segment: Segment, pseudo: int) -> bytes:
    """The octets, checksum complete; pseudo: `checksum.pseudo` of the addresses and this segment's whole length."""
    octets = _header(segment, 0) + segment.payload
    return octets[:CHECKSUM_AT] + checksum.compute(octets, pseudo).to_bytes(2, "big") + octets[CHECKSUM_AT + 2 :]


def emit_partial(segment: Segment, pseudo: int) -> bytes:
    """The octets with only the pseudo-header's sum in the checksum field, for a link that does the rest."""
    return _header(segment, pseudo) + segment.payload


def size_of(options: Options) -> int:
    """Octets that `options` take in the header, a multiple of 4."""
    return len(_emit_options(options))


def _header(segment: Segment, field: int) -> bytes:
    options = b"" if segment.options is NO_OPTIONS else _emit_options(segment.options)
    return (
        _FIXED.pack(
            segment.source, segment.destination, segment.seq, segment.ack,
            (HEADER + len(options)) << 2, segment.flags, segment.window, field, segment.urgent,
        )
        + options
    )  # fmt: skip


def _emit_options(options: Options) -> bytes:
    out = b""
    if options.mss is not None:
        out += struct.pack("!BBH", MSS, 4, options.mss)
    if options.scale is not None:
        out += struct.pack("!BBBB", NOP, SCALE, 3, options.scale)
    if options.timestamps is not None:
        # SACK-permitted takes the place of the two NOPs in a SYN, as everybody packs it
        lead = bytes((SACK_PERMITTED, 2)) if options.sack_permitted else b"\x01\x01"
        out += lead + b"\x08\x0a" + _PAIR.pack(*options.timestamps)
    elif options.sack_permitted:
        out += bytes((NOP, NOP, SACK_PERMITTED, 2))
    if options.sack:
        out += bytes((NOP, NOP, SACK, 2 + 8 * len(options.sack)))
        out += b"".join(_PAIR.pack(left, right) for left, right in options.sack)
    for kind, value in options.unknown:
        out += bytes((kind, 2 + len(value))) + value
    out += bytes(-len(out) % 4)
    if len(out) > OPTIONS_MAX:
        raise ValueError(f"TCP options of {len(out)} octets, {OPTIONS_MAX} fit")
    return out


def _parse_options(data: bytes, at: int, end: int) -> Options:
    mss: int | None = None
    scale: int | None = None
    permitted = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None
    unknown: list[tuple[int, bytes]] = []
    while at < end:
        kind = data[at]
        if kind == END:
            break
        if kind == NOP:
            at += 1
            continue
        if at + 1 >= end:
            raise WireError(f"TCP option {kind} without a length", at)
        size = data[at + 1]
        if size < 2 or at + size > end:
            raise WireError(f"TCP option {kind} of length {size}", at + 1)
        value = bytes(data[at + 2 : at + size])
        if kind == MSS and size == 4 and mss is None:
            mss = int.from_bytes(value, "big")
        elif kind == SCALE and size == 3 and scale is None:
            scale = value[0]
        elif kind == SACK_PERMITTED and size == 2:
            permitted = True
        elif kind == SACK and size > 2 and size % 8 == 2 and not sack:
            sack = tuple(_PAIR.iter_unpack(value))
        elif kind == TIMESTAMPS and size == 10 and timestamps is None:
            timestamps = (int.from_bytes(value[:4], "big"), int.from_bytes(value[4:], "big"))
        elif kind not in _SINGLE.get(size, ()):
            unknown.append((kind, value))
        at += size
    return Options(mss, scale, permitted, sack, timestamps, tuple(unknown))


_SINGLE = {4: (MSS,), 3: (SCALE,), 10: (TIMESTAMPS, SACK), 18: (SACK,), 26: (SACK,), 34: (SACK,)}
"""Length -> kinds that have been read as what they are: a second one of these is dropped, not unknown."""
