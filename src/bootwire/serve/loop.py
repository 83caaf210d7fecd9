"""The transfer loop: one epoll, one poll and one timer heap in one thread. Not asyncio, and
docs/concepts/performance.md says why.

Descriptors wait in the epoll. Those watched `often` move to the poll while many of them are ready at every look: what
comes for one in an epoll costs its sender the epoll's lock and a place in its list, which two processors then hand to
and fro; in a poll it costs the sender nothing, but every look costs some 25 ns for each descriptor, ready or not.

Callbacks run to completion and may not block. An exception that escapes a callback is our own mistake: it is handed
to `on_error` and the loop goes on, so that one bad transfer never stops the others.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import select
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final

from bootwire.engine import MS, US, Ns

IN, OUT, HUP, ERR, RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR, select.EPOLLRDHUP
EDGE = select.EPOLLET

EAGER: Final[Ns] = 200 * US
"""How long to look for events before sleeping, if the last ones came within that time: to be woken costs 20-50 us, a
quarter of a lock-step round trip on a fast network. Whoever is slower than this costs no look."""

ROUND: Final = 128
"""Descriptors served before timers and calls from elsewhere get their turn. With a thousand ready at once, a round of
all of them would take 25 ms, and what the kernel touched first would have left the processor's cache meanwhile."""

CROWD: Final = range(8, 257)
"""How many descriptors watched `often` may be looked at with poll: with fewer there is nothing to win, with more a look
takes too long."""
LOOKS: Final = 32
"""After so many looks it is counted how many were ready: a tenth of them at each, and they move to the poll; half as
many, and they move back. A move costs 1 us for each; empty looks come once in 1 to 6 us."""


def print_error(error: BaseException) -> None:
    """Show our own mistake on stderr, with its traceback."""
    traceback.print_exception(error, file=sys.stderr)


def work_behind_others() -> None:
    """Say that this thread works off what others have left it: when there is something for it, it interrupts nobody
    who has the processor, and gets it as soon as that one waits or has had its share (SCHED_BATCH, sched(7))."""
    with contextlib.suppress(OSError):  # a container may forbid it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # else somebody has chosen another
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Timer:
    """A callback due at a moment; `cancel` is cheap and final."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[Ns], None]) -> None:
        self.callback: Callable[[Ns], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Descriptors and timers. Everything but `call_soon` and `stop` is for the loop's own thread."""

    def __init__(self, on_error: Callable[[BaseException], None] = print_error) -> None:
        self._epoll, self._poll = select.epoll(), select.poll()
        self._callbacks: dict[int, Callable[[int, Ns], object]] = {}
        self._often: dict[int, int] = {}  # descriptors and events; in the poll if _crowded, else in the epoll
        self._crowded = False
        self._looks = self._found = 0  # since it was counted last, and what they found
        self._timers: list[tuple[Ns, int, Timer]] = []  # a heap; the number keeps comparing away from Timer
        self._number = itertools.count()
        self._soon: deque[Callable[[], None]] = deque()
        self._on_error = on_error
        self._running = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake, IN, self._on_wake)
        self._callbacks[self._epoll.fileno()] = self._on_others
        self._poll.register(self._epoll.fileno(), IN)
        self.now: Ns = time.monotonic_ns()

    @property
    def crowded(self) -> bool:
        """Whether what is watched `often` is looked at with poll just now."""
        return self._crowded

    def watch(self, fd: int, events: int, callback: Callable[[int, Ns], object], *, often: bool = False) -> None:
        """Call `callback(events, now)` whenever `fd` is ready. Level-triggered unless EDGE is in `events`.

        often  it may be ready again and again within microseconds, and many like it. Level- or edge-triggered then, as
               the loop sees fit; not for `rewatch`
        """
        if often and self._crowded:
            self._poll.register(fd, events & ~EDGE)
        else:
            self._epoll.register(fd, events)
        if often:
            self._often[fd] = events
        self._callbacks[fd] = callback

    def rewatch(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; call it before closing. Events already fetched for it are dropped."""
        if self._callbacks.pop(fd, None) is not None:
            often = self._often.pop(fd, None) is not None
            with contextlib.suppress(OSError, KeyError):
                (self._poll if often and self._crowded else self._epoll).unregister(fd)

    def at(self, due: Ns, callback: Callable[[Ns], None]) -> Timer:
        """Call `callback(now)` once, at `due` or soon after."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (due, next(self._number), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` in the loop's thread. From any thread."""
        self._soon.append(callback)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

    def next(self, callback: Callable[[], None]) -> None:
        """Run `callback` after the callbacks of all that the last look found. From such a callback, or a timer's."""
        self._soon.append(callback)

    def stop(self) -> None:
        """End `run` after the round under way. From any thread."""

        def halt() -> None:
            self._running = False

        self.call_soon(halt)

    def run(self) -> None:
        self._running = True
        look, clock = self._look, time.monotonic_ns
        eager = False  # the last events came so soon that the next ones may
        while self._running:
            try:
                ready = look(0) if eager or self._soon else []
                if not ready and not self._soon:
                    waiting = clock()
                    while eager and not ready and clock() - waiting < EAGER:
                        ready = look(0)
                    if not ready:
                        ready = look(self._patience())
                    eager = clock() - waiting < EAGER
            except OSError as error:  # EINTR is retried by Python itself; anything else is our mistake
                if error.errno != errno.EINTR:
                    raise
                continue
            self.now = now = clock()
            self._call(ready, now)
            if self._soon:
                self._run_soon()
            if self._timers:
                self._run_timers(clock())

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake)

    def _look(self, patience: float) -> list[tuple[int, int]]:
        """Descriptors and events that are ready within so many seconds, -1 for any time."""
        ready = self._poll.poll(patience * 1000) if self._crowded else self._epoll.poll(patience, ROUND)
        self._found += len(ready)
        self._looks += 1
        if self._looks == LOOKS:
            self._count()
        return ready

    def _count(self) -> None:
        """See whether what is watched `often` belongs in the epoll or in the poll, and move it there."""
        often, share = len(self._often), LOOKS * len(self._often) // (20 if self._crowded else 10)
        crowded = often in CROWD and self._found >= share
        self._looks = self._found = 0
        if crowded == self._crowded:
            return
        self._crowded = crowded
        for fd, events in self._often.items():
            try:
                if crowded:
                    self._epoll.unregister(fd)
                    self._poll.register(fd, events & ~EDGE)
                else:
                    self._poll.unregister(fd)
                    self._epoll.register(fd, events)  # which tells what is ready already
            except OSError as error:
                self._on_error(error)

    def _call(self, ready: list[tuple[int, int]], now: Ns) -> None:
        callbacks = self._callbacks
        for fd, events in ready:
            callback = callbacks.get(fd)
            if callback is not None:
                try:
                    callback(events, now)
                except Exception as error:
                    self._on_error(error)

    def _on_others(self, _events: int, now: Ns) -> None:
        """In a look at the poll: there is something in the epoll, too."""
        self._call(self._epoll.poll(0, ROUND), now)

    def _on_wake(self, _events: int, _now: Ns) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _patience(self) -> float:
        """Seconds to sleep; -1 is for ever. Rounded up to a whole millisecond, as epoll counts."""
        if self._soon:
            return 0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0, -((time.monotonic_ns() - self._timers[0][0]) // MS)) / 1000

    def _run_soon(self) -> None:
        for _ in range(len(self._soon)):
            try:
                self._soon.popleft()()
            except Exception as error:
                self._on_error(error)

    def _run_timers(self, now: Ns) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            callback = heapq.heappop(timers)[2].callback
            if callback is not None:
                try:
                    callback(now)
                except Exception as error:
                    self._on_error(error)
