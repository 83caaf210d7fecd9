from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import MS, S
from bootwire.engine.tcp.congestion import INITIAL_SEGMENTS, MAX_RTO, MIN_RTO, Cubic, RoundTrip, _cube_root
from bootwire.engine.tcp.send import Outbox, Scoreboard


def sent(count: int, size: int = 1000) -> Scoreboard:
    board = Scoreboard()
    for i in range(count):
        board.send(i * size, (i + 1) * size, i * MS)
    return board


def test_the_outbox_keeps_what_is_not_acknowledged():
    box = Outbox(100)
    box.write(b"0123456789")
    box.drop(104)
    assert (box.start, box.end, len(box)) == (104, 110, 6)
    assert box.peek(104, 107) == b"456"
    assert box.peek(90, 200) == b"456789"


def test_what_arrived_out_of_order_leaves_the_pipe_and_is_told_once():
    board = sent(5)
    news = board.sack([(2000, 4000)], 1000)
    assert [(p.start, p.end) for p in news] == [(2000, 3000), (3000, 4000)]
    assert board.sack([(2000, 4000)], 1000) == []
    assert (board.pipe, board.sacked) == (3000, 2000)
    assert [p.start for p in board.acknowledge(5000)] == [0, 1000, 4000]
    assert (board.pipe, board.sacked, bool(board)) == (0, 0, False)


def test_a_piece_that_the_link_cut_is_told_of_in_parts():
    board = sent(1, 10_000)
    news = board.sack([(1500, 4200)], 1000)  # whole segments only count
    assert [(p.start, p.end) for p in news] == [(2000, 4000)]
    assert board.pipe == 8000


def test_earlier_sent_than_the_newest_arrival_is_lost_after_the_window():
    board = sent(4)
    board.arrived(board.sack([(3000, 4000)], 1000), 53 * MS, 50 * MS, None)
    assert board.find_lost(53 * MS, 10 * MS) == 62 * MS  # the youngest of them: sent at 2, 50 for the way, 10 of grace
    assert board.find_lost(61 * MS, 10 * MS) == 62 * MS
    assert [p.start for p in iter_lost(board)] == [0, 1000]
    assert board.find_lost(62 * MS, 10 * MS) is None


def iter_lost(board: Scoreboard):
    while (piece := board.next_lost()) is not None:
        yield piece
        board.resend(piece, S, 1000)


def test_a_lost_retransmission_is_found_without_a_timer():
    board = sent(3)
    board.arrived(board.sack([(2000, 3000)], 1000), 52 * MS, 50 * MS, None)
    board.find_lost(60 * MS, 0)
    board.resend(board.next_lost(), 60 * MS, 1000)  # 0..1000 again, and lost again
    board.resend(board.next_lost(), 61 * MS, 1000)
    board.arrived(board.sack([(1000, 3000)], 1000), 111 * MS, 50 * MS, None)
    board.find_lost(111 * MS, 0)
    assert board.next_lost().start == 0


def test_a_broken_promise_is_not_believed_again():
    board = sent(3)
    board.sack([(0, 1000)], 1000)  # what is reported, but not acknowledged, was dropped again
    board.give_up_all()
    assert board.sacked == 0
    assert [p.start for p in iter_lost(board)] == [0, 1000, 2000]


def test_an_ambiguous_answer_gives_no_sample():
    board = sent(1)
    (piece,) = board._pieces
    board.give_up(piece)
    board.resend(piece, 300 * MS, 1000)
    assert board.arrived(board.acknowledge(1000), 340 * MS, 20 * MS, echo=0) is None
    board = sent(1)
    (piece,) = board._pieces
    board.give_up(piece)
    board.resend(piece, 300 * MS, 1000)
    assert board.arrived(board.acknowledge(1000), 340 * MS, 20 * MS, echo=300 * MS) == 40 * MS


def grown(control: Cubic, start: int, milliseconds: int, rtt: int = 50) -> int:
    """The window after so long with a whole window acknowledged each round trip."""
    for now in range(0, milliseconds, rtt):
        control.acknowledged(control.window, start + now * MS, rtt * MS)
    return control.window


def test_slow_start_doubles_and_a_loss_leaves_seven_tenths():
    control = Cubic(1000)
    assert control.window == INITIAL_SEGMENTS * 1000
    control.acknowledged(10_000, 0, 50 * MS)
    assert control.window == 20_000
    control.lost(20_000, 50_000)
    assert (control.window, control.threshold) == (14_000, 14_000)
    control.lost(20_000, 60_000)  # once a round trip
    assert control.window == 14_000


def test_avoidance_is_flat_around_the_last_loss_and_steep_beyond():
    control = Cubic(1000)
    control.acknowledged(990_000, 0, 50 * MS)
    control.lost(1_000_000, 50_000)
    control.doubtful = 1
    control.reached(50_000)
    # K = cbrt(300 / 0.4) = 9.09 s (RFC 9438 figure 2 has the shape)
    assert control.window == 700_000
    assert 890_000 < grown(control, 0, 3000) < 930_000
    assert 990_000 < grown(control, 3000 * MS, 6000) < 1_003_000
    assert 1_060_000 < grown(control, 9000 * MS, 6000) < 1_120_000


def test_small_windows_grow_as_reno_does():
    control = Cubic(1000)
    control.acknowledged(10_000, 0, 10 * MS)
    control.lost(20_000, 50_000)
    control.doubtful = 1
    control.reached(50_000)
    assert 18_000 < grown(control, 0, 100, rtt=10) < 21_000  # 9/17 of a segment a round trip


def test_a_recovery_that_sent_nothing_again_is_taken_back():
    control = Cubic(1000)
    control.acknowledged(30_000, 0, 50 * MS)
    control.lost(40_000, 50_000)
    assert control.reached(50_000)
    assert control.window == 40_000


def test_what_came_twice_takes_the_slowing_down_back():
    control = Cubic(1000)
    control.acknowledged(30_000, 0, 50 * MS)
    control.lost(40_000, 50_000)
    control.doubtful = 2
    control.came_twice()
    assert control.window == 28_000
    control.came_twice()
    assert control.window == 40_000


def test_a_timeout_starts_from_one_segment():
    control = Cubic(1000)
    control.timed_out(10_000, 10_000, again=False)
    assert (control.window, control.threshold) == (1000, 7000)
    control.timed_out(1000, 10_000, again=True)
    assert control.threshold == 7000


@given(st.integers(0, 10**30))
def test_the_cube_root_is_the_whole_part(number):
    root = _cube_root(number)
    assert root**3 <= number < (root + 1) ** 3


def test_the_retransmission_time_follows_rfc_6298():
    rtt = RoundTrip()
    assert rtt.timeout == S
    rtt.sample(100 * MS)
    assert rtt.timeout == 300 * MS  # SRTT + 4 * RTTVAR
    for _ in range(50):
        rtt.sample(100 * MS)
    assert rtt.timeout == MIN_RTO
    rtt.backoff = 3
    assert rtt.timeout == 8 * MIN_RTO
    rtt.backoff = 30
    assert rtt.timeout == MAX_RTO
