"""Telnet's octets: RFC 854 (commands, newline), RFC 855 (options), RFC 1091 (terminal type), RFC 1073 (window size)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PORT: Final = 23  # IANA

# RFC 854, "Telnet command structure"
SE, NOP, DATA_MARK, BREAK, INTERRUPT, ABORT_OUTPUT, ARE_YOU_THERE = 240, 241, 242, 243, 244, 245, 246
ERASE_CHARACTER, ERASE_LINE, GO_AHEAD, SB, WILL, WONT, DO, DONT, IAC = 247, 248, 249, 250, 251, 252, 253, 254, 255

# Options (IANA, "Telnet Options")
BINARY, ECHO, SUPPRESS_GO_AHEAD, TERMINAL_TYPE, WINDOW_SIZE = 0, 1, 3, 24, 31

IS, SEND = 0, 1  # of TERMINAL_TYPE (RFC 1091 section 2)

MAX_PARAMETERS: Final = 1024  # octets of a subnegotiation that are kept; none we know has more than 40


@dataclass(frozen=True, slots=True)
class Text:
    """Octets for the screen."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Command:
    """A command of two octets, as ARE_YOU_THERE; code: 236..249."""

    code: int


@dataclass(frozen=True, slots=True)
class Option:
    """verb: WILL, WONT, DO or DONT; option: 0..255."""

    verb: int
    option: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """A subnegotiation (RFC 855). data: not doubled any more."""

    option: int
    data: bytes


Token = Text | Command | Option | Parameters


class Parser:
    """Tokens out of a stream that comes in pieces of any size. Every octet means something: nothing is an error.

    A subnegotiation longer than MAX_PARAMETERS is left out.
    """

    def __init__(self) -> None:
        self._rest = b""  # a command that is not whole
        self._carriage = False  # the last octet of text was CR
        self._parameters: bytearray | None = None  # of the subnegotiation under way
        self._too_long = False

    def receive(self, data: bytes) -> list[Token]:
        data, self._rest = self._rest + data, b""
        tokens: list[Token] = []
        at = 0
        while at < len(data):
            mark = data.find(IAC, at)
            plain = data[at:] if mark < 0 else data[at:mark]
            self._plain(plain, tokens)
            if mark < 0:
                break
            at = mark + 1
            if at == len(data):
                self._rest = data[mark:]
                break
            code, at = data[at], at + 1
            if code == IAC:
                self._plain(b"\xff", tokens)
            elif WILL <= code <= DONT and self._parameters is None:
                if at == len(data):
                    self._rest = data[mark:]
                    break
                tokens.append(Option(code, data[at]))
                at += 1
            elif code == SB:
                self._parameters, self._too_long = bytearray(), False
            elif code == SE:
                self._end(tokens)
            elif self._parameters is None:
                tokens.append(Command(code))
            # else: what is no command inside a subnegotiation is passed over
        return tokens

    def _plain(self, data: bytes, tokens: list[Token]) -> None:
        if not data:
            return
        if self._parameters is not None:
            room = MAX_PARAMETERS + 1 - len(self._parameters)
            self._parameters += data[:room]
            self._too_long = self._too_long or len(data) > room
            return
        if self._carriage and data[:1] == b"\0":  # CR NUL is CR alone (RFC 854, "The NVT printer")
            data = data[1:]
        self._carriage = data[-1:] == b"\r"
        data = data.replace(b"\r\0", b"\r")
        if data:
            tokens.append(Text(data))

    def _end(self, tokens: list[Token]) -> None:
        found, self._parameters = self._parameters, None
        if found and not self._too_long:
            tokens.append(Parameters(found[0], bytes(found[1:])))


def emit(token: Token) -> bytes:
    """The octets of a token. Of Text: as typed, with "\\n" for the end of a line and "\\r" for the key."""
    match token:
        case Text(data):
            data = data.replace(b"\xff", b"\xff\xff").replace(b"\r\n", b"\n")
            return data.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
        case Command(code):
            return bytes((IAC, code))
        case Option(verb, option):
            return bytes((IAC, verb, option))
        case Parameters(option, data):
            inside = (bytes((option,)) + data).replace(b"\xff", b"\xff\xff")
            return bytes((IAC, SB)) + inside + bytes((IAC, SE))
