"""The journal: facts in from any thread, lines out at whatever pace the reader takes them.

Serving never waits for a reader. `record` stamps and queues; one thread makes lines and hands records to the
subscribers; another writes the lines, because a stopped terminal or a full pipe may hold a write up for ever. Each
queue is bounded: what does not fit is dropped, counted, and the count reported when there is room again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Sequence

from bootwire.facts import Fact, Record, Warned
from bootwire.observe import prose
from bootwire.serve import lines
from bootwire.serve.lines import Stamped
from bootwire.serve.loop import print_error, work_behind_others

CAPACITY = 16_384
"""Facts that wait: a tenth of a second of the most that small files make; at about 750 octets each some 12 MB."""

BATCH = 2048
"""Facts formatted for one write at most: a few milliseconds in which nobody else runs."""

PAUSES = (0.0005, 0.01)
"""Seconds that facts gather after the first, and after the last ones were handed on: between these two, so that a
handful comes in one. Few facts cost few wake-ups, and whoever records one is not interrupted by what becomes of it just
then; of many, a handful is formatted at a time, and nobody waits for long meanwhile."""

HANDFUL = range(32, 128)
"""Facts that a look should find."""


class Journal:
    """Takes facts, stamps them, hands them on. `record` may be called from any thread, before `start`, too.

    out          descriptor that lines go to, None for none; it is not closed
    json         JSON lines instead of prose
    verbose      every fact instead of the milestones (prose only: JSON lines are always complete)
    colour       None: when `out` is a terminal, unless NO_COLOR is set (no-color.org) or TERM is dumb; FORCE_COLOR wins
    capacity     facts that may wait to be looked at; half as many lines may wait for whoever reads them
    """

    def __init__(
        self,
        out: int | None = None,
        *,
        json: bool = False,
        verbose: bool = False,
        colour: bool | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._queue: queue.SimpleQueue[Stamped | None] = queue.SimpleQueue()
        self._capacity = capacity
        self._pause = PAUSES[1]
        self._lost = 0
        self._losing = threading.Lock()
        self._subscribers: list[Callable[[Record], None]] = []
        self._writer: _Writer | None = None
        if out is not None:
            self._writer = _Writer(out, _formatter(out, json, verbose, colour), capacity // 2, self.record)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def record(self, fact: Fact) -> None:
        """Take a fact now. Never blocks, never raises: a fact that does not fit is counted instead."""
        waiting = self._queue
        if waiting.qsize() < self._capacity:
            waiting.put((_wall(), time.monotonic_ns(), fact))
        else:
            self._lose()

    def record_made(self, kind: type[Fact], *values: object) -> None:
        """As `record(kind(*values))`, for who records tens of thousands a second: JSON lines need no fact made."""
        waiting = self._queue
        if waiting.qsize() < self._capacity:
            waiting.put((time.time_ns() // 1000 / 1e6, time.monotonic_ns(), kind, values))
        else:
            self._lose()

    def subscribe(self, take: Callable[[Record], None]) -> None:
        """Have `take` called with every record, in order, in the journal's own thread. Call it before `start`."""
        self._subscribers.append(take)

    def start(self) -> None:
        self._thread.start()
        if self._writer:
            self._writer.thread.start()

    def close(self, patience: float = 2.0) -> None:
        """Hand on what was recorded until now, waiting at most `patience` seconds for a reader who does not read.

        Where it was never started nothing is handed on.
        """
        if self._thread.ident is None:
            return
        until = time.monotonic() + patience
        self._queue.put(None)
        self._thread.join(patience)
        if self._writer:
            self._writer.thread.join(max(0.0, until - time.monotonic()))

    @property
    def unwritten(self) -> int:
        """Facts that were not written because the output was slow, full or closed."""
        return self._writer.lost if self._writer else 0

    def _run(self) -> None:
        work_behind_others()
        ended = False
        while not ended:
            items = self._gather()
            facts = [item for item in items if item is not None]
            ended = len(facts) < len(items)
            self._hand_on(facts)
            with self._losing:
                lost, self._lost = self._lost, 0
            if lost:
                said = Warned("", f"{lost} facts were not recorded: more came than could be handled")
                self._hand_on([_stamped(said)])
        if self._writer:
            self._writer.put(None)

    def _gather(self) -> list[Stamped | None]:
        """Wait a moment for facts; where none came wait for one, and then a moment for others. Takes at most a batch.

        Who puts a fact that is waited for has to wake this thread. With one every few milliseconds, nobody has to.
        """
        time.sleep(self._pause)
        items = _taken(self._queue)
        if not items:
            items.append(self._queue.get())
            if items[0] is not None:
                time.sleep(self._pause)
                items += _taken(self._queue)
        if len(items) >= HANDFUL.stop:
            self._pause = max(self._pause / 2, PAUSES[0])
        elif len(items) < HANDFUL.start:
            self._pause = min(self._pause * 2, PAUSES[1])
        return items

    def _hand_on(self, facts: list[Stamped]) -> None:
        records = [lines.made(fact) for fact in facts] if self._subscribers else []
        if self._writer and facts:
            self._writer.put(records or facts)
        for take in self._subscribers:
            for record in records:
                try:
                    take(record)
                except Exception as error:
                    print_error(error)

    def _lose(self) -> None:
        with self._losing:
            self._lost += 1


class _Writer:
    """A thread that owns the slow end. `put` is for the journal's thread alone; each counter has one writing thread."""

    def __init__(
        self, out: int, text: Callable[[Sequence[Stamped]], bytes], capacity: int, record: Callable[[Fact], None]
    ) -> None:
        self.thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._queue: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()  # how many facts, their lines
        self._out = out
        self._text = text
        self._capacity = capacity
        self._record = record
        self._put = 0  # by `put`
        self._taken = 0  # by `_run`
        self._turned_away = 0  # by `put`
        self._failed = 0  # by `_run`
        self._reported = 0
        self._gone = False  # nobody can ever read it again
        self._torn = False  # the last line written was cut

    @property
    def lost(self) -> int:
        return self._turned_away + self._failed

    def put(self, facts: Sequence[Stamped] | None) -> None:
        if facts is None:
            self._queue.put(None)
            return
        room = 0 if self._gone else self._capacity - (self._put - self._taken)
        if room < len(facts):
            self._turned_away += len(facts) - max(0, room)
            facts = facts[: max(0, room)]
        if facts:
            self._put += len(facts)
            self._queue.put((len(facts), self._text(facts)))

    def _run(self) -> None:
        work_behind_others()
        ended = False
        while not ended:
            taken = self._queue.get()
            ended = taken is None
            count, text = taken or (0, b"")
            self._taken += count
            lost = self.lost
            if lost > self._reported:
                because = f"{lost - self._reported} facts are missing above: whoever reads this was too slow"
                text += self._text([_stamped(Warned("", because))])
            if self._write(text):
                self._reported = lost
            else:
                self._failed += count

    def _write(self, text: bytes) -> bool:
        """Whether all of it went out. Waits as long as the reader does."""
        left = memoryview(b"\n" + text if self._torn else text)
        while left and not self._gone:
            try:
                left = left[os.write(self._out, left) :]
                self._torn = bool(left)
            except BlockingIOError:  # somebody made the descriptor non-blocking: it may be shared, so it stays so
                poll = select.poll()
                poll.register(self._out, select.POLLOUT)
                poll.poll()
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET):
                    return False  # a full disk may be emptied: the next batch is tried again
                self._gone = True
                self._record(Warned("", "nobody reads the journal's output any more: facts are no longer printed"))
        return not self._gone


def _taken(waiting: queue.SimpleQueue[Stamped | None]) -> list[Stamped | None]:
    """What is there, at most a batch."""
    items: list[Stamped | None] = []
    with contextlib.suppress(queue.Empty):
        while len(items) < BATCH:
            items.append(waiting.get_nowait())
    return items


def _wall() -> float:
    """Unix seconds in whole microseconds, the float that is nearest."""
    return time.time_ns() // 1000 / 1e6


def _stamped(fact: Fact) -> Stamped:
    return _wall(), time.monotonic_ns(), fact


def _formatter(out: int, json: bool, verbose: bool, colour: bool | None) -> Callable[[Sequence[Stamped]], bytes]:
    if json:
        return lines.lines
    paint = _wants_colour(out) if colour is None else colour

    def text(facts: Sequence[Stamped]) -> bytes:
        records = [lines.made(fact) for fact in facts]
        shown = [record for record in records if verbose or prose.is_milestone(record.fact)]
        offset = time.localtime().tm_gmtoff
        printed = "".join([prose.line(record, offset, colour=paint) + "\n" for record in shown])
        return printed.encode("utf-8", "backslashreplace")

    return text


def _wants_colour(out: int) -> bool:
    if os.environ.get("FORCE_COLOR"):
        return True
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and os.isatty(out)
