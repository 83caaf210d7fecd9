"""One HTTP/1.1 answer out of octets: its head, then its body however that is framed (RFC 9112 section 6).

Every length is checked against what comes and against the caller's limit; one that can be read in two ways is refused.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from bootwire.wire import http
from bootwire.wire.http import Response
from bootwire.wire.reader import WireError

MAX_INTERIM: Final = 8  # 1xx answers before the final one (RFC 9110 section 15.2 names no number)
MAX_CHUNK_LINE: Final = 4096  # octets of a chunk size line with its extensions
TOO_BIG: Final = "body over the limit"


class Answer:
    """One answer out of octets: the head, then the body however it is framed.

    `receive` returns the pieces of the body; raises WireError for what is no answer. `closed` is for the end of the
    connection. `done` is set at the end of the body; what came after it is in `rest`.
    """

    __slots__ = ("_buffer", "_chunk", "_interim", "_left", "_limit", "_method", "_mode", "_trailer", "done", "keep",
                 "octets", "response", "rest")  # fmt: skip

    def __init__(self, method: str, limit: int) -> None:
        self._method = method
        self._limit = limit
        self._mode: Literal["head", "length", "close", "size", "chunk", "mark", "trailer"] = "head"
        self._buffer = b""
        self._left = 0
        self._chunk = 0
        self._trailer = 0
        self._interim = 0
        self.response: Response | None = None
        self.done = False
        self.keep = False
        self.octets = 0
        self.rest = b""

    @property
    def size(self) -> int | None:
        """Octets of the body where the head says so."""
        return self._left if self._mode == "length" else 0 if self.done else None

    def receive(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        if self._mode == "length":  # the hot path
            if len(data) <= self._left:
                return self._take(data)
            self.rest = bytes(data[self._left :])
            return self._take(data[: self._left])
        if self._mode == "close":
            self._count(len(data))
            return [data] if len(data) else []
        pieces: list[bytes | memoryview] = []
        self._buffer += bytes(data)
        while not self.done and self._advance(pieces):
            pass
        if self.done:
            self.rest, self._buffer = self._buffer, b""
        return pieces

    def closed(self) -> None:
        """The server has closed the connection. Raises WireError where that cuts the answer."""
        if self._mode == "close":
            self.done = True
        elif not self.done:
            raise WireError(f"connection closed after {self.octets} octets of the body", self.octets)

    # --- parts --------------------------------------------------------------------------------------------------

    def _take(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        self._left -= len(data)
        self.octets += len(data)
        self.done = self._left == 0
        return [data] if len(data) else []

    def _count(self, octets: int) -> None:
        self.octets += octets
        if self.octets > self._limit:
            raise WireError(TOO_BIG, self.octets)

    def _advance(self, pieces: list[bytes | memoryview]) -> bool:
        """One step; False when more octets are needed."""
        match self._mode:
            case "head":
                return self._head()
            case "length":
                rest, self._buffer = self._buffer, b""
                pieces += self.receive(rest)
                self._buffer, self.rest = self.rest, b""
            case "close":
                rest, self._buffer = self._buffer, b""
                pieces += self.receive(rest)
            case "size":
                return self._chunk_size()
            case "chunk":
                return self._chunk_data(pieces)
            case "mark":
                if len(self._buffer) < 2:
                    return False
                if self._buffer[:2] != b"\r\n":
                    raise WireError("chunk without its CRLF", self.octets)
                self._buffer, self._mode = self._buffer[2:], "size"
            case "trailer":
                return self._trailer_line()
        return False

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end == 3:
            if len(self._buffer) > http.MAX_HEAD:
                raise WireError(http.LONG_HEAD, http.MAX_HEAD)
            if (line := self._buffer.rfind(b"\n") + 1) + http.MAX_LINE + 2 < len(self._buffer):
                raise WireError(http.LONG_LINE, line)
            return False
        head, self._buffer = self._buffer[:end], self._buffer[end:]
        response = http.parse_response(head)
        if 100 <= response.status < 200:
            self._interim += 1
            if response.status == 101 or self._interim > MAX_INTERIM:
                raise WireError(f"interim answer {response.status}", 9)
            return True
        self.response = response
        self._frame(response)
        return True

    def _frame(self, response: Response) -> None:
        """How the body is delimited (RFC 9112 section 6.3)."""
        headers = response.headers
        said = [token.strip().lower() for token in headers.get("connection", "").split(",")]
        persistent = response.version == 11 or "keep-alive" in said
        coding = headers.get("transfer-encoding", "").strip().lower()
        if (
            self._method == "HEAD"
            or response.status in (204, 304)
            or (self._method == "CONNECT" and response.status < 300)
        ):
            self.done = True
        elif coding:
            if coding != "chunked":
                raise WireError(f"transfer-encoding {coding[:40]!r}", 0)
            self._mode = "size"
        elif "content-length" in headers:
            self._left = int(headers["content-length"])
            if self._left > self._limit:
                raise WireError(TOO_BIG, self._left)
            self._mode, self.done = "length", self._left == 0
        else:
            self._mode, persistent = "close", False
        self.keep = persistent and "close" not in said

    def _chunk_size(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0 or end > MAX_CHUNK_LINE:
            if len(self._buffer) > MAX_CHUNK_LINE:
                raise WireError("chunk size line without an end", self.octets)
            return False
        match = _CHUNK_SIZE.fullmatch(self._buffer[:end])
        if match is None:
            raise WireError("chunk size that is no number", self.octets)
        self._chunk = int(match[1], 16)
        self._buffer = self._buffer[end + 2 :]
        self._mode = "chunk" if self._chunk else "trailer"
        if self.octets + self._chunk > self._limit:
            raise WireError(TOO_BIG, self.octets + self._chunk)
        return True

    def _chunk_data(self, pieces: list[bytes | memoryview]) -> bool:
        data = self._buffer[: self._chunk]
        if not data:
            return False
        self._buffer = self._buffer[len(data) :]
        self._chunk -= len(data)
        self._count(len(data))
        pieces.append(data)
        if self._chunk == 0:
            self._mode = "mark"
        return True

    def _trailer_line(self) -> bool:
        """Trailers are read and forgotten: nothing here may depend on them (RFC 9110 section 6.5.1)."""
        end = self._buffer.find(b"\r\n")
        if self._trailer + max(end, len(self._buffer) if end < 0 else 0) > http.MAX_HEAD:
            raise WireError("trailers without an end", self.octets)
        if end < 0:
            return False
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        self._trailer += end + 2
        if not line:
            self.done = True
        elif b":" not in line:
            raise WireError("trailer that is not NAME: VALUE", self.octets)
        return True


_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
