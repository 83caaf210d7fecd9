from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine.tcp.receive import RANGES_MAX, Inbox

STREAM = bytes(range(256)) * 4
pieces = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 200)), max_size=60)


@given(pieces, st.integers(1, 300))
def test_pieces_in_any_order_and_overlap_read_as_the_stream(pieces, limit):
    inbox = Inbox(0)
    have: set[int] = set()
    got = b""
    for start, size in pieces:
        data = STREAM[start : start + size]
        inbox.put(start, data)
        have |= set(range(start, start + len(data)))
        contiguous = next(i for i in range(2000) if i not in have)
        assert inbox.next == contiguous
        assert inbox.size == contiguous - len(got)
        blocks = inbox.blocks(1000)
        inbox.duplicate = None
        told = {i for left, right in blocks for i in range(left, right) if left > inbox.next}
        assert told <= have
        got += inbox.read(limit)
    got += inbox.read(10_000)
    assert got == STREAM[: len(got)]
    assert len(got) == inbox.next


def test_the_block_that_grew_last_is_reported_first():
    inbox = Inbox(0)
    for start in (100, 300, 500, 110):
        inbox.put(start, bytes(10))
    assert inbox.blocks(3) == ((100, 120), (500, 510), (300, 310))


def test_a_duplicate_is_reported_once_and_first():
    inbox = Inbox(0)
    inbox.put(0, bytes(10))
    inbox.put(20, bytes(10))
    inbox.put(0, bytes(10))
    assert inbox.blocks(3) == ((0, 10), (20, 30))
    assert inbox.blocks(3) == ((20, 30),)


def test_islands_are_bounded():
    inbox = Inbox(0)
    for i in range(10_000):
        inbox.put(2 * i + 1, b"x")
    assert len(inbox.blocks(10_000)) == RANGES_MAX


def test_what_was_acknowledged_by_sack_is_not_rewritten():
    inbox = Inbox(0)
    inbox.put(5, b"first")
    inbox.put(0, b"01234 EVIL")
    assert inbox.read(100) == b"01234first"
