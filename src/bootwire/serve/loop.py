"""The transfer loop: one epoll and one timer heap in one thread. Not asyncio: docs/concepts/performance.md has why.

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


def print_error(error: BaseException) -> None:
    """Show our own mistake on stderr, with its traceback."""
    traceback.print_exception(error, file=sys.stderr)


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
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int, Ns], None]] = {}
        self._timers: list[tuple[Ns, int, Timer]] = []  # a heap; the number keeps comparing away from Timer
        self._count = itertools.count()
        self._soon: deque[Callable[[], None]] = deque()
        self._on_error = on_error
        self._running = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, IN)
        self.now: Ns = time.monotonic_ns()

    def watch(self, fd: int, events: int, callback: Callable[[int, Ns], None]) -> None:
        """Call `callback(events, now)` whenever `fd` is ready. Level-triggered unless EDGE is in `events`."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def rewatch(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; call it before closing. Events already fetched for it are dropped."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    def at(self, due: Ns, callback: Callable[[Ns], None]) -> Timer:
        """Call `callback(now)` once, at `due` or soon after."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (due, next(self._count), timer))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` in the loop's thread. From any thread."""
        self._soon.append(callback)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._wake, 1)

    def next(self, callback: Callable[[], None]) -> None:
        """Run `callback` after the next look at the descriptors. From the loop's own thread."""
        self._soon.append(callback)

    def stop(self) -> None:
        """End `run` after the round under way. From any thread."""

        def halt() -> None:
            self._running = False

        self.call_soon(halt)

    def run(self) -> None:
        self._running = True
        callbacks, epoll, clock = self._callbacks, self._epoll, time.monotonic_ns
        eager = False  # the last events came so soon that the next ones may
        while self._running:
            try:
                ready = epoll.poll(0, ROUND) if eager or self._soon else ()
                if not ready and not self._soon:
                    waiting = clock()
                    while eager and not ready and clock() - waiting < EAGER:
                        ready = epoll.poll(0, ROUND)
                    if not ready:
                        ready = epoll.poll(self._patience(), ROUND)
                    eager = clock() - waiting < EAGER
            except OSError as error:  # EINTR is retried by Python itself; anything else is our mistake
                if error.errno != errno.EINTR:
                    raise
                continue
            self.now = now = clock()
            for fd, events in ready:
                callback = callbacks.get(fd)
                if callback is not None:
                    try:
                        callback(events, now)
                    except Exception as error:
                        self._on_error(error)
                elif fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(fd)
            if self._soon:
                self._run_soon()
            if self._timers:
                self._run_timers(clock())

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake)

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
