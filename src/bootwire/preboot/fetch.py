"""fetch: one call for http, https, tftp and ftp URLs, over any transport.

What comes is checked against every length that was said, the caller's limit and, where one is given, its digest; a
file is whole or it is not there. Broken HTTP and FTP transfers go on where they stopped.

Longer than most files here because it performs the effects of three engines, each in one class or method: `_HttpRun`,
`_FtpRun`, and `Fetcher._tftp`. What they share is at the top and at the bottom.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
import ssl
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from bootwire import __version__
from bootwire.engine import Ns, S, ftp, http_client, tftp
from bootwire.preboot.proxies import Proxies
from bootwire.preboot.transport import Address, SecureStream, Stream, Transport, client_context, connect
from bootwire.wire import http
from bootwire.wire import tftp as tftp_wire
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable
from bootwire.wire.url import FETCHED, Url, parse_url

IDLE: Final = 30.0  # seconds in which something must come: a quarter of iPXE's watchdog (httpcore.c), for we try again
TRIES: Final = 5  # connections in a row without one new octet
BACK_OFF: Final = 0.25  # seconds before the second of them; doubles with each
KEPT: Final = 8  # idle connections
KEPT_SECONDS: Final = (
    15.0  # nginx keeps them 75 s, Apache 5 s; one that is gone is replaced at no cost but a round trip
)
PIECE: Final = 256 * 1024  # octets read at once
UNWANTED: Final = 64 * 1024  # octets of an error page read to keep its connection

TFTP_BLOCK: Final = 1428  # octets: 1500 less the headers of IPv6, UDP and TFTP, and room for a tag and a tunnel
TFTP_WINDOW: Final = 16  # blocks: 22 KiB in flight, which no receive buffer drops

Sink = Callable[[bytes | memoryview], object]
Progress = Callable[[int, "int | None"], object]
"""Told the octets that have come of the file and its size where it is known; often, so it should be quick."""


class FetchError(OSError):
    """What could not be fetched. why: "missing", "denied" (401, 403, a login), "server" (it answered that it cannot),
    "digest", or a reason of the engines: "url", "connect", "timeout", "closed", "truncated", "malformed", "encoding",
    "too big", "redirects", "changed", "proxy", "range". status: of HTTP, or 0."""

    def __init__(self, url: str, why: str, detail: str, status: int = 0) -> None:
        super().__init__(f"{printable(shown(url))}: {detail}")
        self.url, self.why, self.detail, self.status = url, why, detail, status


@dataclass(frozen=True, slots=True)
class Head:
    """What a server says of a file before its octets.

    url         after redirects
    partial     a part of the file follows, as was asked for, from `start` on
    size        octets of the whole file, None if not said
    media_type  without parameters, lower case, "" if not said
    modified    Unix seconds, None if not said
    validator   equal for equal octets: an ETag or a date; "" if not said
    ranges      whether parts can be asked for, as far as this answer tells
    """

    url: str
    partial: bool = False
    start: int = 0
    size: int | None = None
    media_type: str = ""
    modified: int | None = None
    validator: str = ""
    ranges: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """octets: that came; sha256: of them, in hexadecimal, where a whole file was fetched."""

    head: Head
    octets: int
    seconds: float
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """How a Fetcher goes about it.

    limit    octets of one file
    idle     seconds in which something must come
    tries    connections in a row without one new octet
    trust    file of CA certificates, "" for the machine's own
    username password   where the URL has none; for HTTP sent only when the URL's own host asks
    """

    limit: int = 1 << 40
    idle: float = IDLE
    tries: int = TRIES
    proxies: Proxies = Proxies()  # noqa: RUF009 (frozen)
    trust: str = ""
    username: str = ""
    password: str = ""


class Fetcher:
    """Fetches one URL after the other, on connections it keeps. Not for several threads at once."""

    def __init__(self, transport: Transport, options: Options | None = None) -> None:
        self.transport = transport
        self.options = options or Options()
        self._context: ssl.SSLContext | None = None
        self._kept: dict[str, tuple[Stream, float]] = {}

    def fetch(self, url: str, sink: Sink, *, digest: str = "", progress: Progress | None = None) -> Fetched:
        """All octets of `url` into `sink`, in order. digest: "sha256:…", "sha384:…", "sha512:…", or the hexadecimal
        digits alone. Raises FetchError: what went into the sink by then is not the file.
        """
        wanted = _parse_digest(url, digest)
        plain = hashlib.sha256()
        extra = hashlib.new(wanted[0]) if wanted and wanted[0] != "sha256" else None
        octets, began = 0, time.monotonic()
        head = Head(url)

        def begin(found: Head) -> Sink:
            nonlocal head
            head = found
            return take

        def take(data: bytes | memoryview) -> None:
            nonlocal octets
            octets += len(data)
            plain.update(data)
            if extra is not None:
                extra.update(data)
            sink(data)
            if progress is not None:
                progress(octets, head.size)

        self.stream(url, begin)
        if wanted and (extra or plain).hexdigest() != wanted[1]:
            raise FetchError(url, "digest", f"the octets are not those of {wanted[0]} {wanted[1]}")
        return Fetched(head, octets, time.monotonic() - began, plain.hexdigest())

    def read(self, url: str, limit: int = 16 << 20) -> bytes:
        """All octets of a small file. Raises FetchError."""
        body = bytearray()
        options, self.options = self.options, replace(self.options, limit=min(limit, self.options.limit))
        try:
            self.stream(url, lambda head: body.extend)
        finally:
            self.options = options
        return bytes(body)

    def save(self, url: str, path: str, *, digest: str = "", progress: Progress | None = None) -> Fetched:
        """Into the file `path`, which is there only once it is whole; a file of that name is replaced then.

        Raises FetchError, or OSError of the file.
        """
        directory, name = os.path.split(path)
        fd, part = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=directory or ".")
        try:
            with open(fd, "wb") as file:
                fetched = self.fetch(url, file.write, digest=digest, progress=progress)
            os.chmod(part, 0o666 & ~_umask())
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise
        return fetched

    def head(self, url: str) -> Head:
        """What an http or https server says of a file, without the file. Raises FetchError."""
        found = Head(url)

        def begin(head: Head) -> Sink:
            nonlocal found
            found = head
            return _ignore

        self._http(self._wanted(parse(url), url, None, "HEAD"), url, begin)
        return found

    def stream(self, url: str, begin: Callable[[Head], Sink], part: tuple[int, int | None] | None = None) -> Head:
        """The octets of `url` into the sink that `begin` returns once the head is known.

        part  octets [start, stop), stop None for the end: asked for, but servers without ranges send the whole; the
              head tells. Of http and https only

        Raises FetchError, and what the sink raises, after which the rest is not read.
        """
        parsed = parse(url)
        match parsed.scheme:
            case "tftp":
                return self._tftp(parsed, url, begin)
            case "ftp":
                return self._ftp(parsed, url, begin)
            case _:
                return self._http(self._wanted(parsed, url, part, "GET"), url, begin)

    def ask(
        self, wanted: http_client.Wanted, sink: Sink, began: Callable[[http.Response], object] | None = None
    ) -> http.Response:
        """One request just as it is wanted, whatever the status of the answer, whose body goes into the sink.

        began: is told the head before the body comes. Raises FetchError where there is no answer, or no whole one; and
        what the sink raises, after which the rest is not read.
        """

        def begin(head: Head) -> Sink:
            if began is not None and run.response is not None:
                began(run.response)
            return sink

        run = _HttpRun(self, wanted, wanted.url, begin, any_status=True)
        try:
            run.go()
        finally:
            run.drop()
        assert run.response is not None
        return run.response

    def close(self) -> None:
        """Let go of the connections kept."""
        while self._kept:
            self._kept.popitem()[1][0].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- HTTP -----------------------------------------------------------------------------------------------------

    def _wanted(
        self, parsed: Url, url: str, part: tuple[int, int | None] | None, method: Literal["GET", "HEAD"]
    ) -> http_client.Wanted:
        options = self.options
        own = not parsed.username and options.username
        return http_client.Wanted(
            url,
            method,
            (("User-Agent", f"bootwire/{__version__}"), ("Accept", "*/*"), ("Accept-Encoding", "identity")),
            part,
            options.limit,
            int(options.idle * S),
            options.tries,
            proxy=options.proxies.for_url,
            username=options.username if own else "",
            password=options.password if own else "",
        )

    def _http(self, wanted: http_client.Wanted, url: str, begin: Callable[[Head], Sink]) -> Head:
        run = _HttpRun(self, wanted, url, begin)
        try:
            return run.go()
        finally:
            run.drop()

    def take(self, key: str) -> Stream | None:
        """A connection kept under `key`."""
        kept = self._kept.pop(key, None)
        if kept is None:
            return None
        if time.monotonic() - kept[1] > KEPT_SECONDS:
            kept[0].close()
            return None
        return kept[0]

    def keep(self, key: str, stream: Stream) -> None:
        """A connection fit for another request."""
        if (old := self._kept.pop(key, None)) is not None:
            old[0].close()
        self._kept[key] = stream, time.monotonic()
        while len(self._kept) > KEPT:
            self._kept.pop(next(iter(self._kept)))[0].close()

    def secure(self, stream: Stream, host: str) -> SecureStream:
        """TLS on `stream`, verified."""
        if self._context is None:
            self._context = client_context(self.options.trust)
        return SecureStream(stream, self._context, host)

    # --- TFTP -----------------------------------------------------------------------------------------------------

    def _tftp(self, parsed: Url, url: str, begin: Callable[[Head], Sink]) -> Head:
        name = re.sub(r";mode=[a-z]*$", "", _path(parsed))  # RFC 3617 section 3
        limit, idle = self.options.limit, int(self.options.idle * S)
        engine = tftp.Receiver(
            tftp.Wanted(name.encode("utf-8", "surrogateescape"), b"octet", TFTP_BLOCK, TFTP_WINDOW, limit=limit)
        )
        address, port = self._address(parsed, url), parsed.port
        datagrams = self.transport.datagrams(address)
        sink: Sink | None = None
        head = Head(url)
        now = quiet = time.monotonic_ns()
        try:
            packets = engine.start(now)
            while True:
                for packet in packets:
                    to = packet.to if isinstance(packet.to, tuple) else (address, port)
                    datagrams.sendto(packet.data, to)
                if (engine.octets or isinstance(engine.outcome, tftp.Received)) and sink is None:
                    head = Head(url, size=engine.size)
                    sink = begin(head)
                for payload in engine.take():
                    quiet = now
                    if sink is not None and payload:
                        sink(payload)
                if engine.outcome is not None:
                    # no waiting in case the last ACK was lost: a server that asks again learns that the port is closed
                    _tftp_verdict(url, engine)
                    return head
                if now - quiet > idle:
                    raise FetchError(url, "timeout", f"nothing came for {self.options.idle:g} s")
                packets, now = self._tftp_turn(engine, datagrams.recvfrom, datagrams.settimeout)
        except OSError as error:
            raise _as_fetch_error(url, error) from None
        finally:
            datagrams.close()

    def _tftp_turn(
        self, engine: tftp.Receiver, receive: Callable[[int], tuple[bytes, Address]], patience: Callable[[float], None]
    ) -> tuple[list[tftp.Packet], Ns]:
        now = time.monotonic_ns()
        due = engine.deadline if engine.deadline is not None else now
        patience(max(due - now, 1) / S)
        try:
            data, source = receive(65536)
        except (TimeoutError, BlockingIOError):
            now = time.monotonic_ns()
            return engine.tick(now), now
        now = time.monotonic_ns()
        return engine.receive(data, source[:2], now), now

    def _address(self, parsed: Url, url: str) -> str:
        try:
            return self.transport.resolve(parsed.host)[0]
        except OSError as error:
            raise _as_fetch_error(url, error) from None

    # --- FTP ------------------------------------------------------------------------------------------------------

    def _ftp(self, parsed: Url, url: str, begin: Callable[[Head], Sink]) -> Head:
        options = self.options
        address = self._address(parsed, url)
        run = _FtpRun(self.transport, address, parsed.port, options.idle, url, begin)
        username = parsed.username or options.username
        wanted = ftp.Wanted(_path(parsed), limit=options.limit, idle=int(options.idle * S))
        if username:
            wanted = replace(wanted, username=username, password=parsed.password or options.password)
        tries = 0
        while True:
            before, tries = run.octets, tries + 1
            try:
                return run.go(replace(wanted, start=run.octets))
            except FetchError as error:
                if run.octets > before:
                    tries = 1
                passing = error.why in ("connect", "closed", "timeout", "truncated")
                if not passing or tries >= options.tries or (run.octets and run.size is None):
                    raise
            time.sleep(BACK_OFF * 2 ** (tries - 1))


def fetch(url: str, sink: Sink, transport: Transport, options: Options | None = None, *, digest: str = "",
          progress: Progress | None = None) -> Fetched:  # fmt: skip
    """`Fetcher.fetch`, once."""
    with Fetcher(transport, options) as fetcher:
        return fetcher.fetch(url, sink, digest=digest, progress=progress)


def shown(url: str) -> str:
    """A URL without its user name and password, to be said or written down."""
    return re.sub(r"^([A-Za-z]*://)[^/?#]*@", r"\1", url)


def parse(url: str) -> Url:
    """Read a URL of a scheme that can be fetched. Raises FetchError."""
    try:
        return parse_url(url, FETCHED)
    except WireError as error:
        raise FetchError(url, "url", error.what) from None


# --- one HTTP answer --------------------------------------------------------------------------------------------


class _HttpRun:
    """Performs the effects of one `http_client.Fetch`."""

    def __init__(
        self,
        fetcher: Fetcher,
        wanted: http_client.Wanted,
        url: str,
        begin: Callable[[Head], Sink],
        *,
        any_status: bool = False,
    ) -> None:
        self.response: http.Response | None = None
        self._any_status = any_status
        self._fetcher, self._wanted, self._url, self._begin = fetcher, wanted, url, begin
        self._engine = http_client.Fetch(wanted, lambda: secrets.token_hex(16))
        self._stream: Stream | None = None
        self._key = ""
        self._heard = False  # something came on this connection
        self._endless = False  # the body lasts until the server closes
        self._opens = 0  # connections since the last octet of the body
        self._sink: Sink | None = None
        self._head = Head(url)
        self._trouble: FetchError | None = None  # the answer is an error page

    def go(self) -> Head:
        """Raises FetchError, and what the sink raises."""
        effects = deque(self._engine.start(time.monotonic_ns()))
        unread = 0
        while True:
            while effects:
                match effects.popleft():
                    case http_client.Open(host, port, key):
                        effects += self._open(host, port, key)
                    case http_client.Write(data):
                        effects += self._write(data)
                    case http_client.Secure(host):
                        effects += self._secure(host)
                    case http_client.Release(keep):
                        self._release(keep)
                    case http_client.Began() as began:
                        self._began(began)
                    case http_client.Body(data):
                        self._opens = 0
                        if self._sink is not None:
                            self._sink(data)
                            continue
                        unread += len(data)
                        if self._trouble is not None and unread > UNWANTED:
                            raise self._trouble
                    case http_client.Finished():
                        if self._trouble is not None:
                            raise self._trouble
                        return self._head
                    case http_client.Failed(why, detail):
                        raise self._trouble or FetchError(self._url, why, detail)
            effects += self._wait()

    def drop(self) -> None:
        """The connection, if there still is one, is of no use to anybody."""
        self._release(False)

    def _open(self, host: str, port: int, key: str) -> list[http_client.Effect]:
        self._release(False)
        self._key, self._heard = key, False
        kept = self._fetcher.take(key)
        if kept is not None:
            self._stream = kept
            return self._engine.opened(time.monotonic_ns(), reused=True)
        if self._opens:
            time.sleep(BACK_OFF * 2 ** (self._opens - 1))
        self._opens += 1
        try:
            self._stream = connect(self._fetcher.transport, host, port, self._wanted.idle / S)
        except OSError as error:
            why = f"{host} port {port}: {_reason(error)}"
            if self._sink is None:  # nothing is lost yet, and TCP has tried for long enough
                raise FetchError(self._url, "connect", why) from None
            return self._engine.unreachable(why, time.monotonic_ns())
        self._stream.settimeout(self._wanted.idle / S)
        return self._engine.opened(time.monotonic_ns())

    def _secure(self, host: str) -> list[http_client.Effect]:
        assert self._stream is not None
        try:
            self._stream = self._fetcher.secure(self._stream, host)
        except ssl.SSLCertVerificationError as error:
            raise FetchError(self._url, "connect", f"its certificate is not trusted: {error.verify_message}") from None
        except OSError as error:
            return self._engine.unreachable(f"{host}: TLS: {_reason(error)}", time.monotonic_ns())
        return self._engine.secured(time.monotonic_ns())

    def _write(self, data: bytes) -> list[http_client.Effect]:
        assert self._stream is not None
        try:
            self._stream.sendall(data)
        except OSError:
            return self._engine.closed(time.monotonic_ns())
        return []

    def _wait(self) -> list[http_client.Effect]:
        assert self._stream is not None
        due = self._engine.deadline
        if due is not None:
            self._stream.settimeout(max(due - time.monotonic_ns(), 1_000_000) / S)
        try:
            data = self._stream.recv(PIECE)
        except TimeoutError:
            return self._engine.tick(time.monotonic_ns())
        except OSError as error:
            if self._heard and self._endless:  # cut, and nobody said how long it is
                return self._engine.unreachable(_reason(error), time.monotonic_ns())
            return self._engine.closed(time.monotonic_ns())
        now = time.monotonic_ns()
        if not data:
            return self._engine.closed(now)
        self._heard = True
        return self._engine.receive(data, now)

    def _began(self, began: http_client.Began) -> None:
        status, headers = began.response.status, began.response.headers
        self._endless = began.size is None and "transfer-encoding" not in headers
        self.response = began.response
        if self._any_status:
            self._sink = self._begin(self._head)
            return
        if status not in (200, 206):
            self._trouble = _status_error(self._url, status)
            return
        start, size = 0, began.size
        if status == 206:
            start, size = _whole(headers.get("content-range", ""), self._wanted)
        self._head = Head(
            began.url,
            status == 206,
            start,
            size,
            headers.get("content-type", "").partition(";")[0].strip().lower(),
            http.parse_date(headers.get("last-modified", "")),
            headers.get("etag", "") or headers.get("last-modified", ""),
            status == 206 or "bytes" in headers.get("accept-ranges", "").lower(),
        )
        self._sink = self._begin(self._head)

    def _release(self, keep: bool) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if keep:
            self._fetcher.keep(self._key, stream)
        else:
            stream.close()


def _whole(content_range: str, wanted: http_client.Wanted) -> tuple[int, int | None]:
    """Where a 206 begins, and the octets of the whole. The engine has checked the first against what was asked."""
    _, _, total = content_range.partition("/")
    return (wanted.part or (0, None))[0], int(total) if total.isdigit() else None


def _status_error(url: str, status: int) -> FetchError:
    why = "missing" if status in (404, 410) else "denied" if status in (401, 403, 407) else "server"
    if status == 416:
        why = "range"
    return FetchError(url, why, f"{status} {http.REASONS.get(status, '')}".rstrip(), status)


# --- one FTP download -------------------------------------------------------------------------------------------


class _FtpRun:
    """Performs the effects of `ftp.Download`, which may be several in a row for one file.

    octets  of the file that the sink has; size: of the file, where the server told
    """

    def __init__(
        self, transport: Transport, address: str, port: int, idle: float, url: str, begin: Callable[[Head], Sink]
    ) -> None:
        self._transport, self._address, self._port, self._idle = transport, address, port, idle
        self._url, self._begin = url, begin
        self._sink: Sink | None = None
        self.octets = 0
        self.size: int | None = None

    def go(self, wanted: ftp.Wanted) -> Head:
        """Raises FetchError, and what the sink raises."""
        engine = ftp.Download(wanted)
        with contextlib.ExitStack() as stack:
            control = self._connect(self._port, stack)
            data: Stream | None = None
            effects = deque(engine.start(time.monotonic_ns()))
            flowing = False
            while True:
                while effects:
                    match effects.popleft():
                        case ftp.Write(octets):
                            with contextlib.suppress(OSError):  # what the server said last is still to be read
                                control.sendall(octets)
                        case ftp.OpenData(port):
                            try:
                                data = self._connect(port, stack)
                            except FetchError as error:
                                effects += engine.data_refused(error.detail)
                            else:
                                effects += engine.data_opened(time.monotonic_ns())
                        case ftp.Began(size):
                            self._know(size)
                            flowing = data is not None
                        case ftp.Finished():
                            return Head(self._url, size=self.octets)
                        case ftp.Failed(why, detail):
                            raise FetchError(self._url, why, detail)
                if flowing and data is not None:
                    piece = self._receive(data)
                    if piece is None:
                        effects += engine.tick(time.monotonic_ns())
                        continue
                    flowing = bool(piece)
                    effects += self._took(engine, piece)
                else:
                    said = self._receive(control)
                    if said is None:
                        effects += engine.tick(time.monotonic_ns())
                    else:
                        effects += engine.receive(said, time.monotonic_ns()) if said else engine.closed()

    def _took(self, engine: ftp.Download, piece: bytes) -> list[ftp.Effect]:
        if not piece:
            return engine.data_closed(time.monotonic_ns())
        effects = engine.data(len(piece), time.monotonic_ns())
        if not effects and self._sink is not None:
            self.octets += len(piece)
            self._sink(piece)
        return effects

    def _know(self, size: int | None) -> None:
        if self._sink is None:
            self.size = size
            self._sink = self._begin(Head(self._url, size=size))
        elif size != self.size:
            raise FetchError(self._url, "changed", "the file changed on the server meanwhile")

    def _connect(self, port: int, stack: contextlib.ExitStack) -> Stream:
        try:
            made = self._transport.stream(self._address, port, self._idle)
        except OSError as error:
            raise FetchError(self._url, "connect", f"{self._address} port {port}: {_reason(error)}") from None
        stack.callback(made.close)
        made.settimeout(self._idle)
        return made

    def _receive(self, stream: Stream) -> bytes | None:
        """None: nothing came in time."""
        try:
            return stream.recv(PIECE)
        except TimeoutError:
            return None
        except OSError as error:
            raise FetchError(self._url, "truncated", _reason(error)) from None


# --- helpers ----------------------------------------------------------------------------------------------------


def _path(parsed: Url) -> str:
    """The name in a tftp or ftp URL: without the slash that ends the host (RFC 1738 section 3.2.2), decoded."""
    raw = parsed.target.removeprefix("/").encode("ascii")
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes((int(m[1], 16),)), raw).decode("utf-8", "surrogateescape")


def _tftp_verdict(url: str, engine: tftp.Receiver) -> None:
    """Raises FetchError unless the file is whole."""
    match engine.outcome:
        case tftp.Denied(code, text):
            why = {tftp_wire.NOT_FOUND: "missing", tftp_wire.ACCESS: "denied"}.get(code, "server")
            raise FetchError(url, why, f"TFTP error {code}: {printable(text)}")
        case tftp.Broken(because):
            raise FetchError(url, "too big" if "limit" in because or "a file of" in because else "malformed", because)
        case tftp.Silence(octets):
            raise FetchError(url, "timeout", f"the server fell silent after {octets} octets")
        case _ if engine.size is not None and engine.octets != engine.size:
            raise FetchError(url, "truncated", f"{engine.octets} of {engine.size} octets")


def _as_fetch_error(url: str, error: OSError) -> FetchError:
    return error if isinstance(error, FetchError) else FetchError(url, "connect", _reason(error))


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError | socket.timeout):
        return "no answer in time"
    return printable(error.strerror or str(error) or type(error).__name__)


_DIGESTS: Final = {64: "sha256", 96: "sha384", 128: "sha512"}


def _parse_digest(url: str, text: str) -> tuple[str, str] | None:
    """(algorithm, digits) of what `fetch` takes; None for "". Raises FetchError."""
    if not text:
        return None
    name, colon, digits = text.rpartition(":")
    digits = digits.lower()
    known = _DIGESTS.get(len(digits))
    if known is None or (colon and name.lower() != known) or not re.fullmatch(r"[0-9a-f]+", digits):
        raise FetchError(url, "digest", f"{printable(text)} is no SHA-256, SHA-384 or SHA-512 digest")
    return known, digits


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _ignore(data: bytes | memoryview) -> None:
    """A sink for what nobody wants."""
