"""A brake on what strangers can write into the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from bootwire.engine import Ns, S
from bootwire.facts import Fact, Refused

if TYPE_CHECKING:
    from bootwire.serve.content import Record


class Clock(Protocol):
    """A loop: calls later."""

    def at(self, when: Ns, call: Callable[[Ns], None], /) -> object: ...


class ControlClock:
    """The control loop, as a brake sees it."""

    def __init__(self, control: asyncio.AbstractEventLoop) -> None:
        self._control = control

    def at(self, when: Ns, call: Callable[[Ns], None], /) -> None:
        self._control.call_later(max(0, when - time.monotonic_ns()) / S, call, when)


class Brake:
    """Lets at most `rate` things a second through; facts over that are counted, and one Refused tells their number.

    burst: how many may come at once after a quiet time, `rate` if not given
    """

    def __init__(self, loop: Clock, record: Record, service: str, rate: int, burst: int | None = None) -> None:
        self._loop, self._record, self._service, self._rate = loop, record, service, rate
        self._burst = burst or rate
        self._second: Ns = -S
        self._passed = 0
        self._held = 0

    def free(self, now: Ns) -> bool:
        """Whether one more may pass."""
        seconds = (now - self._second) // S
        if seconds > 0:
            self._second, self._passed = now, max(0, self._passed - seconds * self._rate)
        if self._passed >= self._burst:
            return False
        self._passed += 1
        return True

    def tell(self, fact: Fact, now: Ns) -> None:
        """Record the fact, or count it."""
        if self.free(now):
            self._record(fact)
            return
        if not self._held:
            self._loop.at(now + S, self._sum_up)
        self._held += 1

    def _sum_up(self, _now: Ns) -> None:
        held, self._held = self._held, 0
        self._record(Refused("", self._service, "", f"{held} more such lines within a second were left out"))
