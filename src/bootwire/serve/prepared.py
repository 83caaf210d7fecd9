"""Answers that lie ready to send, found by all the octets of their request: small files whole, of large ones the head
and an open descriptor."""

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
OPEN = 16  # large files held open
UNUSED: Ns = 5 * S  # a file held open for longer without a request is closed: it may be gone, and its disk space wanted


class Prepared:
    """The answer to one request: `response` is for the second that `preface` is for; all of it where `content` has its
    data, else its head. again: as in Content. used: when it was asked for last.
    """

    __slots__ = ("again", "content", "preface", "response", "used")

    def __init__(
        self, content: Content, again: Callable[[Peer], str | None], preface: bytes, response: bytes, used: Ns
    ) -> None:
        self.content = content
        self.again = again
        self.preface = preface
        self.response = response
        self.used = used


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
        self._open: dict[bytes, Prepared] = {}  # those of them with a descriptor
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

    def until(self, now: Ns) -> Ns:
        """When the Date field's value changes next; it is made now if it has to be."""
        self.date(now)
        return self._until

    def whole(self, content: Content, now: Ns) -> bytes | None:
        """The whole response to a plain GET for small content; None where the file has become shorter."""
        data = content.data if content.data is not None else os.pread(content.fd, content.size, 0)
        if len(data) != content.size:
            return None
        self.date(now)
        return self._preface + engine.plain_fields(len(data), content.media_type, content.etag, content.modified) + data

    def put(self, request: bytes, content: Content, response: bytes, now: Ns) -> None:
        """Keep what a content has just been answered with, if it has `again`.

        response  what `whole` made of it where it has its data, else the head that `engine.answer` made
        """
        known = self._answers.get(request)
        if content.again is None or (known is not None and known.content.key == content.key):
            return
        octets = len(request) + len(response)
        if self._octets + octets > CACHE or len(self._answers) >= ANSWERS:
            self.clear()
        self.drop(request)
        prepared = Prepared(content, content.again, self._preface, response, now)
        if content.data is None:
            try:
                prepared.content = content.another("")
            except OSError:  # no descriptor is left
                return
            if len(self._open) == OPEN:
                self.drop(min(self._open, key=lambda each: self._open[each].used))
            self._open[request] = prepared
        self._answers[request] = prepared
        self._octets += octets

    def drop(self, request: bytes) -> None:
        dropped = self._answers.pop(request, None)
        if dropped is not None:
            self._octets -= len(request) + len(dropped.response)
            self._open.pop(request, None)
            dropped.content.close()

    def clear(self) -> None:
        for request in list(self._answers):
            self.drop(request)

    @property
    def holds_files(self) -> bool:
        return bool(self._open)

    def close_unused(self, now: Ns) -> None:
        """Close the files that nobody has asked for lately; UNUSED after the last request, all of them."""
        for request in [request for request, prepared in self._open.items() if now - prepared.used >= UNUSED]:
            self.drop(request)

    def response(self, prepared: Prepared, now: Ns) -> bytes:
        """The response as of now."""
        if now >= self._until:
            self.date(now)
        prepared.used = now
        if prepared.preface is not self._preface:  # as long as before: HTTP dates are (RFC 9110 section 5.6.7)
            prepared.response = self._preface + prepared.response[len(self._preface) :]
            prepared.preface = self._preface
        return prepared.response
