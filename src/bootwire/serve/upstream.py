"""Octets that live at another server, on their way to a machine: streamed through, or out of the cache as they come.

The transfer loop hands the connection over with its request; here, in the control loop, the request goes to the
operator's URL and the answer comes back at the machine's own pace. Then the connection returns to the transfer loop.
An upstream that dies half-way is asked for the rest, where its answer had a validator to make sure it is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

from bootwire.engine import http as engine
from bootwire.facts import SizeProbed, TransferDone, TransferFailed, TransferStarted
from bootwire.serve.content import Record, Upstream
from bootwire.serve.growing import Reader
from bootwire.serve.upstreams import READ_SECONDS, UpstreamFailed, Upstreams, host_of
from bootwire.wire import http
from bootwire.wire.text import printable

if TYPE_CHECKING:
    import aiohttp

STREAMS = 1024  # at a time; further machines are told to come back (iPXE honours Retry-After)
STALL_SECONDS = 30.0  # for a machine to take one PIECE
LINGER_SECONDS = 2.0
PIECE = 64 * 1024  # octets handed to the kernel at once
FILE_PIECE = 256 * 1024  # the same, out of a file: no machine holds up another for longer
RESUMES = 5  # attempts in a row without one new octet
RESUME_SECONDS = 0.25  # before the first attempt; doubles with each

_TO_UPSTREAM = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
_TO_MACHINE = ("ETag", "Last-Modified", "Accept-Ranges", "Content-Range")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)")


class Streamer:
    """Answers requests out of operator's URLs. `take` is a HandOver (serve/http.py), callable from any thread.

    give_back  takes a connection whose answer is out and the octets read beyond it, in the control loop

    upstreams  how other servers are asked
    """

    def __init__(
        self,
        control: asyncio.AbstractEventLoop,
        record: Record,
        give_back: Callable[[socket.socket, bytes], None],
        upstreams: Upstreams | None = None,
    ) -> None:
        self._control = control
        self._record = record
        self._give_back = give_back
        self._upstreams = upstreams or Upstreams()
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[_Stream] = set()
        self._closed = False

    def take(self, sock: socket.socket, request: http.Request, upstream: Upstream, leftover: bytes) -> None:
        """Answer `request` on `sock` with what `upstream` has. The socket is non-blocking and ours from now on."""
        self._control.call_soon_threadsafe(self._start, sock, request, upstream, leftover)

    def progress(self) -> list[tuple[str, str, str, int]]:
        """(machine, "http", name, octets so far) of each stream under way. In the control loop."""
        return [stream.progress() for stream in self._streams]

    async def close(self) -> None:
        """End every stream under way and close what is open."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upstreams.close()

    def _start(self, sock: socket.socket, request: http.Request, upstream: Upstream, leftover: bytes) -> None:
        if self._closed:
            sock.close()
            return
        task = self._control.create_task(self._run(sock, request, upstream, leftover))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._control.call_exception_handler({"message": "streaming from an upstream", "exception": error})

    async def _run(self, sock: socket.socket, request: http.Request, upstream: Upstream, leftover: bytes) -> None:
        stream = _Stream(self._upstreams, self._record, sock, request, upstream)
        self._streams.add(stream)
        try:
            if len(self._tasks) > STREAMS:
                await stream.refuse(503, f"{STREAMS} machines are being served from other servers already")
            else:
                await stream.answer()
            if not stream.keep:
                await stream.linger()
                return
        except _Broken as error:
            stream.fail(str(error))
        except asyncio.CancelledError:
            stream.fail("the server stopped")
            raise
        except BaseException:
            stream.fail("a mistake of this server")
            raise
        else:
            self._give_back(sock, leftover)
        finally:
            self._streams.discard(stream)


class _Broken(Exception):
    """The answer cannot be finished; the text says why."""


class _Stream:
    """One request on its way up and its answer on the way down.

    keep     the connection may be used again; False once anything is amiss
    octets   of content that the kernel took for the machine
    """

    def __init__(
        self,
        upstreams: Upstreams,
        record: Record,
        sock: socket.socket,
        request: http.Request,
        upstream: Upstream,
    ) -> None:
        self.keep = engine.keeps(request)
        self.octets = 0
        self._upstreams = upstreams
        self._record = record
        self._sock = sock
        self._request = request
        self._upstream = upstream
        self._host = host_of(upstream.url)
        try:
            self._peer = sock.getpeername()[0]
        except OSError:  # reset meanwhile; the first send finds out
            self._peer = ""
        self._began = time.monotonic()

    async def answer(self) -> None:
        """Raises _Broken."""
        if self._upstream.kept is not None:
            try:
                reader = await self._upstream.kept()
            except UpstreamFailed as error:
                await self.refuse(502, str(error))
                return
            if reader is not None:
                with contextlib.closing(reader):
                    await self._follow(reader)
                return
        passed = {name: self._request.headers[name] for name in _TO_UPSTREAM if name in self._request.headers}
        if "," in passed.get("range", ""):
            del passed["range"]  # several parts would come as multipart; the whole is as good an answer
        try:
            response = await self._ask(self._request.method, passed)
            if self._request.method == "HEAD" and response.status >= 400 and response.status not in _PASSED:
                response.close()  # some servers sign URLs for one method only
                response = await self._ask("GET", passed)
            if response.status not in _PASSED:
                response.close()
                raise UpstreamFailed(f"answers {response.status} {printable(response.reason or '')}")
            first, length = _extent(response)
        except UpstreamFailed as error:
            await self.refuse(502, f"{self._host} {error}")
            return
        if self._request.method == "HEAD" or response.status not in (200, 206):
            response.close()
            await self._send(self._head(response, length, chunked=False))
            if response.status == 200:
                self._record(
                    SizeProbed(self._upstream.machine, self._upstream.name, self._peer, max(0, length), "http")
                )
            return
        try:
            await self._stream(response, first, length)
        finally:
            response.close()

    def progress(self) -> tuple[str, str, str, int]:
        return self._upstream.machine, "http", self._upstream.name, self.octets

    async def refuse(self, status: int, because: str) -> None:
        """Answer with an error. Raises _Broken."""
        body = f"{because}\n".encode()
        fields = [("Date", http.format_date(time.time())), ("Content-Type", "text/plain")]
        fields += [("Content-Length", str(len(body))), *engine.connection_field(self._request)]
        if status == 503:
            fields.append(("Retry-After", "5"))
        head = http.emit_head(status, fields)
        await self._send(head if self._request.method == "HEAD" else head + body)
        self._tell_failed(because)

    def fail(self, because: str) -> None:
        """End it with a reset, which tells the machine that the answer is not whole."""
        self.keep = False
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
        self._tell_failed(because)

    async def linger(self) -> None:
        """Close, but not before the machine has had time to read the answer."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER_SECONDS):
                while await loop.sock_recv(self._sock, PIECE):
                    pass
        self._sock.close()

    # --- down to the machine --------------------------------------------------------------------------------------

    async def _stream(self, response: aiohttp.ClientResponse, first: int, length: int) -> None:
        machine, name = self._upstream.machine, self._upstream.name
        self._record(TransferStarted(machine, "http", name, self._peer, length, f"streamed from {self._host}"))
        chunked = length < 0 and self._request.version == 11
        self.keep = self.keep and (length >= 0 or chunked)
        try:
            async with contextlib.aclosing(self._octets(response, first, length)) as octets:
                await self._send(self._head(response, length, chunked))
                async for piece in octets:
                    await self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    self.octets += len(piece)
        except UpstreamFailed as error:
            raise _Broken(f"{self._host} {error}") from None
        if chunked:
            await self._send(b"0\r\n\r\n")
        seconds = time.monotonic() - self._began
        self._record(TransferDone(machine, "http", name, self._peer, self.octets, seconds))

    async def _follow(self, reader: Reader) -> None:
        """Send what comes into the cache, as it comes."""
        image, machine, name = reader.growing, self._upstream.machine, self._upstream.name
        date, media_type = http.format_date(time.time()), self._upstream.media_type
        at, stop, chunked = 0, image.whole, False
        if image.whole >= 0:
            answer = engine.answer(self._request, date, image.whole, media_type, image.etag, image.modified)
            status, head, at, stop = answer.status, answer.head, answer.start, answer.stop
        else:
            chunked = self._request.version == 11
            self.keep = self.keep and chunked
            fields = [("Date", date), ("Server", "bootwire"), ("Content-Type", media_type)]
            fields += [("Transfer-Encoding", "chunked")] if chunked else []
            fields += engine.connection_field(self._request) if self.keep else [("Connection", "close")]
            status, head = 200, http.emit_head(200, fields)
        if self._request.method == "HEAD" or status not in (200, 206):
            await self._send(head)
            if status == 200:
                self._record(SizeProbed(machine, name, self._peer, max(0, image.whole), "http"))
            return
        because = f"as it comes from {self._host}, into the cache"
        self._record(TransferStarted(machine, "http", name, self._peer, stop - at if stop >= 0 else -1, because))
        await self._send(head)
        while stop < 0 or at < stop:
            try:
                here = await image.past(at)
            except UpstreamFailed as error:
                raise _Broken(str(error)) from None
            if here <= at and stop < 0:
                break
            until = min(here, at + FILE_PIECE, *([stop] if stop >= 0 else []))
            await self._send(b"%x\r\n" % (until - at) if chunked else b"")
            await self._send_file(reader.file, at, until - at)
            await self._send(b"\r\n" if chunked else b"")
            self.octets += until - at
            at = until
        await self._send(b"0\r\n\r\n" if chunked else b"")
        self._record(TransferDone(machine, "http", name, self._peer, self.octets, time.monotonic() - self._began))

    def _head(self, response: aiohttp.ClientResponse, length: int, chunked: bool) -> bytes:
        fields = [("Date", http.format_date(time.time())), ("Server", "bootwire")]
        if response.status in (200, 206):
            fields.append(("Content-Type", self._upstream.media_type))
        if length >= 0:
            fields.append(("Content-Length", str(length)))
        elif chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        for name in _TO_MACHINE:
            value = response.headers.get(name, "")
            if value and value.isascii() and value.isprintable():
                fields.append((name, value))
        connection = engine.connection_field(self._request) if self.keep else [("Connection", "close")]
        return http.emit_head(response.status, fields + connection)

    async def _send(self, data: bytes) -> None:
        loop, view = asyncio.get_running_loop(), memoryview(data)
        try:
            while view:
                async with asyncio.timeout(STALL_SECONDS):
                    await loop.sock_sendall(self._sock, view[:PIECE])
                view = view[PIECE:]
        except TimeoutError:
            raise _Broken(f"the machine took next to nothing for {STALL_SECONDS:.0f} s") from None
        except OSError:
            raise _Broken("the machine closed the connection") from None

    async def _send_file(self, file: BinaryIO, at: int, octets: int) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await asyncio.get_running_loop().sock_sendfile(self._sock, file, at, octets)
        except TimeoutError:
            raise _Broken(f"the machine took next to nothing for {STALL_SECONDS:.0f} s") from None
        except OSError:
            raise _Broken("the machine closed the connection") from None

    def _tell_failed(self, because: str) -> None:
        machine, name, seconds = self._upstream.machine, self._upstream.name, time.monotonic() - self._began
        self._record(TransferFailed(machine, "http", name, self._peer, self.octets, seconds, because))

    # --- up to the upstream ---------------------------------------------------------------------------------------

    async def _ask(self, method: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Raises UpstreamFailed."""
        return await self._upstreams.ask(method, self._upstream.url, headers, trusted=self._upstream.trusted)

    async def _octets(self, response: aiohttp.ClientResponse, first: int, length: int) -> AsyncGenerator[bytes, None]:
        """The answer's octets, if need be out of several answers. Raises UpstreamFailed."""
        import aiohttp

        validator = _validator(response)
        got = tries = 0
        while True:
            why = "ended too early"
            try:
                async for piece in response.content.iter_any():
                    tries = 0
                    got += len(piece)
                    yield piece
                if length < 0 or got >= length:
                    return
            except TimeoutError:
                why = f"sent nothing for {READ_SECONDS:.0f} s"
            except (aiohttp.ClientError, OSError):
                why = "broke the connection"
            finally:
                response.close()
            if length < 0 or not validator:
                raise UpstreamFailed(f"{why}, and cannot be asked for the rest")
            rest = None
            while rest is None:
                if tries == RESUMES:
                    raise UpstreamFailed(why)
                await asyncio.sleep(RESUME_SECONDS * 2**tries)
                tries += 1
                try:
                    rest = await self._rest(first + got, first + length - 1, validator)
                except UpstreamFailed as error:
                    why = str(error)
            response = rest

    async def _rest(self, first: int, last: int, validator: str) -> aiohttp.ClientResponse:
        """Ask for octets `first` to `last`. Raises UpstreamFailed: not now; _Broken: not at all."""
        response = await self._ask("GET", {"Range": f"bytes={first}-{last}", "If-Range": validator})
        said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == 206 and said is not None and (int(said[1]), int(said[2])) == (first, last):
            return response
        response.close()
        why = f"answers {response.status} when asked for the rest"
        if response.status >= 500:
            raise UpstreamFailed(why)
        raise _Broken(f"{self._host} {why}")


_PASSED = (200, 206, 304, 412, 416)


def _extent(response: aiohttp.ClientResponse) -> tuple[int, int]:
    """First octet and number of octets of the answer's content; -1 where the upstream does not say how many."""
    length = response.content_length
    if response.status in (412, 416):
        return 0, 0
    if response.status != 206:
        return 0, -1 if length is None or response.status == 304 else length
    said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if said is None or int(said[2]) - int(said[1]) + 1 != length:
        response.close()
        raise UpstreamFailed("answers with a part that it does not describe")
    return int(said[1]), length


def _validator(response: aiohttp.ClientResponse) -> str:
    """What If-Range can hold (RFC 9110 section 13.1.5): a strong tag, else a date, else ""."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
