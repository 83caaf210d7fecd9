"""Two network cards with a bad cable between them: the faults that netem would make, where there is no netem."""

from __future__ import annotations

import select
import threading
import time

from bootwire.engine import MS
from bootwire.preboot.impair import Faults, Impairment
from bootwire.preboot.nic import Nic


class Bridge:
    """Carries every frame between `left` and `right` through `faults`, in a thread, from `start` to `close`.

    Open the cards without offload, or a packet of 64 KiB is lost, or not, as one.
    """

    def __init__(self, left: Nic, right: Nic, faults: Faults, seed: int = 0) -> None:
        self._sides = (left, right)
        self.ways = (Impairment(faults, seed), Impairment(faults, seed + 1))  # to the right, to the left
        self._running = False
        self._thread = threading.Thread(target=self._run, name="bootwire-bridge", daemon=True)

    def start(self) -> Bridge:
        """The cards are open already."""
        self._running = True
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop, and close the cards."""
        self._running = False
        self._thread.join()
        for side in self._sides:
            side.close()

    def _run(self) -> None:
        poll = select.poll()
        for side in self._sides:
            poll.register(side.fileno(), select.POLLIN)
        while self._running:
            due = min((way.deadline for way in self.ways if way.deadline is not None), default=None)
            sleep = 100 if due is None else min(100, max(0, -(-(due - time.monotonic_ns()) // MS)))
            poll.poll(sleep)
            for i, side in enumerate(self._sides):
                while (frame := side.receive()) is not None:
                    self.ways[i].put(frame, time.monotonic_ns())
            now = time.monotonic_ns()
            for i, way in enumerate(self.ways):
                for frame in way.take(now):
                    self._sides[1 - i].transmit(frame)
