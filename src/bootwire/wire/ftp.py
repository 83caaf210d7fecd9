"""FTP's control connection: RFC 959, EPSV of RFC 2428, SIZE and REST of RFC 3659."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bootwire.wire.reader import WireError

PORT: Final = 21  # IANA
MAX_REPLY: Final = 16_384  # octets of one reply with all its lines: a long welcome
MAX_LINE: Final = 4096  # octets

# RFC 959 section 4.2.2, RFC 2428 section 3, RFC 3659 section 4
GREETING: Final = 220
FILE_STATUS: Final = 213
PASSIVE: Final = 227
EXTENDED_PASSIVE: Final = 229


@dataclass(frozen=True, slots=True)
class Reply:
    """code: 100..599; text: the lines without their codes, joined by newlines, as latin-1."""

    code: int
    text: str

    @property
    def kind(self) -> int:
        """1 begun, 2 done, 3 go on, 4 not now, 5 no (RFC 959 section 4.2)."""
        return self.code // 100


def parse_reply(data: bytes | bytearray) -> tuple[Reply, int] | None:
    """The first reply in `data` and its octets; None while it is not whole. Lines may end in LF alone.

    Raises WireError.
    """
    lines: list[str] = []
    at, code = 0, b""
    while True:
        end = data.find(b"\n", at)
        if end < 0:
            if len(data) - at > MAX_LINE or len(data) > MAX_REPLY:
                raise WireError("reply without an end", at)
            return None
        line, at = bytes(data[at:end]).rstrip(b"\r"), end + 1
        if at > MAX_REPLY:
            raise WireError("reply without an end", at)
        match = _LINE.fullmatch(line)
        if not code:
            if match is None:
                raise WireError("reply that does not begin with a code", 0)
            code = match[1]
        if match is not None and match[1] == code:
            lines.append(match[3].decode("latin-1"))
            if match[2] != b"-":
                return Reply(int(code), "\n".join(lines)), at
        else:
            lines.append(line.decode("latin-1"))


def emit_command(verb: str, argument: str = "") -> bytes:
    """One command line; an argument is sent as UTF-8 (RFC 2640). Raises ValueError: an argument of two lines."""
    if re.search(r"[\r\n\0]", argument):
        raise ValueError("an argument with a line end")
    text = f"{verb} {argument}" if argument else verb
    return text.encode("utf-8", "surrogateescape").replace(b"\xff", b"\xff\xff") + b"\r\n"  # RFC 959 4.1.3: Telnet IAC


def passive_port(text: str) -> int:
    """The port of a 227's text. The address is not looked at: the data come from whom we talk to (RFC 2577 section 3).

    Raises WireError.
    """
    match = re.search(r"(?<![0-9])(?:[0-9]{1,3},){4}([0-9]{1,3}),([0-9]{1,3})(?![0-9])", text)
    return _port(int(match[1]) * 256 + int(match[2]) if match and max(int(match[1]), int(match[2])) < 256 else 0)


def extended_passive_port(text: str) -> int:
    """The port of a 229's text (RFC 2428 section 3). Raises WireError."""
    match = re.search(r"\(([!-~])\1\1([0-9]{1,5})\1\)", text)
    return _port(int(match[2]) if match else 0)


def file_size(text: str) -> int | None:
    """The octets that a 213 to SIZE names (RFC 3659 section 4.2); None where it names none."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


# --- helpers ----------------------------------------------------------------------------------------------------

_LINE = re.compile(rb"([1-5][0-9]{2})([ -]|$)(.*)", re.DOTALL)


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise WireError("passive mode without a port", 0)
    return number
