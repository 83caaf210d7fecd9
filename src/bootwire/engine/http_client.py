"""HTTP/1.1, the client's side: fetch one URL, whole or in part, directly or through a proxy, over any transport.

What may be hostile is the server: every length is checked against what comes and against the caller's limit, a length
that can be read in two ways is refused, and nothing grows with what a server says it will send (RFC 9112).

A `Fetch` asks for connections and is told what happens to them; it opens at most one at a time. Redirects, challenges
and continued transfers are further requests, maybe on the same connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from bootwire.engine import Ns, S
from bootwire.engine.http_answer import TOO_BIG, Answer
from bootwire.engine.http_auth import Challenge, answer, best_challenge
from bootwire.wire import http
from bootwire.wire.http import Response
from bootwire.wire.reader import WireError
from bootwire.wire.url import Url, parse_url, resolve

MAX_REDIRECTS: Final = 5  # Fetch standard allows 20, wget 20, iPXE no end; boot paths need one or two
MAX_CHALLENGES: Final = 4  # of a server that keeps calling its nonce stale
MAX_DRAIN: Final = 64 * 1024  # octets of an answer that is not wanted, read to keep its connection


# --- what to fetch ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request.

    headers   sent as they are, in order, after Host; Host among them replaces ours, Connection, too
    part      octets [start, stop) of the file, stop None for the end; None for the whole
    limit     octets of the body; a longer one is refused as soon as that is known
    idle      nanoseconds in which something must come
    redirects followed at most; 0: an answer that says "elsewhere" is handed over as it is
    tries     connections spent on one answer: more than one continues a broken transfer with a Range
    proxy     "http://[user:password@]host:port", "" for none: http through it in absolute form, https through CONNECT;
              or a function that tells so for a URL, which redirects ask again
    username password   for the server, sent only when it asks, and only to the host that the URL names
    """

    url: str
    method: Literal["GET", "HEAD"] = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    part: tuple[int, int | None] | None = None
    limit: int = 1 << 40
    idle: Ns = 30 * S
    tries: int = 1
    redirects: int = MAX_REDIRECTS
    proxy: str | Callable[[Url], str] = ""
    username: str = ""
    password: str = ""


# --- effects ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to host:port, or take a kept connection with the same `key`; then call `opened`."""

    host: str
    port: int
    key: str


@dataclass(frozen=True, slots=True)
class Write:
    """Octets for the connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Secure:
    """Start TLS as a client towards `host` on this connection, check its certificate, then call `secured`."""

    host: str


@dataclass(frozen=True, slots=True)
class Release:
    """The connection is not needed any more. keep: it is fit for another request."""

    keep: bool


@dataclass(frozen=True, slots=True)
class Began:
    """The final answer's head is here; its body follows. size: octets to come if known, of the part where one was
    asked for. url: after redirects."""

    response: Response
    size: int | None
    url: str


@dataclass(frozen=True, slots=True)
class Body:
    """The next octets."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Finished:
    """All there is. octets: of the body."""

    response: Response
    octets: int


@dataclass(frozen=True, slots=True)
class Failed:
    """What came so far is not the file.

    why: "url", "connect", "timeout", "closed" (before an answer), "truncated", "malformed", "encoding", "too big",
    "redirects", "changed" (while it was being continued), "proxy", "range"
    """

    why: str
    detail: str


Effect = Open | Write | Secure | Release | Began | Body | Finished | Failed


# --- one fetch --------------------------------------------------------------------------------------------------


class Fetch:
    """Fetches one URL. `start`, then tell what happens; perform the effects in order until Finished or Failed.

    cnonce  makes a text that nobody can guess, for digest authentication
    """

    def __init__(self, wanted: Wanted, cnonce: Callable[[], str]) -> None:
        self._wanted = wanted
        self._cnonce = cnonce
        self._url: Url | None = None
        self._proxy: Url | None = None
        self._home = ""  # origin that the credentials are for
        self._reader: Answer | None = None
        self._tunnel = False  # the request being answered is CONNECT
        self._tunnelled = False
        self._unused = False  # the connection was kept from before and has not answered yet
        self._redirects = 0
        self._tries = 0
        self._auth: Challenge | None = None
        self._challenges = 0
        self._proxy_auth: Challenge | None = None
        self._first: Response | None = None  # head of the answer whose body is being delivered
        self._total: int | None = None  # octets of the whole body, where known
        self._got = 0
        self._skip = False  # the body being read is not wanted
        self._next: list[Effect] | None = None
        self.deadline: Ns | None = None

    def start(self, now: Ns) -> list[Effect]:
        try:
            self._url = parse_url(self._wanted.url)
            self._choose_proxy(self._url)
        except WireError as error:
            return self._fail("url", str(error))
        self._home = self._url.origin
        return self._open(now)

    def opened(self, now: Ns, *, reused: bool = False) -> list[Effect]:
        """The connection asked for is there; reused: it was kept from an earlier request with the same key."""
        assert self._url is not None
        self._unused = reused
        self._tunnelled = reused and self._url.scheme == "https"
        self.deadline = now + self._wanted.idle
        if self._url.scheme == "https" and not self._tunnelled:
            if self._proxy is not None:
                return self._connect()
            return [Secure(self._url.host)]
        return self._request()

    def secured(self, now: Ns) -> list[Effect]:
        """TLS stands, and the certificate is right."""
        self._tunnelled = True
        self.deadline = now + self._wanted.idle
        return self._request()

    def unreachable(self, why: str, now: Ns) -> list[Effect]:
        """The connection asked for cannot be had (or TLS over it)."""
        return self._again("connect", why, now)

    def receive(self, data: bytes | memoryview, now: Ns) -> list[Effect]:
        self.deadline = now + self._wanted.idle
        reader = self._reader
        if reader is None:
            return []
        self._unused = False
        effects: list[Effect] = []
        was_waiting = reader.response is None
        try:
            pieces = reader.receive(data)
        except WireError as error:
            return self._fail("too big" if error.what == TOO_BIG else "malformed", str(error))
        if was_waiting and reader.response is not None:
            effects += self._head(reader, reader.response)
        if self._reader is None:  # the head was the end of it
            return effects
        if not self._skip:
            for piece in pieces:
                self._got += len(piece)
                effects.append(Body(piece))
            if self._got > self._wanted.limit:
                return self._fail("too big", TOO_BIG)
            if pieces:
                self._tries = 1
        elif reader.octets > MAX_DRAIN:
            reader.keep = False
            return effects + self._over(reader, now)
        if reader.done:
            effects += self._over(reader, now)
        return effects

    def closed(self, now: Ns) -> list[Effect]:
        """The server has closed the connection, or it broke."""
        reader = self._reader
        if reader is None:
            return []
        if reader.response is None:
            if self._unused:  # RFC 9112 section 9.3.1: it was closed while nobody used it
                self._tries -= 1
                return [Release(False), *self._open(now)]
            return self._again("closed", "the server closed the connection without an answer", now)
        try:
            reader.closed()
        except WireError as error:
            return self._again("truncated", str(error), now)
        reader.keep = False
        return self._over(reader, now)

    def tick(self, now: Ns) -> list[Effect]:
        if self.deadline is None or now < self.deadline:
            return []
        return self._again("timeout", f"nothing came for {self._wanted.idle // S} s", now)

    # --- asking -------------------------------------------------------------------------------------------------

    def _open(self, now: Ns) -> list[Effect]:
        assert self._url is not None
        self._reader = None
        self.deadline = now + self._wanted.idle
        self._tries += 1
        to = self._proxy or self._url
        key = self._url.origin if self._proxy is None else f"{self._proxy.origin} {self._url.origin}"
        return [Open(to.host, to.port, key)]

    def _choose_proxy(self, url: Url) -> None:
        proxy = self._wanted.proxy
        text = proxy if isinstance(proxy, str) else proxy(url)
        chosen = parse_url(text, ("http",)) if text else None
        if chosen != self._proxy:
            self._proxy, self._proxy_auth = chosen, None

    def _connect(self) -> list[Effect]:
        assert self._url is not None
        self._tunnel = True
        self._reader = Answer("CONNECT", MAX_DRAIN)
        where = f"{_bracketed(self._url.host)}:{self._url.port}"
        fields = [("Host", where), *self._proxy_field("CONNECT", where)]
        return [Write(http.emit_request("CONNECT", where, fields))]

    def _request(self) -> list[Effect]:
        assert self._url is not None
        self._tunnel = self._skip = False
        wanted, url = self._wanted, self._url
        own = {name.lower() for name, _ in wanted.headers}
        through = self._proxy is not None and url.scheme == "http"
        target = url.origin + url.target if through else url.target
        fields = [] if "host" in own else [("Host", url.authority)]
        fields += wanted.headers
        if "connection" not in own:
            fields.append(("Connection", "keep-alive"))
        fields += self._range()
        fields += self._auth_field(url, wanted.method, target)
        if through:
            fields += self._proxy_field(wanted.method, target)
        self._reader = Answer(wanted.method, max(wanted.limit, MAX_DRAIN))
        return [Write(http.emit_request(wanted.method, target, fields))]

    def _range(self) -> list[tuple[str, str]]:
        start, stop = self._wanted.part or (0, None)
        if self._wanted.part is None and not self._got:
            return []
        last = "" if stop is None else str(stop - 1)
        fields = [("Range", f"bytes={start + self._got}-{last}")]
        if self._got and self._first is not None:
            fields.append(("If-Range", _validator(self._first)))
        return fields

    # --- answers ------------------------------------------------------------------------------------------------

    def _head(self, reader: Answer, response: Response) -> list[Effect]:
        """What the head of an answer means; sets `_next` where another request follows this one."""
        if self._tunnel:
            return self._tunnel_head(reader, response)
        status, headers = response.status, response.headers
        if status == 407 and self._proxy is not None:
            return self._challenged("proxy-authenticate", response)
        if status == 401 and self._auth_may_help(response):
            self._skip, self._next = True, []
            return []
        if status in (301, 302, 303, 307, 308) and "location" in headers and self._wanted.redirects:
            return self._redirected(headers["location"])
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "") and self._wanted.method == "GET":
            return self._fail("encoding", f"content-encoding {encoding[:40]!r}")
        if self._first is not None:
            return self._continued(response)
        if self._wanted.part is not None and status == 206:
            start = self._wanted.part[0]
            if not (found := _content_range(response)) or found[0] != start:
                return self._fail("range", f"asked for octet {start}, got {headers.get('content-range', 'no range')}")
        size = _length(response) if self._wanted.method == "HEAD" else reader.size
        if self._wanted.method == "GET":
            self._total = size
            if size is not None and size > self._wanted.limit:
                return self._fail("too big", TOO_BIG)
        self._first = response
        assert self._url is not None
        return [Began(response, size, self._url.origin + self._url.target)]

    def _tunnel_head(self, reader: Answer, response: Response) -> list[Effect]:
        assert self._url is not None
        if response.status < 300:
            self._reader = None
            return [Secure(self._url.host)]
        if response.status == 407:
            return self._challenged("proxy-authenticate", response)
        return self._fail("proxy", f"the proxy answered CONNECT with {response.status}")

    def _challenged(self, field: str, response: Response) -> list[Effect]:
        found = best_challenge(response.headers.get(field, ""))
        assert self._proxy is not None
        if self._proxy_auth is not None or found is None or not self._proxy.username:
            return self._fail("proxy", "the proxy wants other credentials (407)")
        self._proxy_auth = found
        self._skip, self._next = True, []
        return []

    def _auth_may_help(self, response: Response) -> bool:
        found = best_challenge(response.headers.get("www-authenticate", ""))
        username, _ = self._credentials()
        if found is None or not username or self._challenges == MAX_CHALLENGES:
            return False
        if self._auth is not None and found.parameters.get("stale", "").lower() != "true":
            return False  # these credentials were refused
        self._auth = found
        self._challenges += 1
        return True

    def _redirected(self, location: str) -> list[Effect]:
        assert self._url is not None
        self._redirects += 1
        if self._redirects > self._wanted.redirects:
            return self._fail("redirects", f"more than {self._wanted.redirects} redirects")
        try:
            url = resolve(self._url, location)
            self._choose_proxy(url)
        except WireError as error:
            return self._fail("redirects", f"Location that is no URL: {error}")
        if self._url.scheme == "https" and url.scheme == "http":
            return self._fail("redirects", "a redirect from https to http")
        if url.origin != self._url.origin:
            self._auth = None
        self._url = replace(url, username="", password="")
        self._skip, self._next = True, []
        return []

    def _continued(self, response: Response) -> list[Effect]:
        """The rest of a body of which a part was delivered must be of the same file (RFC 9110 section 15.3.7)."""
        assert self._first is not None
        start = (self._wanted.part or (0, None))[0] + self._got
        found = _content_range(response)
        if response.status != 206 or found is None or found[0] != start:
            return self._fail("changed", f"the server answered {response.status} when asked for the rest")
        first_total = _content_range(self._first) or (0, 0, _length(self._first))
        if _validator(response) != _validator(self._first) or found[2] != first_total[2]:
            return self._fail("changed", "the file changed on the server meanwhile")
        return []

    def _over(self, reader: Answer, now: Ns) -> list[Effect]:
        """The end of an answer: the next request, or the end of it all."""
        keep = reader.keep and not reader.rest and reader.done
        self._reader = None
        if self._next is not None:
            self._next = None
            self._tries = 0
            if keep and self._tunnel:
                return self._connect()
            return [Release(keep), *self._open(now)]
        if self._total is not None and self._got != self._total:
            return self._fail("truncated", f"{self._got} of {self._total} octets")
        self.deadline = None
        assert self._first is not None
        return [Release(keep), Finished(self._first, self._got)]

    def _again(self, why: str, detail: str, now: Ns) -> list[Effect]:
        """The connection is of no use any more: try another if that makes sense."""
        can = self._tries < self._wanted.tries
        if can and self._got:
            can = self._first is not None and bool(_validator(self._first)) and self._total is not None
        if not can:
            return self._fail(why, detail)
        self._next = None
        return [Release(False), *self._open(now)]

    def _fail(self, why: str, detail: str) -> list[Effect]:
        self._reader, self.deadline = None, None
        return [Release(False), Failed(why, detail)]

    # --- authentication -----------------------------------------------------------------------------------------

    def _credentials(self) -> tuple[str, str]:
        """For the host of the original URL alone."""
        assert self._url is not None
        if self._url.origin != self._home:
            return "", ""
        if self._wanted.username:
            return self._wanted.username, self._wanted.password
        home = parse_url(self._wanted.url)
        return home.username, home.password

    def _auth_field(self, url: Url, method: str, target: str) -> list[tuple[str, str]]:
        username, password = self._credentials()
        if self._auth is None or not username:
            return []
        return [("Authorization", answer(self._auth, username, password, method, target, self._cnonce()))]

    def _proxy_field(self, method: str, target: str) -> list[tuple[str, str]]:
        if self._proxy_auth is None or self._proxy is None:
            return []
        proxy = self._proxy
        text = answer(self._proxy_auth, proxy.username, proxy.password, method, target, self._cnonce())
        return [("Proxy-Authorization", text)]


# --- helpers ----------------------------------------------------------------------------------------------------


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _length(response: Response) -> int | None:
    value = response.headers.get("content-length")
    return int(value) if value is not None else None


def _validator(response: Response) -> str:
    """What an If-Range may name: a strong ETag, else Last-Modified (RFC 9110 section 13.1.5)."""
    etag = response.headers.get("etag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")


_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


def _content_range(response: Response) -> tuple[int, int, int | None] | None:
    """(first, last, total) of a 206, None where it makes no sense."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[2]) < int(match[1]):
        return None
    total = None if match[3] == "*" else int(match[3])
    if total is not None and int(match[2]) >= total:
        return None
    length = _length(response)
    if length is not None and length != int(match[2]) - int(match[1]) + 1:
        return None
    return int(match[1]), int(match[2]), total
