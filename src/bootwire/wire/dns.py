"""DNS messages: RFC 1035 section 4, with RFC 3596 (AAAA) and the OPT record of RFC 6891.

Names are tuples of labels, as sent: two of them are the same if `fold` makes them equal (RFC 4343). The names inside
the data of records that may be compressed there (RFC 3597 section 4) are written out when read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bootwire.wire.reader import Reader, WireError

# Record types (IANA, DNS Parameters)
A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
MX: Final = 15
TXT: Final = 16
AAAA: Final = 28
OPT: Final = 41

IN: Final = 1  # the Internet's class

# Bits of `flags` (RFC 1035 section 4.1.1)
RESPONSE: Final = 0x8000
TRUNCATED: Final = 0x0200
RECURSION_DESIRED: Final = 0x0100

NO_ERROR, SERVER_FAILURE, NO_NAME, REFUSED = 0, 2, 3, 5  # response codes

MAX_NAME: Final = 255  # octets of a name on the wire (RFC 1035 section 2.3.4)
MAX_LABEL: Final = 63
MAX_POINTERS: Final = 127  # of one name: it has no more labels that could each end in one
MAX_SEARCHED: Final = 64  # names of one search list; resolvers keep 6 (resolv.conf(5) before glibc 2.26)
MAX_RECORDS: Final = 2048  # of one message: ten thousand addresses are nobody's answer
PORT: Final = 53  # RFC 1035 section 4.2

Name = tuple[bytes, ...]
"""Labels, without the root's empty one: (b"www", b"example"); () is the root."""


@dataclass(frozen=True, slots=True)
class Question:
    """kind: a record type; klass: 0..65535"""

    name: Name
    kind: int
    klass: int = IN


@dataclass(frozen=True, slots=True)
class Record:
    """klass: 0..65535 (of OPT: the UDP size); ttl: seconds, 0..2**32-1; data: at most 65535 octets."""

    name: Name
    kind: int
    klass: int
    ttl: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """id, flags: 0..65535; the low four bits of flags are the response code."""

    id: int
    flags: int
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()

    @property
    def code(self) -> int:
        return self.flags & 15


def parse(data: bytes) -> Message:
    """Read one message; octets after it are ignored. Raises WireError.

    Total work is bounded by the number of records: a compression pointer must point before the name it is in, and no
    name is longer than MAX_NAME.
    """
    r = Reader(data)
    number, flags = r.u16("id"), r.u16("flags")
    counts = [r.u16("count") for _ in range(4)]
    if sum(counts) > MAX_RECORDS:
        raise WireError(f"{sum(counts)} records", 4)
    questions = tuple(Question(_name(r), r.u16("question type"), r.u16("question class")) for _ in range(counts[0]))
    answers, authorities, additionals = (tuple(_record(r) for _ in range(count)) for count in counts[1:])
    return Message(number, flags, questions, answers, authorities, additionals)


def emit(message: Message) -> bytes:
    """Write one message, names in full. `parse(emit(m)) == m`. Raises WireError for a name that cannot be sent."""
    sections = (message.questions, message.answers, message.authorities, message.additionals)
    parts = [message.id.to_bytes(2, "big"), message.flags.to_bytes(2, "big")]
    parts += [len(section).to_bytes(2, "big") for section in sections]
    for question in message.questions:
        parts += [emit_name(question.name), question.kind.to_bytes(2, "big"), question.klass.to_bytes(2, "big")]
    for section in sections[1:]:
        for record in section:
            assert isinstance(record, Record)
            parts += [emit_name(record.name), record.kind.to_bytes(2, "big"), record.klass.to_bytes(2, "big")]
            parts += [record.ttl.to_bytes(4, "big"), len(record.data).to_bytes(2, "big"), record.data]
    return b"".join(parts)


def emit_name(name: Name) -> bytes:
    """A name in full. Raises WireError for a label or name that is empty or too long."""
    if any(not 0 < len(label) <= MAX_LABEL for label in name):
        raise WireError("label of 0 or more than 63 octets", 0)
    data = b"".join(bytes((len(label),)) + label for label in name) + b"\0"
    if len(data) > MAX_NAME:
        raise WireError(f"name of more than {MAX_NAME} octets", 0)
    return data


def parse_name(data: bytes) -> Name:
    """The name that a record's data is (CNAME, NS, PTR). Raises WireError."""
    r = Reader(data)
    name = _name(r)
    if r.left():
        raise WireError("octets after the name", r.at)
    return name


def parse_names(data: bytes) -> tuple[Name, ...]:
    """The names of a search list (RFC 3397: compressed within the option). Raises WireError; at most 64."""
    r = Reader(data)
    names: list[Name] = []
    while r.left():
        if len(names) == MAX_SEARCHED:
            raise WireError(f"more than {MAX_SEARCHED} names", r.at)
        names.append(_name(r))
    return tuple(names)


def name_of(text: str) -> Name:
    """Labels of "www.example" or "www.example."; "." is the root. Raises WireError for what is no host name."""
    if not text.isascii() or any(c <= " " or c == "\x7f" for c in text):
        raise WireError("name that is not printable ASCII", 0)
    name = tuple(label.encode() for label in text.removesuffix(".").split(".")) if text not in ("", ".") else ()
    emit_name(name)
    return name


def text_of(name: Name) -> str:
    """ "www.example", with octets that are no letter, digit, "-" or "_" as \\DDD (RFC 1035 section 5.1)."""
    return ".".join("".join(chr(c) if c in _PLAIN else f"\\{c:03}" for c in label) for label in name) or "."


def fold(name: Name) -> Name:
    """ASCII letters in lower case, nothing else (RFC 4343 section 3)."""
    return tuple(label.lower() for label in name)


def frame(data: bytes) -> bytes:
    """A message for TCP: two octets of length go before it (RFC 1035 section 4.2.2)."""
    return len(data).to_bytes(2, "big") + data


def unframe(buffer: bytes) -> tuple[bytes, bytes] | None:
    """(the first whole message out of a TCP stream, what follows it); None while it is not whole."""
    if len(buffer) < 2:
        return None
    end = 2 + int.from_bytes(buffer[:2], "big")
    return (buffer[2:end], buffer[end:]) if len(buffer) >= end else None


# --- helpers ----------------------------------------------------------------------------------------------------

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_COMPRESSED: Final = {NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), MX: (2, 1), SOA: (0, 2)}
"""Types of RFC 1035 whose data has names: octets before them, and how many names follow."""


def _record(r: Reader) -> Record:
    name = _name(r)
    kind, klass, ttl, size = r.u16("type"), r.u16("class"), r.u32("ttl"), r.u16("data length")
    start = r.at
    data = r.take(size, "record data")
    if kind in _COMPRESSED:
        before, names = _COMPRESSED[kind]
        inner = Reader(r.data, start)
        head = inner.take(before, "record data")
        head += b"".join(emit_name(_name(inner)) for _ in range(names))
        if inner.at > r.at:
            raise WireError("name beyond its record", start)
        data = head + r.data[inner.at : r.at]
    return Record(name, kind, klass, ttl, data)


def _name(r: Reader) -> Name:
    """Follows pointers strictly backwards, each to before where the part that holds it began."""
    labels: list[bytes] = []
    size, pointers, limit, here = 1, 0, r.at, r
    while True:
        at = here.at
        length = here.u8("label length")
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | here.u8("compression pointer")
            pointers += 1
            if target >= limit or pointers > MAX_POINTERS:
                raise WireError("compression pointer that does not point back", at)
            limit, here = target, Reader(r.data, target)
        elif length > MAX_LABEL:
            raise WireError(f"label type {length >> 6}", at)
        elif length == 0:
            return tuple(labels)
        else:
            size += length + 1
            if size > MAX_NAME:
                raise WireError(f"name of more than {MAX_NAME} octets", at)
            labels.append(here.take(length, "label"))


def addresses(records: Iterable[Record], name: Name, kind: int) -> list[bytes]:
    """The addresses (4 or 16 octets) that `name` has among `records`."""
    size = 4 if kind == A else 16
    wanted = fold(name)
    return [
        record.data
        for record in records
        if record.kind == kind and record.klass == IN and len(record.data) == size and fold(record.name) == wanted
    ]
