"""What happens, as server-sent events (HTML standard, section 9.2): encoded once, sent to whoever looks.

A reader gets everything there is, then what changes, gathered over a moment. One that takes too little too slowly is
let go of: its browser comes back by itself and begins with everything again. So what waits is bounded, and neither a
sleeping tab nor two hundred machines that boot at once cost more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from bootwire.facts import Record, StateChanged, TransferDone
from bootwire.observe import prose

EVERY = 0.25
"""Seconds that changes gather: four pictures a second, a quarter of a second behind at most."""

READERS = 64
"""Who may look at once."""

WAITING = 4 << 20
"""Octets that may wait for one reader: two full pictures of 1,024 machines and some changes."""

LOG = 500
"""Lines of the journal that a new reader gets."""

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class Hub:
    """Gathers and sends. `take` is for the journal's thread, the rest for the control loop.

    briefs, changes  every machine's last boot in one line; those that changed since the last call
    """

    def __init__(self, briefs: Callable[[], list[Json]], changes: Callable[[], list[Json]]) -> None:
        self._briefs = briefs
        self._changes = changes
        self._readers: set[_Reader] = set()
        self._fresh: deque[Record] = deque(maxlen=LOG)
        self._log: deque[Record] = deque(maxlen=LOG)
        self._octets = 0
        self._states = 0
        self._closed = False
        self.dropped = 0
        """Readers that were let go of because they were too slow."""

    def take(self, record: Record) -> None:
        """A record of the journal. It is put into words only when somebody sees it: a storm brings far more."""
        fact = record.fact
        if type(fact) is TransferDone:
            self._octets += fact.octets
        elif type(fact) is StateChanged:
            self._states += 1
        if prose.is_milestone(fact):
            self._fresh.append(record)

    def log(self) -> list[Json]:
        """The last lines of the journal, the oldest first."""
        self._gather()
        return [_line(record) for record in self._log]

    async def run(self) -> None:
        """Send what changes, until cancelled."""
        beat = 0.0
        while True:
            await asyncio.sleep(EVERY)
            fresh = self._gather()
            if not self._readers:
                continue
            events = []
            if changed := self._changes():
                events.append(_event("boots", changed))
            if fresh:
                events.append(_event("log", [_line(record) for record in fresh]))
            now = time.monotonic()
            if events or now - beat >= 1:
                beat = now
                events.append(_event("now", self._now()))
            if events:
                data = b"".join(events)
                for reader in list(self._readers):
                    if not reader.put(data):
                        self.dropped += 1
                        self._readers.discard(reader)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """GET /api/live"""
        if len(self._readers) >= READERS or self._closed:
            raise web.HTTPServiceUnavailable(text=f"{READERS} are looking already\n", headers={"Retry-After": "5"})
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        reader = _Reader()
        reader.put(b"retry: 1500\n\n")
        reader.put(_event("all", {"now": self._now(), "boots": self._briefs(), "log": self.log()}))
        self._readers.add(reader)
        try:
            await response.prepare(request)
            while (data := await reader.get()) is not None:
                await response.write(data)
        except ConnectionError:
            pass
        finally:
            self._readers.discard(reader)
        with contextlib.suppress(ConnectionError, RuntimeError):
            await response.write_eof()
        return response

    def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        for reader in self._readers:
            reader.end()
        self._readers.clear()

    def _now(self) -> Json:
        """The clock, and what is counted. states: changes of boot states, so that a page knows when to ask for them."""
        return {"wall": round(time.time(), 3), "octets": self._octets, "states": self._states}

    def _gather(self) -> list[Record]:
        """What came since the last call."""
        fresh: list[Record] = []
        while self._fresh:
            fresh.append(self._fresh.popleft())
        self._log.extend(fresh)
        return fresh


class _Reader:
    """What waits for one reader."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._more = asyncio.Event()
        self._ended = False

    def put(self, data: bytes) -> bool:
        """False: too much waits already, and this reader is ended."""
        if self._octets + len(data) > WAITING and self._waiting:
            self.end()
            return False
        self._waiting.append(data)
        self._octets += len(data)
        self._more.set()
        return True

    async def get(self) -> bytes | None:
        """All that waits, None at the end."""
        await self._more.wait()
        self._more.clear()
        if self._ended:
            return None
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._octets = 0
        return data

    def end(self) -> None:
        self._ended = True
        self._waiting.clear()
        self._octets = 0
        self._more.set()


def _line(record: Record) -> Json:
    fact = record.fact
    step, address, text = prose.parts(fact)
    return {
        "wall": round(record.wall, 3), "machine": fact.machine, "address": address, "step": step, "text": text,
        "kind": fact.kind, "state": getattr(fact, "state", ""),
    }  # fmt: skip


def _event(name: str, data: object) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + _encode(data) + b"\n\n"
