"""How much may be in the network: Reno's window (RFC 5681) with SACK-style recovery (RFC 6675), and the timer's length.

Both are pure arithmetic; the connection tells them what happened.
"""

from __future__ import annotations

from bootwire.engine import MS, Ns, S

INITIAL_SEGMENTS = 10  # RFC 6928 section 2
INITIAL_RTO: Ns = 1 * S  # RFC 6298 section 2.1
MIN_RTO: Ns = 200 * MS  # RFC 6298 asks for 1 s; 200 ms is what Linux has used since 2.4
MAX_RTO: Ns = 60 * S  # RFC 6298 section 2.5
_GRANULARITY: Ns = 1 * MS  # G of RFC 6298: how late a tick may come


class Reno:
    """The congestion window in octets.

    In slow start it grows by all that was acknowledged, not by one segment an acknowledgement (RFC 3465 with L
    unlimited, as Linux): receivers that merge segments acknowledge 64 KiB at once.
    """

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.window = INITIAL_SEGMENTS * mss
        self.threshold = 1 << 62
        self.recover: int | None = None  # in recovery until this number is acknowledged (RFC 6582 section 3.2)
        self.doubtful = 0  # pieces sent again since the last loss, less those that turned out to have come twice
        self._before: tuple[int, int] | None = None  # window and threshold before the last loss, while it may be undone
        self._credit = 0  # acknowledged octets that have not made the window grow yet

    @property
    def slow_start(self) -> bool:
        return self.window < self.threshold

    def acknowledged(self, octets: int) -> None:
        """`octets` were acknowledged while the window was what held the sender back."""
        if self.recover is not None and not self.slow_start:
            return
        if self.slow_start:
            self.window = min(self.window + octets, max(self.threshold, self.window))
            return
        self._credit += octets
        if self._credit >= self.window:  # RFC 5681 section 3.1: one segment a round trip
            self._credit -= self.window
            self.window += self.mss

    def lost(self, flight: int, until: int) -> None:
        """A loss was found while `flight` octets were out; `until` is the next number to be sent."""
        if self.recover is None:
            self._before = (self.window, self.threshold)
            self.doubtful = 0
            self.threshold = max(flight // 2, 2 * self.mss)
            self.window = self.threshold
            self.recover = until
            self._credit = 0

    def timed_out(self, flight: int, until: int, again: bool) -> None:
        """The retransmission timer fired; `again`: not for the first time in a row (RFC 5681 section 3.1)."""
        if not again:
            self.threshold = max(flight // 2, 2 * self.mss)
        self.window = self.mss
        self.recover = until
        self._credit = 0
        self._before = None

    def reached(self, una: int) -> bool:
        """Everything below `una` has arrived. True if a recovery ended that had nothing to send again."""
        if self.recover is None or una < self.recover:
            return False
        self.recover = None
        return self.doubtful == 0 and self._undo()

    def came_twice(self) -> None:
        """The peer has something twice. Once that is true of all that was sent again, nothing had been lost: take the
        slowing down back (the idea of RFC 3708 section 3)."""
        self.doubtful -= 1
        if self.doubtful == 0:
            self._undo()

    def idle(self) -> None:
        """Nothing was sent for a whole retransmission time (RFC 5681 section 4.1)."""
        self.window = min(self.window, INITIAL_SEGMENTS * self.mss)

    def _undo(self) -> bool:
        if self._before is None:
            return False
        self.window, self.threshold = max(self.window, self._before[0]), max(self.threshold, self._before[1])
        self._before = self.recover = None
        return True

    def resize(self, mss: int) -> None:
        """The path takes only `mss` octets a segment (or more than before)."""
        self.mss = mss
        self.window = max(self.window, mss)


class RoundTrip:
    """RFC 6298: the smoothed round-trip time and the retransmission time-out made of it."""

    def __init__(self, initial: Ns = INITIAL_RTO, minimum: Ns = MIN_RTO) -> None:
        self.smoothed: Ns = 0
        self.least: Ns = 0  # the shortest sample so far, 0 before the first
        self._variation: Ns = 0
        self._minimum = minimum
        self._base = initial
        self.backoff = 0  # doublings

    @property
    def timeout(self) -> Ns:
        return min(self._base << self.backoff, MAX_RTO)

    def sample(self, rtt: Ns) -> None:
        rtt = max(rtt, 1)
        if self.smoothed == 0:
            self.smoothed, self._variation, self.least = rtt, rtt // 2, rtt
        else:
            self._variation += (abs(self.smoothed - rtt) - self._variation) // 4
            self.smoothed += (rtt - self.smoothed) // 8
            self.least = min(self.least, rtt)
        self._base = max(self.smoothed + max(_GRANULARITY, 4 * self._variation), self._minimum)
