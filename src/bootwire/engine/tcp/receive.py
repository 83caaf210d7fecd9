"""The receiving half of a connection: octets in order for the reader, the rest kept until the gap fills."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from heapq import nlargest

RANGES_MAX = 256  # of out-of-order data kept apart; further islands are dropped and sent again by the peer
_SMALL = 2048  # octets: shorter pieces are joined, so that bookkeeping stays a fraction of the data

Block = tuple[int, int]


class _Range:
    """Contiguous octets above a gap. parts are in order and add up to end - start."""

    __slots__ = ("end", "parts", "start", "touched")

    def __init__(self, start: int, end: int, data: bytes, touched: int) -> None:
        self.start, self.end, self.touched = start, end, touched
        self.parts: list[bytes | bytearray] = [data]


class Inbox:
    """What has arrived. `next`: the sequence number (unwrapped) of the octet that is awaited.

    Memory is bounded by the window its owner announces, since nothing beyond it may be put in, and by RANGES_MAX.
    """

    def __init__(self, start: int) -> None:
        self.next = start
        self.size = 0  # octets ready to be read
        self.duplicate: Block | None = None  # the newest octets that came twice, until reported (RFC 2883)
        self._ready: deque[bytes | bytearray] = deque()
        self._ranges: list[_Range] = []
        self._clock = 0  # orders ranges by recency, for RFC 2018 section 4

    @property
    def gaps(self) -> bool:
        return bool(self._ranges)

    def put(self, start: int, data: bytes) -> bool:
        """Take octets whose first has number `start`. True if they were in order and filled no gap (the fast path)."""
        end = start + len(data)
        if start == self.next and not self._ranges:
            self.next = end
            self.size += len(data)
            _append(self._ready, data)
            return True
        if start < self.next:
            self.duplicate = (start, min(end, self.next))
            if end <= self.next:
                return False
            data, start = data[self.next - start :], self.next
        if start == self.next:
            self._fill(data)
        else:
            self._keep(start, data)
        return False

    def read(self, limit: int) -> bytes:
        """At most `limit` octets, b"" when none are ready."""
        ready = self._ready
        if not ready or limit <= 0:
            return b""
        if len(ready) == 1 and len(ready[0]) <= limit:
            self.size = 0
            return bytes(ready.popleft())
        parts: list[bytes | bytearray] = []
        left = limit
        while ready and left:
            part = ready.popleft()
            if len(part) > left:
                ready.appendleft(part[left:])
                part = part[:left]
            parts.append(part)
            left -= len(part)
        self.size -= limit - left
        return b"".join(parts)

    def blocks(self, count: int) -> tuple[Block, ...]:
        """What to report as received out of order, newest first, at most `count` blocks (RFC 2018 section 4).

        A pending duplicate is reported first, and once (RFC 2883 section 4).
        """
        newest = nlargest(count, self._ranges, key=lambda r: r.touched)
        found: Sequence[Block] = [(r.start, r.end) for r in newest]
        if self.duplicate is not None:
            found = [self.duplicate, *found]
            self.duplicate = None
        return tuple(found[:count])

    def _fill(self, data: bytes) -> None:
        """Deliver `data`, which starts at `next`, and every range that it reaches.

        What is kept already wins over `data`: nobody rewrites octets that were acknowledged by SACK.
        """
        first, end, used = self.next, self.next + len(data), 0
        for r in self._ranges:
            if r.start > max(end, self.next):
                break
            used += 1
            if r.start < end:
                self.duplicate = (r.start, min(r.end, end))
            self._deliver(data[self.next - first : r.start - first])
            for part in r.parts:
                self._deliver(part)
        self._deliver(data[self.next - first :])
        del self._ranges[:used]

    def _deliver(self, part: bytes | bytearray) -> None:
        self.next += len(part)
        self.size += len(part)
        _append(self._ready, part)

    def _keep(self, start: int, data: bytes) -> None:
        ranges = self._ranges
        end = start + len(data)
        self._clock += 1
        at = bisect_left(ranges, start, key=lambda r: r.end)  # the first range that ends at or after our start
        # walk over the ranges we touch, inserting only what lies between them
        while start < end:
            if at < len(ranges) and ranges[at].end == start:
                r = ranges[at]  # grow to the right, up to the next range
                stop = min(end, ranges[at + 1].start) if at + 1 < len(ranges) else end
                _append(r.parts, data[: stop - start])
                r.end, r.touched = stop, self._clock
                data, start = data[stop - start :], stop
                self._merge(at)
            elif at < len(ranges) and ranges[at].start <= start:
                r = ranges[at]  # inside: those octets are here already
                stop = min(end, r.end)
                self.duplicate = (start, stop)
                r.touched = self._clock
                data, start = data[stop - start :], stop
            else:
                stop = min(end, ranges[at].start) if at < len(ranges) else end
                if len(ranges) >= RANGES_MAX and not (at < len(ranges) and ranges[at].start == stop):
                    return
                ranges.insert(at, _Range(start, stop, data[: stop - start], self._clock))
                data, start = data[stop - start :], stop
                self._merge(at)

    def _merge(self, at: int) -> None:
        """Join range `at` with the next one where they touch."""
        ranges = self._ranges
        if at + 1 < len(ranges) and ranges[at].end == ranges[at + 1].start:
            left, right = ranges[at], ranges.pop(at + 1)
            for part in right.parts:
                _append(left.parts, part)
            left.end = right.end
            left.touched = max(left.touched, right.touched)


def _append(parts: deque[bytes | bytearray] | list[bytes | bytearray], data: bytes | bytearray) -> None:
    """Add `data`, joining small pieces so that a stream of single octets does not cost an object each."""
    if not data:
        return
    if len(data) < _SMALL:
        if parts and isinstance(parts[-1], bytearray) and len(parts[-1]) < 16 * _SMALL:
            parts[-1] += data
            return
        data = bytearray(data)
    parts.append(data)
