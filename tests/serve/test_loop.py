from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from bootwire.engine import MS, Ns
from bootwire.serve.loop import EDGE, IN, Loop, work_behind_others


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_timers_come_in_the_order_they_are_due_and_cancelled_ones_never(loop: Loop):
    seen: list[str] = []

    def note(what: str):
        return lambda now: seen.append(what)

    start = loop.now
    loop.at(start + 3 * MS, note("third"))
    loop.at(start + 1 * MS, note("first"))
    cancelled = loop.at(start + 2 * MS, note("never"))
    loop.at(start + 1 * MS, note("second, of the same moment"))
    loop.at(start + 5 * MS, lambda now: loop.stop())
    cancelled.cancel()
    loop.run()
    assert seen == ["first", "second, of the same moment", "third"]


def test_a_mistake_in_a_callback_stops_nothing_else():
    mistakes: list[BaseException] = []
    loop = Loop(mistakes.append)
    near, far = socket.socketpair()
    seen: list[bytes] = []

    def broken(_events: int, _now: Ns) -> None:
        seen.append(near.recv(1))
        raise RuntimeError(seen[-1])

    loop.watch(near.fileno(), IN, broken)
    loop.at(loop.now, lambda now: 1 / 0)
    far.send(b"ab")
    loop.at(loop.now + 20 * MS, lambda now: loop.stop())
    loop.run()
    assert seen == [b"a", b"b"]
    assert sorted(type(mistake).__name__ for mistake in mistakes) == [
        "RuntimeError",
        "RuntimeError",
        "ZeroDivisionError",
    ]
    loop.close()
    near.close()
    far.close()


def test_call_soon_wakes_the_loop_from_another_thread(loop: Loop):
    threading.Timer(0.02, lambda: loop.call_soon(loop.stop)).start()
    before = time.monotonic()
    loop.run()
    assert time.monotonic() - before < 5


def test_an_edge_comes_once_for_what_is_left_unread(loop: Loop):
    near, far = socket.socketpair()
    calls: list[int] = []
    loop.watch(near.fileno(), IN | EDGE, lambda events, now: calls.append(events))
    far.send(b"x")
    loop.at(loop.now + 20 * MS, lambda now: loop.stop())
    loop.run()
    assert calls == [IN]
    near.close()
    far.close()


def test_what_is_unwatched_is_not_called_any_more(loop: Loop):
    near, far = socket.socketpair()
    loop.watch(near.fileno(), IN, lambda events, now: pytest.fail("called"))
    far.send(b"x")
    loop.unwatch(near.fileno())
    loop.unwatch(near.fileno())
    loop.at(loop.now + 5 * MS, lambda now: loop.stop())
    loop.run()
    near.close()
    far.close()


def test_a_loop_with_nothing_to_do_sleeps(loop: Loop):
    """It looks about eagerly only after events that came fast, and then for a moment."""
    loop.call_soon(lambda: None)
    loop.at(loop.now + 300 * MS, lambda now: loop.stop())
    before = time.thread_time()
    loop.run()
    assert time.thread_time() - before < 0.1


class Crowd:
    """Pairs of sockets in a loop: every message that comes is answered by `answer(index)` messages to the others."""

    def __init__(self, loop: Loop, size: int, *, rounds: int) -> None:
        self.loop, self.rounds = loop, rounds
        self.pairs = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(size)]
        self.taken = [0] * size
        self.crowded = 0  # messages that were taken while the loop looked with poll
        for index, (near, _far) in enumerate(self.pairs):
            near.setblocking(False)
            loop.watch(near.fileno(), IN | EDGE, self.taker(index), often=True)

    def taker(self, index: int):
        near, far = self.pairs[index]

        def take(_events: int, _now: Ns) -> None:
            near.recv(10)
            self.taken[index] += 1
            self.crowded += self.loop.crowded
            if self.taken[index] < self.rounds:
                far.send(b"again")

        return take

    def begin(self) -> None:
        for _near, far in self.pairs:
            far.send(b"first")

    def close(self) -> None:
        for near, far in self.pairs:
            self.loop.unwatch(near.fileno())
            near.close()
            far.close()


@pytest.mark.parametrize(("size", "moves"), [(7, False), (20, True), (256, True), (257, False)])
def test_a_busy_crowd_is_looked_at_with_poll_and_nothing_gets_lost_on_the_way(loop: Loop, size: int, moves: bool):
    crowd = Crowd(loop, size, rounds=200)
    crowd.begin()
    loop.at(loop.now + 5000 * MS, lambda now: loop.stop())

    def look(now: Ns) -> None:
        loop.stop() if min(crowd.taken) == 200 else loop.at(now + 1 * MS, look)

    loop.at(loop.now, look)
    loop.run()
    assert crowd.taken == [200] * size
    assert (crowd.crowded > 0) == moves
    crowd.close()


def test_in_a_crowd_everybody_else_is_served_too(loop: Loop):
    """A descriptor that is not of the crowd, calls from other threads, timers, and one that leaves and comes again."""
    crowd = Crowd(loop, 20, rounds=1_000_000)
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    served: list[str] = []

    def other(_events: int, _now: Ns) -> None:
        served.append(near.recv(10).decode())
        loop.unwatch(crowd.pairs[0][0].fileno())  # and what has come for it is not asked for any more
        frozen = crowd.taken[0]
        loop.call_soon(lambda: served.append("soon"))
        loop.at(loop.now + 5 * MS, lambda now: again(frozen))

    def again(frozen: int) -> None:
        served.append("timer" if crowd.taken[0] == frozen else "called after unwatch")
        loop.watch(crowd.pairs[0][0].fileno(), IN | EDGE, crowd.taker(0), often=True)
        loop.at(loop.now + 5 * MS, lambda now: done(frozen))

    def done(frozen: int) -> None:
        served.append("back" if crowd.taken[0] > frozen and loop.crowded else "not back")
        loop.stop()

    def as_soon_as_crowded(now: Ns) -> None:
        far.send(b"other") if loop.crowded else loop.at(now + 1 * MS, as_soon_as_crowded)

    loop.watch(near.fileno(), IN, other)
    loop.at(loop.now, as_soon_as_crowded)
    loop.at(loop.now + 5000 * MS, lambda now: loop.stop())
    crowd.begin()
    loop.run()
    assert served == ["other", "soon", "timer", "back"]
    crowd.close()
    near.close()
    far.close()


def test_a_crowd_that_has_calmed_down_waits_in_the_epoll_again(loop: Loop):
    crowd = Crowd(loop, 20, rounds=200)
    crowd.begin()
    calm: list[bool] = []

    def late(now: Ns) -> None:
        calm.append(loop.crowded)
        crowd.rounds = 0  # one more each, answered by nobody
        crowd.begin()
        loop.at(now + 50 * MS, lambda now: loop.stop())

    loop.at(loop.now + 300 * MS, late)
    before = time.thread_time()
    loop.run()
    assert calm == [False]
    assert crowd.crowded > 0
    assert crowd.taken == [201] * 20
    assert time.thread_time() - before < 0.2  # and sleeps
    crowd.close()


def test_only_the_thread_that_says_so_works_behind_others():
    found: list[int] = []

    def run() -> None:
        work_behind_others()
        found.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_close_gives_every_descriptor_back():
    before = len(os.listdir("/proc/self/fd"))
    Loop().close()
    assert len(os.listdir("/proc/self/fd")) == before
