"""A bad cable: frames go in, and some come out, later, twice or in another order. No I/O; the seed decides.

This kernel or that may not have netem; this needs nobody's leave, and works in virtual time as well.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from heapq import heappop, heappush

from bootwire.engine import Ns, S
from bootwire.engine.ip import Frame


@dataclass(frozen=True, slots=True)
class Faults:
    """One direction of a link.

    loss, duplicate, reorder  rates, 0..1, of frames
    delay      one way
    jitter     a frame that is reordered comes up to so much later
    bandwidth  octets a second, 0: endless
    queue      octets waiting for the bandwidth; what comes on top is lost
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: Ns = 0
    jitter: Ns = 0
    bandwidth: int = 0
    queue: int = 256 * 1024


class Impairment:
    """Frames on their way through a link with `faults`."""

    def __init__(self, faults: Faults, seed: int = 0) -> None:
        self.faults = faults
        self.lost = self.passed = self.reordered = self.duplicated = 0  # frames
        self._random = random.Random(seed)
        self._way: list[tuple[Ns, int, Frame]] = []
        self._count = 0
        self._free: Ns = 0  # when the wire has sent everything that waits

    @property
    def deadline(self) -> Ns | None:
        """When the next frame comes out."""
        return self._way[0][0] if self._way else None

    def put(self, frame: Frame, now: Ns) -> None:
        """A frame enters."""
        faults, draw = self.faults, self._random.random
        if faults.loss and draw() < faults.loss:
            self.lost += 1
            return
        at = now
        if faults.bandwidth:
            at = max(now, self._free)
            if (at - now) * faults.bandwidth > faults.queue * S:
                self.lost += 1
                return
            at += len(frame.octets) * S // faults.bandwidth
            self._free = at
        at += faults.delay
        if faults.reorder and draw() < faults.reorder:
            at += int(draw() * (faults.jitter or faults.delay // 2))
            self.reordered += 1
        copies = 2 if faults.duplicate and draw() < faults.duplicate else 1
        self.duplicated += copies - 1
        for _ in range(copies):
            self._count += 1
            heappush(self._way, (at, self._count, frame))

    def take(self, now: Ns) -> list[Frame]:
        """The frames that have come out by `now`, in order."""
        out: list[Frame] = []
        while self._way and self._way[0][0] <= now:
            out.append(heappop(self._way)[2])
        self.passed += len(out)
        return out
