"""FTP, the client's side: fetch one file in passive mode, in octets as they are (RFC 959, 2428, 3659).

The caller has two connections: the control connection, whose octets go through `receive`, and one for the data, whose
octets go past the engine and are only counted in `data`. Data come from the host of the control connection alone,
whatever a PASV answer says (RFC 2577 section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from bootwire.engine import Ns, S
from bootwire.wire import ftp
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

ANONYMOUS: Final = "anonymous"
ANONYMOUS_PASSWORD: Final = "bootwire@"  # RFC 1635 section 3: by convention an address


@dataclass(frozen=True, slots=True)
class Wanted:
    """path: as the server names it, relative to where a login starts; start: octets left out at the beginning;
    limit: octets of the whole file; idle: nanoseconds in which something must come."""

    path: str
    username: str = ANONYMOUS
    password: str = ANONYMOUS_PASSWORD
    start: int = 0
    limit: int = 1 << 40
    idle: Ns = 30 * S


@dataclass(frozen=True, slots=True)
class Write:
    """Octets for the control connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class OpenData:
    """Connect to this port of the same host, then call `data_opened`."""

    port: int


@dataclass(frozen=True, slots=True)
class Began:
    """Data follow. size: octets of the whole file where the server tells."""

    size: int | None


@dataclass(frozen=True, slots=True)
class Finished:
    """All there is. octets: that came."""

    octets: int


@dataclass(frozen=True, slots=True)
class Failed:
    """why: "missing", "denied", "server", "malformed", "timeout", "truncated", "too big", "url", "range"."""

    why: str
    detail: str


Effect = Write | OpenData | Began | Finished | Failed

_Verb = Literal["USER", "PASS", "TYPE", "SIZE", "EPSV", "PASV", "REST", "RETR"]
_Step = _Verb | Literal["greeting", "data", "transfer", "over"]


class Download:
    """Fetches one file. `start` when the control connection stands; perform the effects in order until Finished or
    Failed, then close both connections."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._step: _Step = "greeting"
        self._buffer = bytearray()
        self._size: int | None = None
        self._octets = 0
        self._data_over = self._said_done = False
        self.deadline: Ns | None = None

    def start(self, now: Ns) -> list[Effect]:
        self.deadline = now + self._wanted.idle
        return []

    def receive(self, data: bytes, now: Ns) -> list[Effect]:
        """Octets of the control connection."""
        self._buffer += data
        effects: list[Effect] = []
        while self._step != "over":
            try:
                found = ftp.parse_reply(self._buffer)
                if found is None:
                    break
                reply, used = found
                del self._buffer[:used]
                self.deadline = now + self._wanted.idle
                effects += self._replied(reply)
            except WireError as error:
                effects += self._fail("malformed", str(error))
            except ValueError as error:
                effects += self._fail("url", str(error))
        return effects

    def closed(self) -> list[Effect]:
        """The control connection is closed."""
        if self._step == "over":
            return []
        return self._fail("truncated", "the server closed the control connection")

    def data_opened(self, now: Ns) -> list[Effect]:
        self.deadline = now + self._wanted.idle
        if self._wanted.start:
            return self._say("REST", str(self._wanted.start))
        return self._retrieve()

    def data_refused(self, because: str) -> list[Effect]:
        return self._fail("server", f"no data connection: {because}")

    def data(self, octets: int, now: Ns) -> list[Effect]:
        """So many more octets of the file have come."""
        self.deadline = now + self._wanted.idle
        self._octets += octets
        if self._wanted.start + self._octets > self._wanted.limit:
            return self._fail("too big", "file over the limit")
        return []

    def data_closed(self, now: Ns) -> list[Effect]:
        """The end of the data connection, in order."""
        self.deadline = now + self._wanted.idle
        self._data_over = True
        return self._ended()

    def tick(self, now: Ns) -> list[Effect]:
        if self.deadline is None or now < self.deadline:
            return []
        return self._fail("timeout", f"nothing came for {self._wanted.idle // S} s")

    # --- parts --------------------------------------------------------------------------------------------------

    def _replied(self, reply: ftp.Reply) -> list[Effect]:
        step, kind = self._step, reply.kind
        if kind == 1 and step != "RETR":  # "wait": 120, or a mark; the real answer follows
            return []
        match step:
            case "greeting" if kind == 2:
                return self._say("USER", self._wanted.username)
            case "USER" if kind == 3:
                return self._say("PASS", self._wanted.password)
            case "USER" | "PASS" if kind == 2:
                return self._say("TYPE", "I")
            case "USER" | "PASS":
                return self._fail("denied", f"login refused: {_said(reply)}")
            case "TYPE" if kind == 2:
                return self._say("SIZE", self._wanted.path)
            case "SIZE":
                return self._sized(reply)
            case "EPSV" if reply.code == ftp.EXTENDED_PASSIVE:
                return self._open(ftp.extended_passive_port(reply.text))
            case "EPSV" if kind == 5:
                return self._say("PASV")
            case "PASV" if reply.code == ftp.PASSIVE:
                return self._open(ftp.passive_port(reply.text))
            case "REST" if kind == 3:
                return self._retrieve()
            case "REST":
                return self._fail("range", f"the server cannot begin in the middle: {_said(reply)}")
            case "RETR" if kind == 1:
                self._step = "transfer"
                return [Began(self._size), *self._ended()]
            case "RETR" if kind == 2:  # an empty or short file may be over with its first reply
                self._step, self._said_done = "transfer", True
                return [Began(self._size), *self._ended()]
            case "RETR" if kind == 5:
                return self._fail("missing", _said(reply))
            case "transfer" if kind == 2:
                self._said_done = True
                return self._ended()
            case "transfer":
                return self._fail("truncated", _said(reply))
            case _:
                return self._fail("server", _said(reply))

    def _say(self, verb: _Verb, argument: str = "") -> list[Effect]:
        self._step = verb
        return [Write(ftp.emit_command(verb, argument))]

    def _sized(self, reply: ftp.Reply) -> list[Effect]:
        if reply.kind == 2:
            self._size = ftp.file_size(reply.text)
        if self._size is not None and self._size > self._wanted.limit:
            return self._fail("too big", "file over the limit")
        if self._size is not None and self._wanted.start > self._size:
            return self._fail("range", f"octet {self._wanted.start} of a file of {self._size}")
        return self._say("EPSV")

    def _open(self, port: int) -> list[Effect]:
        self._step = "data"
        return [OpenData(port)]

    def _retrieve(self) -> list[Effect]:
        return self._say("RETR", self._wanted.path)

    def _ended(self) -> list[Effect]:
        """Over when both the data connection and the control connection say so."""
        if not (self._data_over and self._said_done):
            return []
        if self._size is not None and self._wanted.start + self._octets != self._size:
            return self._fail("truncated", f"{self._wanted.start + self._octets} of {self._size} octets")
        self._step, self.deadline = "over", None
        return [Write(ftp.emit_command("QUIT")), Finished(self._octets)]

    def _fail(self, why: str, detail: str) -> list[Effect]:
        self._step, self.deadline = "over", None
        return [Failed(why, detail)]


def _said(reply: ftp.Reply) -> str:
    return printable(f"{reply.code} {reply.text}")
