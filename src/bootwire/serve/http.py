"""HTTP in the transfer loop: files out by sendfile in fair turns, small ones from memory, everything bounded.

Descriptors are watched edge-triggered, once for each connection. Octets go out in turns: the first one at once, when
its request has been read (so that new machines see their first octet before old ones see their next megabyte), the
others from two queues, young and old, a slice of both between two looks at the network.

One long file: the server's half is who may stay and whose turn it is, the connection's half is what one peer gets, and
each step of the one is a step of the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from bootwire.engine import MS, Ns, S
from bootwire.engine import http as engine
from bootwire.facts import NotFound, Refused, SizeProbed, TransferDone, TransferFailed, TransferStarted, Warned
from bootwire.serve.brake import Brake
from bootwire.serve.content import (
    SHORTAGES,
    Content,
    HttpResolver,
    Later,
    Missing,
    Peer,
    Record,
    RecordMade,
    Reply,
    Upstream,
)
from bootwire.serve.loop import ERR, HUP, IN, OUT, RDHUP, Loop
from bootwire.serve.prepared import PreparedAnswers
from bootwire.wire import http
from bootwire.wire.text import printable

HandOver = Callable[[socket.socket, http.Request, Upstream | Later, bytes], None]
"""Takes a connection whose request somebody else answers, with the octets that were read beyond that request."""

READ = 16 * 1024  # octets a recv: more than any firmware's head
BACKLOG = 4096  # connections the kernel may hold for us; it cuts this to net.core.somaxconn
ACCEPTS = 64  # connections accepted before the others get their turn again
PIPELINE = 32  # requests answered out of one read before the others get their turn again
YOUNG = 1024 * 1024  # octets of an answer during which it is young
YOUNG_TURN = 128 * 1024
OLD_TURN = 512 * 1024
SLICE = 512 * 1024  # octets between two looks at the network: some hundred microseconds on loopback
SMALL = 64 * 1024  # octets up to which a file is kept in memory, ready to send
LINGER: Ns = 2 * S  # how long a closed connection is drained, so that a reset does not overtake the answer
DRAIN = 256 * 1024  # octets drained at most
REFUSALS = 20  # facts a second
MISSES = 500  # facts a second: a thousand machines may each look for a few optional files
ACCEPT_PAUSE: Ns = 100 * MS  # how long nothing is accepted when descriptors or memory ran out


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server spends on its peers.

    connections  at most so many; the next one replaces the oldest that has not yet sent a whole request, else the one
                 that is idle longest; when all are in use it waits in the kernel's queue
    slow         connections from one address that may owe their first request for longer than `grace`; any number of
                 machines behind one address is fine as long as they say what they want
    head         how long a whole request head may take (engine/http.py has why)
    idle         how long a connection may say nothing between requests
    stall        a peer that takes nothing of an answer for so long is given up, at the latest after twice as long
    """

    connections: int = 2048
    slow: int = 64
    grace: Ns = 5 * S
    head: Ns = engine.HEAD_TIME
    idle: Ns = engine.IDLE_TIME
    stall: Ns = 15 * S


class HttpServer:
    """Answers GET and HEAD on every address given, with what `resolve` finds.

    Binds at once: OSError says which address cannot be had, before anything is served. `addresses` are the ones
    bound. Everything but `__init__` runs in the loop's thread.
    """

    def __init__(
        self,
        loop: Loop,
        listen: Iterable[tuple[str, int]],
        resolve: HttpResolver,
        record: Record,
        hand_over: HandOver | None = None,
        limits: Limits = Limits(),
        wall: Callable[[], float] = time.time,
        record_made: RecordMade | None = None,
    ) -> None:
        self.loop = loop
        self.resolve = resolve
        self.record = record
        self.hand_over = hand_over
        self.limits = limits
        self.record_made: RecordMade = record_made or (lambda kind, *values: record(kind(*values)))
        self.known: dict[bytes, http.Request] = {}  # for the connections' engines
        self.prepared = PreparedAnswers(wall)
        self._connections: set[_Connection] = set()
        self._fresh: OrderedDict[_Connection, None] = OrderedDict()
        self._fresh_at: dict[str, OrderedDict[_Connection, None]] = {}
        self._young: deque[_Connection] = deque()
        self._old: deque[_Connection] = deque()
        self._turns_due = False
        self._sweeping = False
        self._sweep_time = min(S, limits.head, limits.idle, limits.stall)
        self._accepting = True
        self.stopping = False
        self._stopped: Callable[[], None] | None = None
        self._refusals = Brake(loop, record, "http", REFUSALS)
        self._misses = Brake(loop, record, "http", MISSES)
        self._listeners: list[socket.socket] = []
        try:
            for address, port in listen:
                self._listeners.append(_listen(address, port))
        except OSError:
            self._close_listeners()
            raise
        self.addresses: list[tuple[str, int]] = [sock.getsockname()[:2] for sock in self._listeners]
        for sock in self._listeners:
            loop.watch(sock.fileno(), IN, self._accept_from(sock))

    def __len__(self) -> int:
        """Connections open."""
        return len(self._connections)

    def progress(self) -> list[tuple[str, str, str, int]]:
        """(machine, "http", name, octets so far) of each transfer under way."""
        return [(c.content.machine, "http", c.content.name, c.offset - c.start) for c in self._connections if c.content]

    def adopt(self, sock: socket.socket, leftover: bytes, request: http.Request | None = None) -> None:
        """Take a connection back from `hand_over`; `leftover` is what was read beyond the request.

        request: still to be answered, now that what it was waiting for is known; None: it has its answer.
        """
        if self.stopping:
            sock.close()
            return
        try:
            address, port = sock.getpeername()[:2]
        except OSError:  # reset meanwhile
            sock.close()
            return
        connection = _Connection(self, sock, address, port, self.loop.now)
        self._add(connection)
        connection.carry_on(leftover, self.loop.now, request)

    def stop(self, done: Callable[[], None]) -> None:
        """Accept nothing more, end idle connections, let transfers finish; then call `done`, once."""
        self.stopping = True
        self._stopped = done
        self._close_listeners()
        for connection in list(self._connections):
            if connection.state != BUSY:
                connection.close()
        self._stopped_yet()

    def close(self) -> None:
        """End everything now; transfers under way are recorded as failed."""
        self.stopping = True
        self._close_listeners()
        for connection in list(self._connections):
            connection.fail("the server stopped")
        self.prepared.clear()

    # --- connections ----------------------------------------------------------------------------------------------

    def _accept_from(self, listener: socket.socket) -> Callable[[int, Ns], None]:
        def accept(_: int, now: Ns) -> None:
            for _ in range(ACCEPTS):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno not in SHORTAGES:
                        continue  # the error of one connection that is no more: on with the next
                    if not _readable(listener):
                        return  # nobody waits: accept(2) takes its descriptor before it looks
                    if not self._make_room(now):
                        self.warn_shortage(error, now)
                        self._accept_later(now + ACCEPT_PAUSE)
                        return
                    continue
                full = len(self._connections) >= self.limits.connections and not self._make_room(now)
                sock.setblocking(False)
                self._add(connection := _Connection(self, sock, address[0], address[1], now))
                self._count_fresh(connection, now)
                if full:
                    self._accept_later(None)
                    return

        return accept

    def _add(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self.loop.watch(connection.fd, IN | OUT | RDHUP | select.EPOLLET, connection.event)
        if not self._sweeping:
            self._sweeping = True
            self.loop.at(self.loop.now + self._sweep_time, self._sweep)

    def _count_fresh(self, connection: _Connection, now: Ns) -> None:
        self._fresh[connection] = None
        same = self._fresh_at.setdefault(connection.address, OrderedDict())
        same[connection] = None
        if len(same) > self.limits.slow:
            oldest = next(iter(same))
            if now - oldest.began >= self.limits.grace and oldest.owes_a_request(now):
                self.refused(oldest.address, "too many connections without a request", b"")
                oldest.close()

    def proven(self, connection: _Connection) -> None:
        """Its first whole request has come, or it is gone: it no longer counts as fresh."""
        if self._fresh.pop(connection, self) is None:
            same = self._fresh_at[connection.address]
            del same[connection]
            if not same:
                del self._fresh_at[connection.address]

    def is_fresh(self, connection: _Connection) -> bool:
        return connection in self._fresh

    def forget(self, connection: _Connection) -> None:
        """The connection is closed or somebody else's now."""
        self._connections.discard(connection)
        self.proven(connection)
        self.loop.unwatch(connection.fd)
        if not self._accepting:
            self._accept_again()
        self._stopped_yet()

    def _make_room(self, now: Ns) -> bool:
        while self._fresh:
            connection = next(iter(self._fresh))
            if connection.owes_a_request(now):
                self.refused(connection.address, "no request yet, and its place was needed", b"")
                connection.close()
                return True
        idle = [connection for connection in self._connections if connection.state != BUSY]
        if idle:
            min(idle, key=lambda connection: connection.deadline).close()
        return bool(idle)

    def _accept_later(self, due: Ns | None) -> None:
        """Leave new connections in the kernel's queue until `due`, or until a connection ends."""
        if self._accepting:
            self._accepting = False
            for sock in self._listeners:
                self.loop.unwatch(sock.fileno())
        if due is not None:
            self.loop.at(due, lambda _: self._accept_again())

    def _accept_again(self) -> None:
        if not self._accepting:
            self._accepting = True
            for sock in self._listeners:
                self.loop.watch(sock.fileno(), IN, self._accept_from(sock))

    def _close_listeners(self) -> None:
        for sock in self._listeners:
            self.loop.unwatch(sock.fileno())
            sock.close()
        self._listeners.clear()

    def _stopped_yet(self) -> None:
        if self._stopped is not None and not self._connections:
            done, self._stopped = self._stopped, None
            done()

    def _sweep(self, now: Ns) -> None:
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.expire(now)
        self.prepared.close_unused(now)
        self._sweeping = bool(self._connections or self.prepared.holds_files)
        if self._sweeping:  # just when a second begins, so that no request waits for a new Date
            self.loop.at(min(now + self._sweep_time, self.prepared.until(now)), self._sweep)

    # --- turns ----------------------------------------------------------------------------------------------------

    def queue(self, connection: _Connection) -> None:
        """Give the connection a turn soon."""
        (self._young if connection.young else self._old).append(connection)
        if not self._turns_due:
            self._turns_due = True
            self.loop.next(self._take_turns)

    def _take_turns(self) -> None:
        self._turns_due = False
        young, old = self._young, self._old
        octets, now = 0, self.loop.now
        while octets < SLICE and (young or old):
            if young:
                octets += young.popleft().turn(now)
            if old:
                octets += old.popleft().turn(now)
        if (young or old) and not self._turns_due:
            self._turns_due = True
            self.loop.next(self._take_turns)

    # --- facts ----------------------------------------------------------------------------------------------------

    def refused(self, address: str, because: str, detail: bytes) -> None:
        self._refusals.tell(Refused("", "http", address, because, printable(detail)), self.loop.now)

    def missed(self, connection: _Connection, request: http.Request, found: Missing) -> None:
        fact = NotFound(found.machine, "http", printable(request.path), connection.address, found.because)
        self._misses.tell(fact, self.loop.now)

    def warn_shortage(self, error: OSError, now: Ns) -> None:
        what = f"HTTP cannot serve everybody now: {error.strerror}"
        self._refusals.tell(Warned("", what, "raise the limit: ulimit -n 8192"), now)


WAITING, BUSY, LINGERING, CLOSED = range(4)
"""A connection waits for a request, is answering one, is drained after its last answer, or is gone."""


class _Connection:
    """One accepted connection: an engine, a socket, and the answer under way.

    began     when it was accepted; while BUSY: when the request being answered had come
    head      octets to send before the content's
    content   what is being sent, for its octets and for the journal; None for answers that are no transfer
    start, offset, stop   of the content: first octet of the answer, next one, end
    unread    there may be octets to read
    ended     the peer has sent its last octet
    blocked   the kernel takes nothing until it says so
    untold    the fact that a transfer has begun: told after the first octets went out, which need not wait for it
    queued    octets the peer had not acknowledged when the deadline last came; -1 where it has not since then
    """

    __slots__ = (
        "address", "began", "blocked", "content", "deadline", "ended", "fd", "head", "http", "keep", "offset",
        "ours", "peer", "port", "queued", "resume", "server", "sock", "start", "state", "stop", "unread", "untold",
        "version", "view",
    )  # fmt: skip

    def __init__(self, server: HttpServer, sock: socket.socket, address: str, port: int, now: Ns) -> None:
        self.server = server
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.port = port
        self.peer: Peer | None = None
        self.ours = ("", 0)
        self.http = engine.Connection(now, server.limits.head, server.limits.idle, server.known)
        self.state = WAITING
        self.began = now
        self.deadline = self.http.deadline
        self.head: bytes | memoryview = b""
        self.content: Content | None = None
        self.view: memoryview | None = None
        self.version = (0, 0)
        self.start = self.offset = self.stop = 0
        self.keep = self.unread = self.ended = self.blocked = self.resume = False
        self.queued = 0
        self.untold: TransferStarted | None = None

    @property
    def young(self) -> bool:
        return self.offset - self.start < YOUNG

    def event(self, events: int, now: Ns) -> None:
        """The descriptor is ready."""
        if events & OUT and self.blocked:
            self.blocked = False
            self.server.queue(self)
        if events & (IN | RDHUP | HUP | ERR):
            self.unread = True
            if events & (RDHUP | HUP | ERR):
                self.ended = True
            if self.state == WAITING:
                self._read(now)
            elif self.state == LINGERING:
                self._drain()
            elif events & (HUP | ERR):
                self.fail("the machine reset the connection")

    def turn(self, now: Ns) -> int:
        """Send some of the answer; when it is out, go on with what the peer asks next. Returns octets of content."""
        if self.state != BUSY:
            return 0
        octets = 0
        if self.resume:
            self.resume = False
            self.state = WAITING
        else:
            octets = self._push(now)
        if self.state == WAITING:
            self._go(self.http.finish(now), now)
            self._read(now)
        return octets

    def carry_on(self, leftover: bytes, now: Ns, request: http.Request | None = None) -> None:
        """Start with octets, or a request, that somebody else has read."""
        self.unread = True
        if request is not None:
            self.http.sent_ahead(leftover)
            self._go(request, now)
        else:
            self._go(self.http.receive(leftover, now) if leftover else self.http.finish(now), now)
        self._read(now)

    def owes_a_request(self, now: Ns) -> bool:
        """Whether its first request is still not whole; what has come meanwhile is read, and answered if it is."""
        self.unread = True
        self._read(now)
        return self.server.is_fresh(self)

    def expire(self, now: Ns) -> None:
        """The deadline has come: close, unless the peer has done its part while we were not looking."""
        if self.state == WAITING:
            self.unread = True
            self._read(now)
            if self.state != WAITING or self.deadline > now:
                return
            if self.server.is_fresh(self):
                self.server.refused(self.address, "no whole request in time", self.http.leftover())
        if self.state != BUSY:
            self.close()
            return
        queued = _unacknowledged(self.fd)
        if self.blocked and 0 <= self.queued <= queued:
            self.fail(f"the machine took nothing for {self.server.limits.stall / S:.0f} s")
            return
        self.queued = queued
        self.deadline = now + self.server.limits.stall
        if self.blocked:
            self.blocked = False
            self.server.queue(self)

    def fail(self, because: str) -> None:
        """End it, whatever is under way; a reset tells the peer that the answer is not whole."""
        if self.state == BUSY:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if self.content is not None:
                self._tell_failed(self.content, because)
        self.close()

    def close(self) -> None:
        if self.state != CLOSED:
            self.state = CLOSED
            self.server.forget(self)
            self.sock.close()
            self._drop_content()

    # --- requests -------------------------------------------------------------------------------------------------

    def _read(self, now: Ns) -> None:
        while self.unread and self.state == WAITING:
            try:
                data = self.sock.recv(READ)
            except BlockingIOError:
                self.unread = False
                return
            except OSError:  # a reset between two requests is how UEFI HTTP Boot says goodbye
                self.close()
                return
            if not data:
                self.close()
                return
            self.unread = self.ended or len(data) == READ
            if not self._send_prepared(data, now):
                self._go(self.http.receive(data, now), now, data)

    def _go(self, result: http.Request | engine.Refusal | None, now: Ns, data: bytes = b"") -> None:
        """Answer `result` and what comes after it, until octets are missing or an answer is under way.

        data: what was read when it became whole
        """
        answered = 0
        while result is not None:
            if isinstance(result, engine.Refusal):
                self._refuse(result, now)
                return
            self._answer(result, now, data)
            if self.state != WAITING:
                return
            answered += 1
            if answered == PIPELINE:
                self.state = BUSY
                self.resume = True
                self.deadline = now + self.server.limits.stall
                self.server.queue(self)
                return
            result = self.http.finish(now)
        self.deadline = self.http.deadline

    def _answer(self, request: http.Request, now: Ns, data: bytes) -> None:
        server = self.server
        if self.peer is None:
            server.proven(self)
            self.ours = self.sock.getsockname()[:2]
            self.peer = Peer(self.address, self.port, self.ours[0])
        if request.authority and not self._is_us(request.authority):
            server.refused(self.address, "asked to be a proxy", request.authority.encode())
            self._say(request, 421, "this server is no proxy", now, keep=False)
            return
        try:
            found = server.resolve(request, self.peer)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in SHORTAGES:
                server.warn_shortage(error, now)
                self._reply(request, 503, [("Retry-After", "1"), ("Content-Length", "0")], b"", now, keep=False)
                return
            self._say(request, 500, "a mistake of this server", now, keep=False)
            raise
        if isinstance(found, Content):
            if found.size > SMALL or not engine.plain(request) or not self._send_small(request, found, now, data):
                self._send(request, found, now, data)
        elif isinstance(found, Reply):
            fields = [("Content-Type", found.media_type), ("Content-Length", str(len(found.body))), *found.headers]
            self._reply(request, found.status, fields, found.body, now)
        elif isinstance(found, Missing):
            server.missed(self, request, found)
            self._say(request, 403 if found.forbidden else 404, found.because, now)
        elif server.hand_over is None:
            self._say(request, 502, "nothing here fetches from other servers", now)
        else:
            sock, leftover = self.sock, self.http.leftover()
            self.state = CLOSED
            server.forget(self)
            server.hand_over(sock, request, found, leftover)

    def _is_us(self, authority: str) -> bool:
        host, _, port = authority.partition(":")
        return (host, port or "80") == (self.ours[0], str(self.ours[1]))

    def _refuse(self, refusal: engine.Refusal, now: Ns) -> None:
        self.server.proven(self)
        self.server.refused(self.address, refusal.because, refusal.detail)
        body = f"{refusal.because}\n".encode()
        fields = [
            ("Date", self.server.prepared.date(now)),
            ("Content-Type", "text/plain"),
            ("Content-Length", str(len(body))),
        ]
        if refusal.status == 405:
            fields.append(("Allow", ", ".join(engine.METHODS)))
        self._begin(http.emit_head(refusal.status, [*fields, ("Connection", "close")]) + body, now, keep=False)
        self._push(now)

    def _say(self, request: http.Request, status: int, text: str, now: Ns, keep: bool = True) -> None:
        body = f"{text}\n".encode()
        fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        self._reply(request, status, fields, body, now, keep)

    def _reply(
        self, request: http.Request, status: int, fields: list[tuple[str, str]], body: bytes, now: Ns, keep: bool = True
    ) -> None:
        connection = engine.connection_field(request) if keep else [("Connection", "close")]
        head = http.emit_head(status, [("Date", self.server.prepared.date(now)), *fields, *connection])
        self._begin(head if request.method == "HEAD" else head + body, now, keep and engine.keeps(request))
        self._push(now)

    # --- answers --------------------------------------------------------------------------------------------------

    def _send_small(self, request: http.Request, content: Content, now: Ns, data: bytes) -> bool:
        """Send small content whole, from memory; False: not possible, nothing was sent."""
        server = self.server
        response = server.prepared.whole(content, now)
        if response is None:
            return False
        if content.data is not None:
            self._keep(request, content, response, now, data)
        content.close()
        self._send_whole(response, content, content.machine, now)
        return True

    def _keep(self, request: http.Request, content: Content, response: bytes, now: Ns, data: bytes) -> None:
        """Have the answer ready for whoever sends the same octets, if they are all of a plain request to us."""
        if self.server.known.get(data) is request and not request.authority:
            self.server.prepared.put(data, content, response, now)

    def _send_prepared(self, data: bytes, now: Ns) -> bool:
        """Send what the same octets were answered with before; False: not possible, nothing was sent."""
        answers = self.server.prepared
        prepared = answers.get(data)
        if prepared is None or not self.http.idle or self.peer is None:
            return False
        machine = prepared.again(self.peer)
        if machine is None:
            answers.drop(data)
            return False
        content = prepared.content
        if content.data is None:
            try:
                content = content.another(machine)
            except OSError:  # no descriptor is left: looked up, it is told of
                return False
            self._begin(answers.response(prepared, now), now, keep=True)
            self._send_octets(content, 0, content.size, "", now)
        else:
            self.deadline = now + self.server.limits.idle
            self._send_whole(answers.response(prepared, now), content, machine, now)
        return True

    def _send_whole(self, response: bytes, content: Content, machine: str, now: Ns) -> None:
        try:
            sent = self.sock.send(response)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = -1
        if sent == len(response):
            seconds = (time.monotonic_ns() - now) / S
            self.server.record_made(TransferDone, machine, "http", content.name, self.address, content.size, seconds)
            return
        self._begin(response if sent < 0 else response[sent:], now, keep=True)
        self.content = replace(content, machine=machine)
        self.offset = self.stop = content.size
        self._push(now)

    def _send(self, request: http.Request, content: Content, now: Ns, data: bytes) -> None:
        """Send content as the request wants it: whole, a part, only its head, or a status."""
        server = self.server
        answer = engine.answer(
            request, server.prepared.date(now), content.size, content.media_type, content.etag, content.modified
        )
        self._begin(answer.head, now, engine.keeps(request))
        if answer.start < answer.stop or (answer.status == 200 and request.method == "GET"):
            if content.again and engine.plain(request):
                self._keep(request, content, answer.head, now, data)
            part = f"octets {answer.start}-{answer.stop - 1} of {content.size}" if answer.status == 206 else ""
            self._send_octets(content, answer.start, answer.stop, part, now)
            return
        if answer.status == 200:
            server.record(SizeProbed(content.machine, content.name, self.address, content.size, "http"))
        content.close()
        self._push(now)

    def _send_octets(self, content: Content, start: int, stop: int, part: str, now: Ns) -> None:
        """Send octets of content behind the head that `_begin` has sent."""
        self._take_content(content, start, stop)
        self.untold = TransferStarted(content.machine, "http", content.name, self.address, stop - start, part)
        self._push(now)

    def _begin(self, head: bytes, now: Ns, keep: bool) -> None:
        """Start an answer, and send its head before anything else is done for it: what follows takes a while."""
        self.state = BUSY
        self.head = head
        self.keep = keep
        self.began = now
        self.start = self.offset = self.stop = 0
        self.deadline = now + self.server.limits.stall
        self.queued = -1
        with contextlib.suppress(OSError):  # `_push` meets it again
            self.head = head[self.sock.send(head) :]

    def _take_content(self, content: Content, start: int, stop: int) -> None:
        self.content = content
        if content.data is not None:
            self.view = memoryview(content.data)
        elif start < stop:
            self.version = _version(content.fd)
        self.start = self.offset = start
        self.stop = stop

    def _drop_content(self) -> None:
        if self.content is not None:
            self.content.close()
            self.content = self.view = None

    def _push(self, now: Ns) -> int:
        """Send the next turn's octets; returns how many of the content's.

        A send that takes less than it was given means the same as one that takes nothing: the kernel says when there
        is room again (epoll(7), edge-triggered use).
        """
        octets = 0
        try:
            if self.head:
                sent = self.sock.send(self.head)
                self.blocked = sent < len(self.head)
                self.head = memoryview(self.head)[sent:] if self.blocked else b""
            if not self.blocked and self.offset < self.stop:
                octets = self._push_content()
            self.deadline = now + self.server.limits.stall
            self.queued = -1
        except BlockingIOError:
            self.blocked = True
        except OSError as error:
            self.fail(_why(error))
        if self.state != BUSY:
            return 0
        self._tell_started()
        if not self.blocked:
            if self.offset < self.stop:
                self.server.queue(self)
            else:
                self._complete(now)
        return octets

    def _complete(self, now: Ns) -> None:
        content = self.content
        if content is not None:
            seconds = (time.monotonic_ns() - self.began) / S
            self.server.record(
                TransferDone(content.machine, "http", content.name, self.address, self.stop - self.start, seconds)
            )
            self._drop_content()
        if self.keep and not self.server.stopping:
            self.state = WAITING
        else:
            self._linger(now)

    def _push_content(self) -> int:
        assert self.content is not None
        offset, left = self.offset, self.stop - self.offset
        count = YOUNG_TURN if offset - self.start < YOUNG else OLD_TURN
        if count > left:
            count = left
        if self.view is not None:
            sent = self.sock.send(self.view[offset : offset + count])
        else:
            sent = 0
            if count == left and self.content.still is not None:
                self.content.still()  # looked at now, so that who asks next need not wait for it
            if count < left or _version(self.content.fd) == self.version:
                sent = os.sendfile(self.fd, self.content.fd, offset, count)
            if not sent:  # nothing, and no EAGAIN either: there is less to send than there was
                self.fail("the file changed while it was sent")
                return 0
        self.offset = offset + sent
        self.blocked = sent < count
        return sent

    def _tell_started(self) -> None:
        if self.untold is not None:
            self.server.record(self.untold)
            self.untold = None

    def _tell_failed(self, content: Content, because: str) -> None:
        self._tell_started()
        octets = max(0, self.offset - self.start - len(self.head))
        seconds = (time.monotonic_ns() - self.began) / S
        self.server.record(
            TransferFailed(content.machine, "http", content.name, self.address, octets, seconds, because)
        )

    def _linger(self, now: Ns) -> None:
        self.state = LINGERING
        self.deadline = now + LINGER
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._drain()

    def _drain(self) -> None:
        for _ in range(DRAIN // READ):
            try:
                if not self.sock.recv(READ):
                    break
            except BlockingIOError:
                return
            except OSError:
                break
        self.close()


def _listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TCP: only lets us bind over TIME-WAIT
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _version(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def _unacknowledged(fd: int) -> int:
    """Octets the kernel holds that the peer has not acknowledged (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0])


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the machine closed the connection"
    return f"the network said: {error.strerror}"
