"""A virtual Ethernet switch and clock, and hosts on it. Time jumps from one event to the next; nothing sleeps."""

from __future__ import annotations

from collections.abc import Callable

from bootwire.engine import Ns, S
from bootwire.engine.ip import Frame, Host
from bootwire.engine.ip.frame import complete
from bootwire.preboot.impair import Faults, Impairment
from bootwire.preboot.stack import Agent


class Lan:
    """Hosts on one switch. What a host sends passes its own `Impairment`, seeded by `seed` and its place.

    tap: called with (moment, frame) for every frame that a host sends, lost ones included; for captures.
    """

    def __init__(
        self, faults: Faults | None = None, seed: int = 0, tap: Callable[[Ns, Frame], None] | None = None
    ) -> None:
        self.now: Ns = 0
        self.hosts: list[Host] = []
        self.links: list[Impairment] = []
        self.agents: list[Agent] = []  # what lives on the hosts: each has its turn after every step
        self.frames = 0  # sent so far
        self._faults, self._seed, self._tap = faults or Faults(), seed, tap

    def attach(self, host: Host, faults: Faults | None = None) -> Host:
        """Plug a host in. faults: of what it sends, if not the LAN's."""
        self.hosts.append(host)
        self.links.append(Impairment(faults or self._faults, self._seed * 1000 + len(self.links)))
        return host

    def step(self) -> bool:
        """Let hosts send, then jump to the next event; False if there will be none."""
        for host, link in zip(self.hosts, self.links, strict=True):
            for frame in host.transmit(self.now):
                for piece in complete(frame):
                    self.frames += 1
                    if self._tap is not None:
                        self._tap(self.now, piece)
                    link.put(piece, self.now)
        deadlines = [host.deadline for host in self.hosts] + [link.deadline for link in self.links]
        deadlines += [agent.deadline for agent in self.agents]
        times = [t for t in deadlines if t is not None]
        if not times:
            return False
        self.now = max(self.now, min(times))
        for i, link in enumerate(self.links):
            for frame in link.take(self.now):
                self._deliver(i, frame)
        for host in self.hosts:
            due = host.deadline
            if due is not None and due <= self.now:
                host.tick(self.now)
        for agent in self.agents:
            agent.turn(self.now)
        return True

    def until(self, condition: Callable[[], object], limit: Ns = 1000 * S) -> bool:
        """Step until `condition()` holds: True; or until `limit` has passed, or nothing is left to happen: False.

        The condition may act on the hosts: it is asked before every step, and what it did counts as happening.
        """
        end = self.now + limit
        idle = False
        while not condition():
            busy = self.step()
            if self.now >= end or (idle and not busy):
                return bool(condition())
            idle = not busy
        return True

    def run(self, time: Ns) -> None:
        """Let `time` pass, whatever happens."""
        end = self.now + time
        while self.step() and self.now < end:
            pass
        self.now = max(self.now, end)

    def _deliver(self, sender: int, frame: Frame) -> None:
        destination = frame.octets[:6]
        group = destination[0] & 1
        for i, host in enumerate(self.hosts):
            if i != sender and (group or host.mac == destination):
                host.receive(frame, self.now)
