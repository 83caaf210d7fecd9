"""HTTP/1.1, the server's side: octets in, requests out one at a time; and what a GET or HEAD is answered with.

Rules 3 and 4 bend for speed here: an answer is a head and two offsets, for the edge to send as it likes best.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bootwire.engine import Ns, S
from bootwire.wire import http
from bootwire.wire.reader import WireError

HEAD_TIME: Ns = 10 * S
"""From accept, or from the first octet after an idle time, to the whole head. No octet resets it: that is what
slow-header attacks live on (CIS nginx benchmark 5.2.1: 10 s)."""

IDLE_TIME: Ns = 60 * S
"""How long a kept connection may say nothing. iPXE itself drops its pooled connections after 10 s (httpconn.c)."""

MAX_KNOWN = 2048
MAX_KNOWN_HEAD = 1024
"""Requests that a server remembers, and octets of one: some five megabytes at most."""

METHODS = ("GET", "HEAD", "POST")
"""POST for those who can say "done" in no other way (cloud-init's phone_home); a body is read, and thrown away."""
MAX_BODY = 64 * 1024
"""Octets of a body: cloud-init posts a machine's public keys, some 4 KiB."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that gets an error and the connection's end. detail: octets of it for the journal."""

    status: int
    because: str
    detail: bytes


class Connection:
    """One connection in requests and answers.

    `receive` octets while no request is being answered; it returns the next request, a refusal (send the error,
    then close), or None (more octets are needed). When the answer is out, `finish` says what comes next, out of what
    the peer sent ahead. The edge reads nothing meanwhile, so that at most one head and one read are ever held.

    deadline   close the connection then, unless a request is being answered
    idle       nothing has come of the next request yet: who knows all its octets when they come may answer by himself
    known      good requests by their octets, for all connections of a server: machines of one kind ask alike, and
               again and again. Filled here, kept within MAX_KNOWN
    """

    __slots__ = ("_buffer", "_head_time", "_idle_time", "_known", "_posting", "deadline", "idle")

    def __init__(
        self,
        now: Ns,
        head_time: Ns = HEAD_TIME,
        idle_time: Ns = IDLE_TIME,
        known: dict[bytes, http.Request] | None = None,
    ) -> None:
        self.deadline = now + head_time
        self._head_time = head_time
        self._idle_time = idle_time
        self._buffer = b""
        self.idle = False
        self._posting = False  # the head in the buffer is whole, its body is not
        self._known = {} if known is None else known

    def receive(self, data: bytes, now: Ns) -> http.Request | Refusal | None:
        if self.idle:
            self.idle = False
            self.deadline = now + self._head_time
        scanned = len(self._buffer)
        self._buffer = self._buffer + data if scanned else data
        return self._next(0 if self._posting else scanned)

    def finish(self, now: Ns) -> http.Request | Refusal | None:
        result = self._next(0) if self._buffer else None
        if result is None:
            self.idle = not self._buffer
            self.deadline = now + (self._idle_time if self.idle else self._head_time)
        return result

    def sent_ahead(self, leftover: bytes) -> None:
        """Start while a request is being answered that somebody else has read; `leftover` came behind it."""
        self._buffer = leftover

    def leftover(self) -> bytes:
        """What the peer has sent beyond the request being answered."""
        return self._buffer

    def _next(self, scanned: int) -> http.Request | Refusal | None:
        buffer = self._buffer
        if buffer and buffer[0] in b"\r\n":  # empty lines before a request line (RFC 9112 section 2.2)
            self._buffer = buffer = buffer.lstrip(b"\r\n")
        end = buffer.find(b"\r\n\r\n", max(0, scanned - 3)) + 4
        if end == 3:
            return _hopeless(buffer, max(0, scanned - 1)) if buffer else None
        head = buffer[:end]
        self._buffer = buffer[end:]
        if head in self._known:
            return self._known[head]
        try:
            request = http.parse_request(head)
        except WireError as error:
            return Refusal(_STATUS.get(error.what, 400), error.what, head)
        if request.method not in METHODS:
            return Refusal(405, f"method {request.method}", head)
        length = int(request.headers.get("content-length", 0))
        if "transfer-encoding" in request.headers or length > (MAX_BODY if request.method == "POST" else 0):
            return Refusal(413, f"{request.method} with a body", head)
        if request.method == "POST":
            self._posting = len(buffer) < end + length
            if self._posting:
                self._buffer = buffer
                return None
            self._buffer = buffer[end + length :]
            return request
        if end <= MAX_KNOWN_HEAD:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[head] = request
        return request


_STATUS = {
    http.LONG_TARGET: 414,
    http.LONG_LINE: 431,
    http.LONG_HEAD: 431,
    http.MANY_FIELDS: 431,
    http.OTHER_VERSION: 505,
}
_BARE_LF = re.compile(rb"(?<!\r)\n")


def _hopeless(buffer: bytes, at: int) -> Refusal | None:
    """A refusal where no further octet could make a head of this; only octets from `at` on are new."""
    if not buffer[:1].isalpha():
        return Refusal(400, "TLS on the plain HTTP port" if buffer[0] == 0x16 else "no HTTP request", buffer)
    if len(buffer) > http.MAX_LINE and b"\n" not in buffer[: http.MAX_LINE + 2]:
        return Refusal(414, http.LONG_TARGET, buffer)
    if len(buffer) >= http.MAX_HEAD:
        return Refusal(431, http.LONG_HEAD, buffer)
    if _BARE_LF.search(buffer, at):
        return Refusal(400, "line that ends in a bare line feed", buffer)
    return None


def keeps(request: http.Request) -> bool:
    """Whether the connection outlives the answer (RFC 9112 section 9.3)."""
    said = request.headers.get("connection")
    if said is None:
        return request.version == 11
    tokens = [token.strip(" \t").lower() for token in said.split(",")]
    return "close" not in tokens and (request.version == 11 or "keep-alive" in tokens)


# --- answers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """head: to send first; then octets [start, stop) of the content, none where start == stop."""

    status: int
    head: bytes
    start: int
    stop: int


_SPECIAL = frozenset(("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))


def plain(request: http.Request) -> bool:
    """Whether every such request for the same octets gets the same answer: a GET that asks for nothing special."""
    headers = request.headers
    return (
        request.method == "GET"
        and request.version == 11
        and headers.get("connection", "keep-alive").lower() == "keep-alive"
        and _SPECIAL.isdisjoint(headers)
    )


@functools.lru_cache(maxsize=MAX_KNOWN)
def plain_fields(size: int, media_type: str, etag: str, modified: str, connection: str = "") -> bytes:
    """The header fields of the answer to a `plain` request, and the empty line; `preface` goes before them.

    connection  its Connection field, where one is needed
    """
    fields = _fields(0, size, media_type, etag, modified)
    fields += [("Connection", connection)] if connection else []
    return http.emit_head(200, fields).partition(b"\r\n")[2]


@functools.lru_cache(maxsize=2)
def preface(date: str) -> bytes:
    """What every 200 of this second begins with: status line and Date."""
    return f"HTTP/1.1 200 OK\r\nDate: {date}\r\n".encode()


def answer(request: http.Request, date: str, size: int, media_type: str, etag: str, modified: str) -> Answer:
    """The answer to a GET or HEAD for `size` octets: whole, a part, or a status that says why not.

    date      HTTP date of now
    etag      strong and quoted, or ""
    modified  HTTP date, or ""

    Order of preconditions: RFC 9110 section 13.2.2. A Range counts for GET only (section 14.2).
    """
    headers = request.headers
    status, start, stop = 200, 0, size
    if not _SPECIAL.isdisjoint(headers):
        status = _precondition(headers, etag, modified)
        if status == 200 and "range" in headers and request.method == "GET" and _if_range(headers, etag, modified):
            part = http.parse_range(headers["range"], size)
            if part is not None:
                start, stop = part
                status = 206 if start < stop else 416
    connection = connection_field(request)
    if status == 200:  # of thousands of machines, nearly all: nothing of it is made anew
        said = connection[0][1] if connection else ""
        head = preface(date) + plain_fields(size, media_type, etag, modified, said)
        return Answer(200, head, 0, 0 if request.method == "HEAD" else size)
    match status:
        case 206:
            fields = _fields(start, stop, media_type, etag, modified)
            fields.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
        case 304:
            fields = _validators(etag, modified)
        case 416:
            fields = [("Content-Range", f"bytes */{size}"), ("Content-Length", "0")]
        case _:
            fields = [("Content-Length", "0")]
    head = http.emit_head(status, [("Date", date), *fields, *connection])
    if status != 206:
        start = stop = 0
    return Answer(status, head, start, stop)


def connection_field(request: http.Request) -> list[tuple[str, str]]:
    """The Connection field of an answer, where one is needed: it says what is not the version's default."""
    kept = keeps(request)
    if kept == (request.version == 11):
        return []
    return [("Connection", "keep-alive" if kept else "close")]


def _fields(start: int, stop: int, media_type: str, etag: str, modified: str) -> list[tuple[str, str]]:
    return [
        ("Server", "bootwire"),
        ("Content-Type", media_type),
        ("Content-Length", str(stop - start)),
        ("Accept-Ranges", "bytes"),
        *_validators(etag, modified),
    ]


def _validators(etag: str, modified: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (("ETag", etag), ("Last-Modified", modified)) if value]


def _precondition(headers: Mapping[str, str], etag: str, modified: str) -> int:
    if "if-match" in headers:
        if not http.matches(headers["if-match"], etag, weak=False):
            return 412
    elif "if-unmodified-since" in headers and _is_later(modified, headers["if-unmodified-since"]):
        return 412
    if "if-none-match" in headers:
        if http.matches(headers["if-none-match"], etag, weak=True):
            return 304
    elif "if-modified-since" in headers and _is_later(modified, headers["if-modified-since"]) is False:
        return 304
    return 200


def _if_range(headers: Mapping[str, str], etag: str, modified: str) -> bool:
    """Whether the Range counts: the peer's part is of these very octets (RFC 9110 section 13.1.5)."""
    said = headers.get("if-range")
    if said is None:
        return True
    if said.endswith('"'):
        return bool(etag) and said == etag
    return bool(modified) and http.parse_date(said) == http.parse_date(modified)


def _is_later(modified: str, said: str) -> bool | None:
    """Whether `modified` is after the date that the peer said; None where either is no date."""
    ours, theirs = http.parse_date(modified), http.parse_date(said)
    return None if ours is None or theirs is None else ours > theirs
