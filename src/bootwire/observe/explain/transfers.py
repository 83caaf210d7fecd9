"""Files on the wire: TFTP transfers and HTTP requests, followed packet by packet within fixed memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from bootwire.engine.tcp.receive import Inbox
from bootwire.wire import http, tcp, tftp
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

HEAD_KEPT = 512  # first octets of a file that are kept: enough for a PE header's usual place and Linux's "HdrS"
_AHEAD = 1 << 20  # octets a segment may lie ahead of what is awaited: a usual window; beyond it the capture lost some
_REQUESTS = 256  # of one connection that are kept


@dataclass(slots=True)
class Transfer:
    """One TFTP read. Times: nanoseconds since the epoch; who: "client" or "server".

    asked, agreed    options as text, by name
    repeats          of the request itself; data_repeats, ack_repeats: of blocks and acknowledgements
    stuck_on         the block that was sent again most recently
    """

    client: str
    client_port: int
    server: str
    name: str
    began: int
    raw: bytes = b""
    asked: dict[str, str] = field(default_factory=dict)
    agreed: dict[str, str] | None = None
    server_port: int = 0
    answered_from: str = ""
    ended: int = 0
    octets: int = 0
    blocks: int = 0
    highest: int = -1
    acked: int = -1
    repeats: int = 0
    data_repeats: int = 0
    ack_repeats: int = 0
    fragments: int = 1
    who: str = ""
    code: int = -1
    text: str = ""
    complete: bool = False
    head: bytes = b""
    oacks: int = 0
    frames_big: int = 0

    @property
    def block_size(self) -> int:
        said = (self.agreed or {}).get("blksize", "")
        return int(said) if said.isdigit() and len(said) < 6 else tftp.BLOCK_SIZE

    @property
    def answered(self) -> bool:
        return self.agreed is not None or self.highest >= 0 or self.who == "server"

    def take(self, at: int, of_client: bool, payload: bytes, address: str, port: int) -> None:
        """One datagram of it, or several of the server's in one: a sending host captures them before its card
        cuts them apart (UDP segmentation offload)."""
        piece = tftp.HEADER + self.block_size
        if not of_client and len(payload) > piece and payload[:2] == b"\0\3":
            for start in range(0, len(payload), piece):
                self.take(at, of_client, payload[start : start + piece], address, port)
            return
        try:
            message = tftp.parse(payload)
        except WireError:
            return
        self.ended = at
        if not of_client and isinstance(message, tftp.Data | tftp.OptionAck | tftp.Error):
            self.answered_from, self.server_port = self.answered_from or address, self.server_port or port
        match message:
            case tftp.OptionAck(options):
                self.agreed = _words(options)
                self.oacks += 1
            case tftp.Data(block, data) if not of_client:
                self._block(block, data)
            case tftp.Ack(block) if of_client:
                if block == self.acked & 0xFFFF and self.acked >= 0:
                    self.ack_repeats += 1
                self.acked = block
            case tftp.Error(code, text):
                self.who, self.code, self.text = "client" if of_client else "server", code, printable(text, 120)
            case _:
                pass

    def _block(self, block: int, data: bytes) -> None:
        if self.agreed is None:
            self.agreed = {}
        awaited = self.highest + 1 if self.highest >= 0 else 1
        distance = (block - awaited) & 0xFFFF
        if distance >= 0x8000:
            self.data_repeats += 1
            return
        if self.highest < 0:
            self.head = data[:HEAD_KEPT]
        self.highest = awaited + distance
        self.blocks += 1
        self.octets += len(data)
        if len(data) < self.block_size:
            self.complete = True


def request(payload: bytes) -> tuple[str, bytes, dict[str, str]] | None:
    """(name, raw name, options) of a read request, None for anything else."""
    with contextlib.suppress(WireError):
        message = tftp.parse(payload)
        if isinstance(message, tftp.ReadRequest):
            return printable(message.filename), message.filename, _words(message.options)
    return None


def _words(options: tftp.Options) -> dict[str, str]:
    return {printable(name, 32): printable(value, 32) for name, value in options[:16]}


@dataclass(slots=True)
class Exchange:
    """One HTTP request and what came of it. octets: of the body, as far as captured; status 0: no answer seen."""

    client: str
    server: str
    port: int
    method: str
    path: str
    began: int
    agent: str = ""
    status: int = 0
    kind: str = ""
    length: int = -1
    chunked: bool = False
    octets: int = 0
    ended: int = 0
    broken: str = ""
    location: str = ""
    damaged: str = ""

    @property
    def complete(self) -> bool:
        body = self.method != "HEAD" and self.status not in (204, 304)
        return bool(self.status) and (not body or self.length < 0 or self.octets >= self.length)


class _Half:
    """One direction as a stream. `lost` octets that the capture has not are passed over."""

    def __init__(self) -> None:
        self._inbox: Inbox | None = None
        self.lost = 0

    def put(self, segment: tcp.Segment, missing: int) -> bytes:
        """What is in order now."""
        if segment.flags & tcp.SYN:
            self._inbox = Inbox((segment.seq + 1) & 0xFFFFFFFF)
            return b""
        data = segment.payload + bytes(missing)
        if not data:
            return b""
        if self._inbox is None:
            self._inbox = Inbox(segment.seq)
        offset = (segment.seq - self._inbox.next + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        if offset > _AHEAD:  # the capture missed something: go on behind it
            self.lost += offset
            self._inbox = Inbox(segment.seq)
            offset = 0
        self._inbox.put(self._inbox.next + offset, data)
        return self._inbox.read(1 << 30)


class Connection:
    """One TCP connection to a server's HTTP port."""

    def __init__(self, client: str, server: str, port: int, at: int) -> None:
        self.client, self.server, self.port, self.began = client, server, port, at
        self.syns = 0
        self.accepted = False
        self.reset_by = ""
        self.exchanges: list[Exchange] = []
        self.no_http = False
        self._up, self._down = _Half(), _Half()
        self._asking, self._telling = b"", b""
        self._skip = 0  # octets of a request's body
        self._body = 0  # octets of the body under way; -1: until the end
        self._waiting = 0  # index of the exchange that is answered next

    def take(self, at: int, of_client: bool, segment: tcp.Segment, missing: int) -> None:
        if of_client and segment.flags & tcp.SYN:
            self.syns += 1
        if not of_client and segment.flags & tcp.SYN:
            self.accepted = True
        if segment.flags & tcp.RST:
            self.reset_by = self.reset_by or ("client" if of_client else "server")
        data = (self._up if of_client else self._down).put(segment, min(missing, 65_535))
        if self.no_http:
            return
        if of_client:
            self._asked(at, data)
        elif data:
            self._told(at, data)

    def _asked(self, at: int, data: bytes) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._asking += data[skipped:]
        while self._asking and (end := self._asking.find(b"\r\n\r\n")) >= 0:
            head, self._asking = self._asking[: end + 4], self._asking[end + 4 :]
            try:
                asked = http.parse_request(head)
            except WireError as error:
                self.no_http = not self.exchanges
                if len(self.exchanges) < _REQUESTS and not self.no_http:
                    self.exchanges.append(self._exchange(at, "?", "?", damaged=error.what))
                self._asking = b""
                return
            body = asked.headers.get("content-length", "")
            self._skip = int(body) if body.isdigit() and len(body) < 10 else 0
            skipped = min(self._skip, len(self._asking))
            self._skip, self._asking = self._skip - skipped, self._asking[skipped:]
            if len(self.exchanges) < _REQUESTS:
                agent = printable(asked.headers.get("user-agent", ""), 60)
                self.exchanges.append(self._exchange(at, asked.method, printable(asked.path), agent=agent))
        if len(self._asking) > http.MAX_HEAD:
            self.no_http, self._asking = True, b""

    def _exchange(self, at: int, method: str, path: str, *, agent: str = "", damaged: str = "") -> Exchange:
        return Exchange(self.client, self.server, self.port, method, path, at, agent=agent, damaged=damaged)

    def _told(self, at: int, data: bytes) -> None:
        while data and self._waiting < len(self.exchanges):
            current = self.exchanges[self._waiting]
            current.ended = at
            if self._body:
                taken = len(data) if self._body < 0 else min(self._body, len(data))
                current.octets += taken
                if self._body > 0:
                    self._body -= taken
                    self._waiting += self._body == 0
                data = data[taken:]
                continue
            self._telling += data
            end = self._telling.find(b"\r\n\r\n")
            if end < 0:
                if len(self._telling) > http.MAX_HEAD:
                    current.damaged, self._telling, self.no_http = "an answer without an end of its head", b"", True
                return
            head, data, self._telling = self._telling[: end + 4], self._telling[end + 4 :], b""
            try:
                told = http.parse_response(head)
            except WireError as error:
                current.damaged, self.no_http = error.what, True
                return
            if told.status < 200:
                continue
            self._answer(current, told)

    def _answer(self, current: Exchange, told: http.Response) -> None:
        current.status = told.status
        current.kind = printable(told.headers.get("content-type", ""), 60)
        current.location = printable(told.headers.get("location", ""), 120)
        current.chunked = "chunked" in told.headers.get("transfer-encoding", "")
        length = told.headers.get("content-length", "")
        current.length = int(length) if length.isdigit() and len(length) < 16 else -1
        bodiless = current.method == "HEAD" or told.status in (204, 304)
        self._body = 0 if bodiless else current.length
        if not self._body:
            self._waiting += 1
