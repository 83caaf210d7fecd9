"""Answers that lie ready to send: small files whole, found by all the octets of their request."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from bootwire.engine import Ns, S
from bootwire.engine import http as engine
from bootwire.serve.content import Content, Peer
from bootwire.wire import http

CACHE = 8 * 1024 * 1024  # octets of requests and answers kept
ANSWERS = 4096  # answers kept: a few thousand machines with a small file each


class Prepared:
    """The answer to one request: `response` is for the second that `preface` is for. again: as in Content."""

    __slots__ = ("again", "content", "preface", "response")

    def __init__(self, content: Content, again: Callable[[Peer], str | None], preface: bytes, response: bytes) -> None:
        self.content = content
        self.again = again
        self.preface = preface
        self.response = response


class PreparedAnswers:
    """Prepared answers by request, and what all answers begin with this second.

    Whoever takes one asks its `again` first, and calls `drop` where that says None.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._until: Ns = 0
        self._date = ""
        self._preface = b""
        self._answers: dict[bytes, Prepared] = {}
        self._octets = 0
        self.get = self._answers.get  # Prepared or None, by a request's octets

    def date(self, now: Ns) -> str:
        """The Date field's value; a clock that was set is followed within a second."""
        if now >= self._until:
            moment = self._wall()
            second = int(moment)
            self._until = now + int((second + 1 - moment) * S)
            self._date = http.format_date(second)
            self._preface = engine.preface(self._date)
        return self._date

    def whole(self, content: Content, now: Ns) -> bytes | None:
        """The whole response to a plain GET for small content; None where the file has become shorter."""
        data = content.data if content.data is not None else os.pread(content.fd, content.size, 0)
        if len(data) != content.size:
            return None
        self.date(now)
        return self._preface + engine.plain_fields(len(data), content.media_type, content.etag, content.modified) + data

    def put(self, request: bytes, content: Content, response: bytes) -> None:
        """Keep what `whole` has just made of a content, if that has `again`."""
        if content.again is None:
            return
        octets = len(request) + len(response)
        if self._octets + octets > CACHE or len(self._answers) >= ANSWERS:
            self._answers.clear()
            self._octets = 0
        self.drop(request)
        self._answers[request] = Prepared(content, content.again, self._preface, response)
        self._octets += octets

    def drop(self, request: bytes) -> None:
        dropped = self._answers.pop(request, None)
        if dropped is not None:
            self._octets -= len(request) + len(dropped.response)

    def response(self, prepared: Prepared, now: Ns) -> bytes:
        """The response as of now."""
        if now >= self._until:
            self.date(now)
        if prepared.preface is not self._preface:  # as long as before: HTTP dates are (RFC 9110 section 5.6.7)
            prepared.response = self._preface + prepared.response[len(self._preface) :]
            prepared.preface = self._preface
        return prepared.response
