"""How much may be in the network: CUBIC's window (RFC 9438) with recovery as of RFC 6675; and how long the timer is.

Both are pure arithmetic; the connection tells them what happened.
"""

from __future__ import annotations

from bootwire.engine import MS, Ns, S

INITIAL_SEGMENTS = 10  # RFC 6928 section 2
INITIAL_RTO: Ns = 1 * S  # RFC 6298 section 2.1
MIN_RTO: Ns = 200 * MS  # RFC 6298 asks for 1 s; 200 ms is what Linux has used since 2.4
MAX_RTO: Ns = 60 * S  # RFC 6298 section 2.5
_FINE = 1 << 16  # parts of an octet in which growth is counted
_GRANULARITY: Ns = 1 * MS  # G of RFC 6298: how late a tick may come


class Cubic:
    """The congestion window in octets (RFC 9438), all in integers, so that the same losses give the same window.

    In slow start it grows by all that was acknowledged, not by one segment an acknowledgement (RFC 3465 with L
    unlimited, as Linux): receivers that merge segments acknowledge 64 KiB at once.
    """

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.window = INITIAL_SEGMENTS * mss
        self.threshold = 1 << 62
        self.recover: int | None = None  # in recovery until this number is acknowledged (RFC 6582 section 3.2)
        self.doubtful = 0  # pieces sent again since the last loss, less those that turned out to have come twice
        self._highest = 0  # W_max: the window at which something was last lost
        self._before: tuple[int, int, int] | None = None  # window, threshold, W_max before a loss that may be undone
        self._epoch: Ns | None = None  # when this avoidance began
        self._bend = 0  # K: milliseconds from there until the window is W_max again
        self._friendly = 0  # W_est: the window that Reno would have, in octets * _FINE
        self._credit = 0  # growth that is not a whole octet yet, in octets * _FINE

    @property
    def slow_start(self) -> bool:
        return self.window < self.threshold

    def acknowledged(self, octets: int, now: Ns, rtt: Ns) -> None:
        """`octets` were acknowledged while the window was what held the sender back; rtt: the smoothed one."""
        if self.slow_start:
            self.window = min(self.window + octets, max(self.threshold, self.window))
            return
        if self.recover is not None:
            return
        if self._epoch is None:
            self._begin(now)
        assert self._epoch is not None
        passed = (now - self._epoch) // MS
        share = octets * _FINE // self.window  # of a round trip
        more = self.mss if self._friendly >= self._highest * _FINE else self.mss * 9 // 17  # alpha of section 4.3
        self._friendly += more * share
        if self._curve(passed) * _FINE < self._friendly:
            self.window = max(self.window, self._friendly // _FINE)
            return
        target = min(max(self._curve(passed + rtt // MS), self.window), self.window * 3 // 2)
        self._credit += (target - self.window) * share
        self.window += self._credit // _FINE
        self._credit %= _FINE

    def lost(self, flight: int, until: int) -> None:
        """A loss was found while `flight` octets were out; `until` is the next number to be sent."""
        if self.recover is None:
            self._before = (self.window, self.threshold, self._highest)
            self.doubtful = 0
            self._shrink(flight)
            self.window = self.threshold
            self.recover = until

    def timed_out(self, flight: int, until: int, again: bool) -> None:
        """The retransmission timer fired; `again`: not for the first time in a row (RFC 5681 section 3.1)."""
        if not again:
            self._shrink(flight)
        self.window = self.mss
        self.recover = until
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
        self._epoch = None

    def resize(self, mss: int) -> None:
        """The path takes only `mss` octets a segment (or more than before)."""
        self.mss = mss
        self.window = max(self.window, mss)

    def _shrink(self, flight: int) -> None:
        """Sections 4.6 and 4.7: seven tenths, and less than last time if last time was better (fast convergence)."""
        self._highest = self.window * 17 // 20 if self.window < self._highest else self.window
        self.threshold = max(flight * 7 // 10, 2 * self.mss)
        self._epoch = None

    def _begin(self, now: Ns) -> None:
        """Congestion avoidance starts (section 4.2)."""
        self._epoch, self._credit = now, 0
        self._highest = max(self._highest, self.window)
        self._friendly = self.window * _FINE
        self._bend = _cube_root((self._highest - self.window) * 10**10 // (4 * self.mss))

    def _curve(self, passed: int) -> int:
        """W_cubic, octets, `passed` milliseconds into the epoch: C is 0.4 segments a second cubed."""
        return self._highest + 4 * self.mss * (passed - self._bend) ** 3 // 10**10

    def _undo(self) -> bool:
        if self._before is None:
            return False
        window, threshold, highest = self._before
        self.window, self.threshold = max(self.window, window), max(self.threshold, threshold)
        self._highest, self._before, self.recover, self._epoch = highest, None, None, None
        return True


def _cube_root(number: int) -> int:
    """The whole part of it, by Newton's method from above."""
    if number < 1:
        return 0
    root = 1 << -(-number.bit_length() // 3)
    while True:
        closer = (2 * root + number // root**2) // 3
        if closer >= root:
            return root
        root = closer


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
