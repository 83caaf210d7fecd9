"""TFTP messages: RFC 1350 section 5, options as in RFC 2347, 2348, 2349 and 7440."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final, assert_never

from bootwire.wire.reader import Reader, WireError

Options = tuple[tuple[bytes, bytes], ...]
"""Names (lower case, RFC 2347: case is free) and values in the order sent, repeats and unknown ones included.

Names and values are octets without a NUL, not decoded.
"""

# Error codes: RFC 1350 appendix; 8 is RFC 2347 section "Error code".
UNDEFINED: Final = 0
NOT_FOUND: Final = 1
ACCESS: Final = 2
DISK_FULL: Final = 3
ILLEGAL: Final = 4
UNKNOWN_TID: Final = 5
REFUSED_OPTIONS: Final = 8

BLOCK_SIZE: Final = 512  # octets of a DATA payload unless RFC 2348 agreed otherwise (RFC 1350 section 2)
MIN_BLOCK_SIZE: Final = 8  # octets, RFC 2348
MAX_BLOCK_SIZE: Final = 65464  # octets, RFC 2348
MAX_REQUEST: Final = 512  # octets of a whole request, RFC 2347 "Packet formats"
HEADER: Final = 4  # octets before a DATA payload: opcode, block number


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """The client asks for a file.

    filename  the peer's octets without a NUL: not decoded, not a path
    mode      b"octet", b"netascii", b"mail" or anything else, lower-cased (RFC 1350 section 5: case is free)
    """

    filename: bytes
    mode: bytes
    options: Options = ()


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """The client wants to store a file. Fields as in ReadRequest."""

    filename: bytes
    mode: bytes
    options: Options = ()


@dataclass(frozen=True, slots=True)
class Data:
    """One block. `block` is 0..65535 as on the wire; that it wraps is the engine's business."""

    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """block: 0..65535; 0 accepts an OptionAck."""

    block: int


@dataclass(frozen=True, slots=True)
class Error:
    """code: 0..65535, unknown ones kept; text: the peer's octets without a NUL."""

    code: int
    text: bytes


@dataclass(frozen=True, slots=True)
class OptionAck:
    """What the server took of the options asked for (RFC 2347)."""

    options: Options


Message = ReadRequest | WriteRequest | Data | Ack | Error | OptionAck


def parse(data: bytes) -> Message:
    """Read one UDP payload, of any length and hostile.

    Raises WireError. As firmware sends them, these are taken: octets after a complete ACK or ERROR, an ERROR text
    without its NUL, and a last option that is cut or padding (NULs up to a fixed length): it is dropped.
    """
    r = Reader(data)
    match r.u16("opcode"):
        case 1:
            return ReadRequest(r.text("filename"), r.text("mode").lower(), _options(r))
        case 2:
            return WriteRequest(r.text("filename"), r.text("mode").lower(), _options(r))
        case 3:
            return Data(r.u16("block"), r.rest())
        case 4:
            return Ack(r.u16("block"))
        case 5:
            return Error(r.u16("error code"), r.rest().split(b"\0", 1)[0])
        case 6:
            return OptionAck(_options(r))
        case opcode:
            raise WireError(f"unknown opcode {opcode}", 0)


def emit(message: Message) -> bytes:
    """Write one UDP payload; `parse(emit(m)) == m` for every value that keeps to the ranges above."""
    match message:
        case ReadRequest(filename, mode, options):
            return b"\0\1" + filename + b"\0" + mode + b"\0" + _emit_options(options)
        case WriteRequest(filename, mode, options):
            return b"\0\2" + filename + b"\0" + mode + b"\0" + _emit_options(options)
        case Data(block, payload):
            return b"\0\3" + block.to_bytes(2, "big") + payload
        case Ack(block):
            return b"\0\4" + block.to_bytes(2, "big")
        case Error(code, text):
            return b"\0\5" + code.to_bytes(2, "big") + text + b"\0"
        case OptionAck(options):
            return b"\0\6" + _emit_options(options)
        case never:
            assert_never(never)


def number(value: bytes) -> int | None:
    """The value of a numeric option: one to ten ASCII digits and nothing else, or None.

    int() alone would take signs, blanks, underscores and other scripts' digits.
    """
    return int(value) if 1 <= len(value) <= 10 and value.isdigit() else None


def find(options: Options, name: bytes) -> bytes | None:
    """The value of `name` (lower case); of a repeated option the first counts."""
    for found, value in options:
        if found == name:
            return value
    return None


def _options(r: Reader) -> Options:
    found: list[tuple[bytes, bytes]] = []
    with contextlib.suppress(WireError):
        while r.left():
            found.append((r.text("option name").lower(), r.text("option value")))
    return tuple(found)


def _emit_options(options: Options) -> bytes:
    return b"".join(name + b"\0" + value + b"\0" for name, value in options)
