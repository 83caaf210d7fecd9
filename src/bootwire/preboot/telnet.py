"""A telnet session over any transport: scripted (wait for this, type that), or with a person at the terminal."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import time
import tty
from typing import Final, Self

from bootwire.engine.telnet import Terminal
from bootwire.preboot.transport import Transport, connect

ESCAPE: Final = 0x1D  # Ctrl-], which ends the session, as in every telnet
_KEPT: Final = 1 << 20  # octets of output that nobody has looked for anything in
_GLANCE: Final = 0.03  # seconds between looks at the keyboard; nobody feels it


class Session:
    """Connected from the beginning to `close`. Raises OSError as the transport does, TimeoutError included.

    over: the server has closed.
    """

    def __init__(self, transport: Transport, host: str, port: int = 23, *, timeout: float = 30.0, kind: str = "vt100",
                 columns: int = 80, rows: int = 24) -> None:  # fmt: skip
        self._terminal = Terminal(kind, columns, rows)
        self._stream = connect(transport, host, port, timeout)
        self._timeout = timeout
        self._shown = bytearray()
        self.over = False
        self._send(self._terminal.start())

    def type(self, text: str) -> None:
        """Send keys; "\\n" is the end of a line."""
        self._send(self._terminal.type(text.encode()))

    def expect(self, pattern: str, timeout: float = 30.0) -> str:
        """What was shown up to the first match of a regular expression, which is taken off; the rest is kept.

        TimeoutError or EOFError, with the end of what came instead, if it does not come.
        """
        wanted = re.compile(pattern.encode())
        end = time.monotonic() + timeout
        while (match := wanted.search(self._shown)) is None:
            if self.over:
                raise EOFError(f"the server hung up after {_tail(self._shown)}")
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"instead of {pattern!r} came {_tail(self._shown)}")
            self._shown += self.receive(left)
            del self._shown[: max(0, len(self._shown) - _KEPT)]
        found = bytes(self._shown[: match.end()])
        del self._shown[: match.end()]
        return found.decode("utf-8", "replace")

    def receive(self, timeout: float) -> bytes:
        """What comes next for the screen; b"" if nothing came in time, or `over`."""
        self._stream.settimeout(max(timeout, 0.001))
        try:
            data = self._stream.recv(65536)
        except (TimeoutError, BlockingIOError):
            return b""
        if not data:
            self.over = True
            return b""
        heard = self._terminal.receive(data)
        self._send(heard.answer)
        return heard.show

    def interact(self, keyboard: int = 0, screen: int = 1) -> None:
        """Connect a terminal (two descriptors) until the server hangs up, the keyboard ends, or Ctrl-] is typed."""
        keys_from, size = _Keyboard(keyboard), None
        try:
            while not self.over:
                keys_from.arrange(self._terminal.server_echoes)
                if (now := window_size(screen)) is not None and now != size:
                    size = now
                    self._send(self._terminal.resize(*size))
                shown = self.receive(_GLANCE)
                while shown:
                    shown = shown[os.write(screen, shown) :]
                if select.select([keyboard], [], [], 0)[0]:
                    keys = os.read(keyboard, 4096)
                    if not keys or ESCAPE in keys:
                        return
                    self._send(self._terminal.type(keys))
        finally:
            keys_from.arrange(False)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, data: bytes) -> None:
        if data:
            self._stream.settimeout(self._timeout)
            self._stream.sendall(data)


def window_size(terminal: int) -> tuple[int, int] | None:
    """Columns and rows of a terminal; None if it is none, or they are not known."""
    try:
        rows, columns = struct.unpack("HH4x", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return (columns, rows) if columns and rows else None


class _Keyboard:
    """A terminal whose keys come at once and unseen while the server echoes them; put back at the end."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard
        self._raw = False
        self._before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None

    def arrange(self, raw: bool) -> None:
        if self._before is None or raw is self._raw:
            return
        self._raw = raw
        if raw:
            tty.setraw(self._keyboard)
        else:
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)


def _tail(shown: bytearray) -> str:
    return repr(bytes(shown[-200:]).decode("utf-8", "replace"))
