"""Telnet, the terminal's side: options by the Q method (RFC 1143), which no server can lead round in circles."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from bootwire.wire import telnet
from bootwire.wire.telnet import DO, DONT, WILL, WONT, Command, Option, Parameters, Parser, Text

OURS: Final = frozenset((telnet.TERMINAL_TYPE, telnet.WINDOW_SIZE, telnet.SUPPRESS_GO_AHEAD, telnet.BINARY))
"""Options that we do when asked to."""

THEIRS: Final = frozenset((telnet.ECHO, telnet.SUPPRESS_GO_AHEAD, telnet.BINARY))
"""Options that the server may do."""


class _State(enum.Enum):
    """RFC 1143 section 7; the opposite queued is WANT_NO_THEN and WANT_YES_THEN."""

    NO = 0
    YES = 1
    WANT_NO = 2
    WANT_NO_THEN = 3
    WANT_YES = 4
    WANT_YES_THEN = 5


@dataclass(frozen=True, slots=True)
class Heard:
    """show: octets for the screen; answer: octets for the server."""

    show: bytes
    answer: bytes


class Terminal:
    """One end of a connection: keys go in with `type`, what the server sends with `receive`.

    kind     terminal type, as terminfo names it (RFC 1091 wants capitals; servers fold the case)
    columns rows  1..65535, 0 for unknown
    """

    def __init__(self, kind: str = "vt100", columns: int = 80, rows: int = 24) -> None:
        self._kind, self._size = kind, (columns, rows)
        self._parser = Parser()
        self._ours: dict[int, _State] = {}
        self._theirs: dict[int, _State] = {}

    @property
    def server_echoes(self) -> bool:
        """Whether what is typed comes back: then each key is sent at once and not shown here."""
        return self._theirs.get(telnet.ECHO) is _State.YES

    def start(self) -> bytes:
        """What to send first: the options that a full-screen program wants."""
        return b"".join((
            self.ask(True, telnet.TERMINAL_TYPE, True),
            self.ask(True, telnet.WINDOW_SIZE, True),
            self.ask(False, telnet.SUPPRESS_GO_AHEAD, True),
        ))  # fmt: skip

    def receive(self, data: bytes) -> Heard:
        show, answer = bytearray(), bytearray()
        for token in self._parser.receive(data):
            match token:
                case Text(text):
                    show += text
                case Option(verb, option):
                    answer += self._option(verb, option)
                case Parameters(telnet.TERMINAL_TYPE, told) if told[:1] == bytes((telnet.SEND,)):
                    if self._is_on(telnet.TERMINAL_TYPE):
                        kind = bytes((telnet.IS,)) + self._kind.encode("ascii", "replace")[:40]
                        answer += telnet.emit(Parameters(telnet.TERMINAL_TYPE, kind))
                case Command(telnet.ARE_YOU_THERE):
                    answer += telnet.emit(Command(telnet.NOP))
                case _:
                    pass
        return Heard(bytes(show), bytes(answer))

    def type(self, keys: bytes) -> bytes:
        """Octets to send for keys; "\\n" ends a line.

        As CR LF; but in binary there are no lines (RFC 856), and what a terminal's own key sends is CR.
        """
        if self._is_on(telnet.BINARY):
            return keys.replace(b"\r\n", b"\n").replace(b"\n", b"\r").replace(b"\xff", b"\xff\xff")
        return telnet.emit(Text(keys))

    def interrupt(self) -> bytes:
        """Octets to send for the key that interrupts (RFC 854, IP)."""
        return telnet.emit(Command(telnet.INTERRUPT))

    def resize(self, columns: int, rows: int) -> bytes:
        """Octets to send when the window has another size."""
        self._size = (columns, rows)
        return self._window() if self._is_on(telnet.WINDOW_SIZE) else b""

    def ask(self, ours: bool, option: int, on: bool) -> bytes:
        """Octets to send to turn an option on or off, of ours or of the server's (RFC 1143 section 7)."""
        table = self._ours if ours else self._theirs
        state = table.get(option, _State.NO)
        S = _State
        if on:
            table[option] = {S.NO: S.WANT_YES, S.WANT_NO: S.WANT_NO_THEN, S.WANT_YES_THEN: S.WANT_YES}.get(state, state)
            return self._say(WILL if ours else DO, option) if state is S.NO else b""
        table[option] = {S.YES: S.WANT_NO, S.WANT_NO_THEN: S.WANT_NO, S.WANT_YES: S.WANT_YES_THEN}.get(state, state)
        return self._say(WONT if ours else DONT, option) if state is S.YES else b""

    # --- parts --------------------------------------------------------------------------------------------------

    def _option(self, verb: int, option: int) -> bytes:
        """RFC 1143 section 7: an answer only where the state changes, so there is no end to nothing."""
        ours = verb in (DO, DONT)
        table, yes, no = (self._ours, WILL, WONT) if ours else (self._theirs, DO, DONT)
        state = table.get(option, _State.NO)
        S = _State
        if verb in (DO, WILL):
            if state is S.NO:
                if option not in (OURS if ours else THEIRS):
                    return self._say(no, option)
                table[option] = S.YES
                return self._say(yes, option) + self._turned_on(ours, option)
            if state is S.WANT_YES_THEN:
                table[option] = S.WANT_NO
                return self._say(no, option)
            table[option] = {S.WANT_NO: S.NO, S.WANT_NO_THEN: S.YES, S.WANT_YES: S.YES}.get(state, state)
            return self._turned_on(ours, option) if state is not S.YES and table[option] is S.YES else b""
        if state is S.WANT_NO_THEN:
            table[option] = S.WANT_YES
            return self._say(yes, option)
        table[option] = S.NO
        return self._say(no, option) if state is S.YES else b""

    def _turned_on(self, ours: bool, option: int) -> bytes:
        return self._window() if ours and option == telnet.WINDOW_SIZE else b""

    def _window(self) -> bytes:
        columns, rows = (max(0, min(n, 65535)) for n in self._size)
        return telnet.emit(Parameters(telnet.WINDOW_SIZE, columns.to_bytes(2, "big") + rows.to_bytes(2, "big")))

    def _is_on(self, option: int) -> bool:
        return self._ours.get(option) is _State.YES

    def _say(self, verb: int, option: int) -> bytes:
        return telnet.emit(Option(verb, option))
