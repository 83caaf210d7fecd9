from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from bootwire.engine import MS, Ns
from bootwire.serve.loop import EDGE, IN, Loop


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


def test_close_gives_every_descriptor_back():
    before = len(os.listdir("/proc/self/fd"))
    Loop().close()
    assert len(os.listdir("/proc/self/fd")) == before
