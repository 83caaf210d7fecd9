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
    connection. `done` is set at the end of the body; what came after it is in `rest`. `size` is the body's octets where
    the head tells.
    """

    __slots__ = ("_at", "_buffer", "_chunk", "_interim", "_left", "_limit", "_method", "_mode", "_scanned", "_trailer",
                 "done", "keep", "octets", "response", "size")  # fmt: skip

    def __init__(self, method: str, limit: int) -> None:
        self._method = method
        self._limit = limit
        self._mode: Literal["head", "length", "close", "size", "chunk", "mark", "trailer"] = "head"
        self._buffer = bytearray()  # what could not be understood yet; read from _at on
        self._at = 0
        self._scanned = 0  # no end of a head or line before here
        self._left = 0
        self._chunk = 0
        self._trailer = 0
        self._interim = 0
        self.response: Response | None = None
        self.done = False
        self.keep = False
        self.octets = 0
        self.size: int | None = None

    @property
    def rest(self) -> bytes:
        """What came after the end of the answer."""
        return bytes(self._buffer)

    def receive(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        if self._mode == "length":  # the hot path
            return self._whole(data)
        if self._mode == "close":
            self._count(len(data))
            return [data] if len(data) else []
        pieces: list[bytes | memoryview] = []
        self._buffer += data
        while not self.done and self._advance(pieces):
            pass
        del self._buffer[: self._at]
        self._scanned, self._at = max(0, self._scanned - self._at), 0
        return pieces

    def closed(self) -> None:
        """The server has closed the connection. Raises WireError where that cuts the answer."""
        if self._mode == "close":
            self.done = True
        elif not self.done:
            raise WireError(f"connection closed after {self.octets} octets of the body", self.octets)

    # --- parts --------------------------------------------------------------------------------------------------

    def _whole(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        if len(data) > self._left:
            self._buffer += data[self._left :]
            data = data[: self._left]
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
            case "length" | "close":
                rest, self._buffer, self._at = bytes(self._buffer[self._at :]), bytearray(), 0
                pieces += self.receive(rest)
                return False
            case "size":
                return self._chunk_size()
            case "chunk":
                return self._chunk_data(pieces)
            case "mark":
                mark = self._buffer[self._at : self._at + 2]
                if len(mark) < 2:
                    return False
                if mark != b"\r\n":
                    raise WireError("chunk without its CRLF", self.octets)
                self._at, self._mode = self._at + 2, "size"
                return True
            case "trailer":
                return self._trailer_line()

    def _find(self, mark: bytes, limit: int, what: str) -> int:
        """Where `mark` begins, -1 if it has not come yet; looks at no octet twice. Raises WireError beyond `limit`."""
        end = self._buffer.find(mark, max(self._at, self._scanned - len(mark) + 1))
        self._scanned = len(self._buffer) if end < 0 else end
        if self._scanned - self._at > limit:
            raise WireError(what, self.octets)
        return end

    def _head(self) -> bool:
        end = self._find(b"\r\n\r\n", http.MAX_HEAD, http.LONG_HEAD)
        if end < 0:
            return False
        head, self._at = bytes(self._buffer[self._at : end + 4]), end + 4
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
            self.done, self.size = True, 0
        elif coding:
            if coding != "chunked":
                raise WireError(f"transfer-encoding {coding[:40]!r}", 0)
            self._mode = "size"
        elif "content-length" in headers:
            self._left = self.size = int(headers["content-length"])
            if self._left > self._limit:
                raise WireError(TOO_BIG, self._left)
            self._mode, self.done = "length", self._left == 0
        else:
            self._mode, persistent = "close", False
        self.keep = persistent and "close" not in said

    def _chunk_size(self) -> bool:
        end = self._find(b"\r\n", MAX_CHUNK_LINE, "chunk size line without an end")
        if end < 0:
            return False
        match = _CHUNK_SIZE.fullmatch(self._buffer, self._at, end)
        if match is None:
            raise WireError("chunk size that is no number", self.octets)
        self._chunk = int(match[1], 16)
        self._at = end + 2
        self._mode = "chunk" if self._chunk else "trailer"
        if self.octets + self._chunk > self._limit:
            raise WireError(TOO_BIG, self.octets + self._chunk)
        return True

    def _chunk_data(self, pieces: list[bytes | memoryview]) -> bool:
        data = bytes(self._buffer[self._at : self._at + self._chunk])
        if not data:
            return False
        self._at += len(data)
        self._chunk -= len(data)
        self.octets += len(data)
        pieces.append(data)
        if self._chunk == 0:
            self._mode = "mark"
        return True

    def _trailer_line(self) -> bool:
        """Trailers are read and forgotten: nothing here may depend on them (RFC 9110 section 6.5.1)."""
        end = self._find(b"\r\n", http.MAX_HEAD - self._trailer, "trailers without an end")
        if end < 0:
            return False
        line, self._at = bytes(self._buffer[self._at : end]), end + 2
        self._trailer += len(line) + 2
        if not line:
            self.done = True
        elif b":" not in line:
            raise WireError("trailer that is not NAME: VALUE", self.octets)
        return True


_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
