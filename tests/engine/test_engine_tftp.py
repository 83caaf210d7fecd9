from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bootwire.engine import MS, Ns, S
from bootwire.engine.tftp import (
    FIRST_WAITS,
    PATIENCE,
    RTO_CEILING,
    RTO_FLOOR,
    Aborted,
    Agreed,
    Broken,
    Denied,
    Finished,
    Packet,
    Probed,
    Received,
    Receiver,
    Sender,
    Silence,
    Stalled,
    Unanswered,
    Unreachable,
    Wanted,
    agree,
)
from bootwire.wire import tftp as wire

OACK = ((b"tsize", b"9"),)


# --- agree ------------------------------------------------------------------------------------------------------


def test_nothing_asked_is_nothing_answered():
    assert agree((), size=10) == Agreed(512, 1, 0, ())


def test_edk2s_three_options_are_answered_in_its_order():
    asked = ((b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"4"))
    answer = ((b"tsize", b"1000"), (b"blksize", b"1468"), (b"windowsize", b"4"))
    assert agree(asked, size=1000) == Agreed(1468, 4, 0, answer)


@pytest.mark.parametrize(
    ("asked", "limit", "got"),
    [(b"8", 65464, 8), (b"65464", 65464, 65464), (b"65535", 65464, 65464), (b"1468", 1400, 1400)],
)
def test_a_block_is_never_bigger_than_asked_or_fits(asked: bytes, limit: int, got: int):
    assert agree(((b"blksize", asked),), size=0, block_limit=limit).block_size == got


@pytest.mark.parametrize(
    "option",
    [
        (b"blksize", b"7"), (b"blksize", b"0"), (b"blksize", b"-8"), (b"blksize", b"1e3"), (b"blksize", b""),
        (b"timeout", b"0"), (b"timeout", b"256"), (b"windowsize", b"0"), (b"windowsize", b"65536"),
        (b"tsize", b"x"), (b"multicast", b""), (b"unheard-of", b"1"), (b"", b""),
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_unknown_is_left_out(option: tuple[bytes, bytes]):
    assert agree((option,), size=5) == Agreed()


def test_the_first_of_a_repeated_option_counts_even_if_it_is_no_number():
    assert agree(((b"blksize", b"x"), (b"blksize", b"1024")), size=0) == Agreed()
    assert agree(((b"timeout", b"3"), (b"timeout", b"9")), size=0).timeout == 3


def test_timeout_is_echoed_octet_for_octet():
    assert agree(((b"timeout", b"005"),), size=0).answer == ((b"timeout", b"005"),)


def test_a_window_is_limited_by_count_and_by_octets_in_flight():
    assert agree(((b"windowsize", b"65535"), (b"blksize", b"1468")), size=0).window == 64
    assert agree(((b"windowsize", b"64"), (b"blksize", b"65464")), size=0).window == 2


@pytest.mark.parametrize("size", [None, 0])
def test_a_size_nobody_knows_or_curl_cannot_bear_is_left_out(size: int | None):
    assert agree(((b"tsize", b"0"),), size=size) == Agreed()


# --- the sender, step by step -----------------------------------------------------------------------------------


def started(size: int = 5000, *, block_size: int = 512, window: int = 1, timeout: int = 0, oack: bool = True) -> Sender:
    """A sender whose OACK (if any) has been acknowledged after 10 ms."""
    sender = Sender(size, Agreed(block_size, window, timeout, OACK if oack else ()))
    assert sender.start(0) == 1
    if oack:
        assert (sender.first, sender.acked(0, 10 * MS)) == (0, min(window, sender.last))
        assert sender.first == 1
    return sender


def test_lock_step_sends_block_after_block():
    sender = started(1024, oack=False)
    assert (sender.first, sender.last) == (1, 3)
    assert sender.acked(1, 1) == 1
    assert sender.first == 2
    assert sender.acked(2, 2) == 1
    assert sender.first == 3
    assert sender.acked(3, 3) == 0
    assert (sender.outcome, sender.deadline) == (Finished(confirmed=True), None)


def test_a_window_goes_out_whole_and_the_last_may_be_short():
    sender = started(5000, window=4)  # 10 blocks
    assert (sender.first, sender.acked(4, 20 * MS)) == (1, 4)
    assert (sender.first, sender.acked(8, 30 * MS)) == (5, 2)
    assert (sender.first, sender.acked(10, 40 * MS)) == (9, 0)
    assert sender.outcome == Finished(confirmed=True)


def test_an_unacknowledged_request_gets_back_no_more_than_three_sends():
    for oack in (True, False):
        sender = Sender(10_000_000, Agreed(1468, 64 if oack else 1, 0, OACK if oack else ()))
        sends = [(0, sender.start(0))]
        now = 0
        while sender.deadline is not None:
            now = sender.deadline
            if count := sender.tick(now):
                sends.append((now // S, count))
        assert sends == [(0, 1), (1, 1), (3, 1)]
        assert (sender.outcome, now) == (Unanswered(), sum(FIRST_WAITS))


def test_before_the_first_ack_only_its_own_number_proves_anything():
    sender = Sender(100_000, Agreed(512, 8, 0, OACK))
    sender.start(0)
    for block in (1, 2, 8, 65535):
        assert sender.acked(block, 1) == 0
    assert not sender.proven


def test_a_repeated_request_earns_the_first_packet_again():
    sender = Sender(100, Agreed(512, 1, 0, OACK))
    sender.start(0)
    sender.tick(1 * S)
    assert sender.repeated(2 * S) == 1
    assert sender.deadline == 3 * S
    sender.acked(0, 2 * S + 1)
    assert sender.repeated(2 * S + 2) == 0


def test_an_old_ack_never_sends_a_block_again():
    sender = started(5000)
    sender.acked(1, 20 * MS)
    for block in (0, 1, 1, 0, 5, 9, 65535):
        assert sender.acked(block, 5 * S) == 0
    assert sender.first == 2


def test_a_gap_sends_again_from_the_gap_on_once():
    sender = started(50_000, window=8)
    assert sender.acked(3, 20 * MS) == 8  # block 4 was lost
    assert sender.first == 4
    for _ in range(4):  # EDK2 says so for each of 5..8
        assert sender.acked(3, 20 * MS) == 0
    assert sender.resent == 5 * 512


def test_a_lost_first_block_of_a_window_is_sent_again_at_once():
    sender = started(50_000, window=8)
    assert sender.acked(8, 20 * MS) == 8
    assert sender.acked(8, 30 * MS) == 8
    assert sender.first == 9
    assert sender.acked(8, 40 * MS) == 0  # and only once
    assert sender.acked(16, 41 * MS) == 8


def test_acks_of_a_doubled_window_do_not_double_the_next():
    sender = started(50_000, window=4)
    sender.acked(4, 20 * MS)
    assert sender.tick(sender.deadline or 0) == 4  # too early a time-out: 5..8 twice
    assert sender.acked(8, 100 * MS) == 4
    for _ in range(4):  # the copies of 5..8 arrive
        assert sender.acked(8, 150 * MS) == 0


def test_an_ack_too_early_for_the_window_sent_last_is_no_gap():
    sender = started(50_000, window=4)  # the round trip is 10 ms
    sender.acked(4, 20 * MS)
    assert sender.acked(4, 21 * MS) == 0


def test_a_receiver_that_acknowledges_every_block_of_a_window_gets_its_file():
    sender = started(512 * 20, window=4)
    block, now = 0, 10 * MS
    while sender.outcome is None:
        block += 1
        now += 1 * MS
        sender.acked(block, now)
    assert (sender.outcome, block) == (Finished(confirmed=True), 21)


def test_the_block_number_wraps_to_zero():
    sender = started(8 * 140_000, block_size=8, window=1)
    block = 0
    while sender.outcome is None:
        assert sender.first == block + 1
        block += 1
        sender.acked(block & 0xFFFF, block * 1000 + 10 * MS)
    assert block == 140_001


def test_the_timeout_follows_the_round_trip_and_has_a_floor():
    quick = started(1_000_000)
    for block in range(1, 300):
        quick.acked(block, 10 * MS + block * 20 * MS)
    assert quick.deadline == 5990 * MS + RTO_FLOOR
    slow = started(1_000_000)
    for block in range(1, 1000):
        slow.acked(block, 10 * MS + block * 300 * MS)
    assert slow.deadline is not None
    assert 300 * MS <= slow.deadline - (10 * MS + 999 * 300 * MS) <= 600 * MS


def test_timeouts_double_up_to_the_ceiling_until_patience_ends():
    sender = started(100_000)
    gaps, now = [], 10 * MS
    while sender.outcome is None:
        assert sender.deadline is not None
        gaps.append(sender.deadline - now)
        now = sender.deadline
        sender.tick(now)
    assert gaps[:4] == [gaps[0] << n for n in range(4)]
    assert max(gaps) <= RTO_CEILING
    assert (sender.outcome, now) == (Stalled(1), 10 * MS + PATIENCE)


def test_timeouts_stay_below_what_the_client_asked_for():
    sender = started(100_000, timeout=1)
    now = 0
    while sender.deadline is not None:
        assert sender.deadline - now <= 1 * S + 10 * MS
        now = sender.deadline
        sender.tick(now)


def test_a_timeout_sends_the_whole_window_again():
    sender = started(100_000, window=16)
    assert sender.deadline is not None
    assert (sender.tick(sender.deadline - 1), sender.tick(sender.deadline), sender.first) == (0, 16, 1)
    assert sender.resent == 16 * 512


@pytest.mark.parametrize("code", [8, 0])
def test_an_error_after_the_oack_is_a_size_probe(code: int):
    sender = Sender(100, Agreed(512, 1, 0, OACK))
    sender.start(0)
    sender.aborted(code, b"User aborted the transfer")
    assert (sender.outcome, sender.deadline) == (Probed(), None)


def test_an_error_after_an_oack_without_tsize_is_none():
    sender = Sender(100, Agreed(1024, 1, 0, ((b"blksize", b"1024"),)))
    sender.start(0)
    sender.aborted(8, b"no")
    assert sender.outcome == Aborted(8, b"no")


def test_an_error_in_the_middle_is_the_clients_will():
    sender = started()
    sender.aborted(0, b"TFTP Aborted")
    assert sender.outcome == Aborted(0, b"TFTP Aborted")
    assert sender.acked(1, 1 * S) == 0


def test_a_client_that_never_acknowledges_the_last_block_has_the_file():
    sender = started(100)
    while sender.deadline is not None:
        sender.tick(sender.deadline)
    assert sender.outcome == Finished(confirmed=False)


def test_one_unreachable_is_believed_of_a_stranger_but_three_are_needed_later():
    stranger = Sender(100, Agreed())
    stranger.start(0)
    stranger.unreachable()
    assert stranger.outcome == Unreachable()
    sender = started()
    sender.unreachable()
    sender.unreachable()
    sender.acked(1, 20 * MS)
    sender.unreachable()
    sender.unreachable()
    assert sender.outcome is None
    sender.unreachable()
    assert sender.outcome == Unreachable()


def test_acknowledged_octets_never_exceed_the_file():
    sender = started(600)
    assert sender.acknowledged == 0
    sender.acked(1, 20 * MS)
    assert sender.acknowledged == 512
    sender.acked(2, 30 * MS)
    assert sender.acknowledged == 600


# --- the receiver, step by step ---------------------------------------------------------------------------------


def ask(wanted: Wanted) -> Receiver:
    receiver = Receiver(wanted)
    receiver.start(0)
    return receiver


def test_only_what_differs_from_the_defaults_is_asked():
    assert Wanted(b"a", ask_size=False).request() == wire.ReadRequest(b"a", b"octet")
    assert Wanted(b"a", block_size=1468, window=16, timeout=2).request().options == (
        (b"tsize", b"0"), (b"blksize", b"1468"), (b"timeout", b"2"), (b"windowsize", b"16"),
    )  # fmt: skip


def test_a_server_without_options_sends_data_at_once():
    receiver = ask(Wanted(b"a", block_size=1468, window=4))
    assert receiver.receive(b"\0\3\0\1" + b"x" * 512, 1, 1) == [Packet(b"\0\4\0\1", 1)]
    assert receiver.receive(b"\0\3\0\2", 1, 2) == [Packet(b"\0\4\0\2", 1)]
    assert (receiver.outcome, receiver.take()) == (Received(512), [b"x" * 512, b""])


def test_an_answer_from_elsewhere_gets_error_5_and_changes_nothing():
    receiver = ask(Wanted(b"a"))
    receiver.receive(b"\0\3\0\1" + b"x" * 512, 1, 1)
    (packet,) = receiver.receive(b"\0\3\0\2evil", 2, 2)
    assert (wire.parse(packet.data), packet.to) == (wire.Error(5, b"unknown transfer"), 2)
    assert receiver.receive(b"\0\5\0\0dead\0", 2, 3) == []
    assert (receiver.outcome, receiver.octets) == (None, 512)


@pytest.mark.parametrize(
    "oack",
    [
        b"blksize\x001469\0",
        b"blksize\x007\0",
        b"windowsize\x005\0",
        b"windowsize\x000\0",
        b"timeout\x001\0",
        b"blksize\0x\0",
    ],
)
def test_an_oack_beyond_what_was_asked_is_refused(oack: bytes):
    receiver = ask(Wanted(b"a", block_size=1468, window=4))
    (packet,) = receiver.receive(b"\0\6" + oack, 1, 1)
    assert packet.data[:4] == b"\0\5\0\x08"
    assert isinstance(receiver.outcome, Broken)


def test_a_file_over_the_limit_is_refused_by_its_size_or_when_it_comes():
    receiver = ask(Wanted(b"a", limit=600))
    assert receiver.receive(b"\0\6tsize\x00601\0", 1, 1)[0].data[:4] == b"\0\5\0\3"
    receiver = ask(Wanted(b"a", limit=600))
    receiver.receive(b"\0\3\0\1" + b"x" * 512, 1, 1)
    assert receiver.receive(b"\0\3\0\2" + b"x" * 89, 1, 1)[0].data[:4] == b"\0\5\0\3"
    assert receiver.octets == 512


def test_an_error_from_the_server_ends_it_without_an_answer():
    receiver = ask(Wanted(b"a"))
    assert receiver.receive(b"\0\5\0\1no such file\0", 1, 1) == []
    assert receiver.outcome == Denied(1, b"no such file")


def test_a_doubled_last_block_is_acknowledged_again_after_the_end():
    receiver = ask(Wanted(b"a"))
    receiver.receive(b"\0\3\0\1end", 1, 1)
    assert receiver.receive(b"\0\3\0\1end", 1, 2) == [Packet(b"\0\4\0\1", 1)]
    assert receiver.take() == [b"end"]


def test_silence_ends_it():
    receiver = ask(Wanted(b"a"))
    asked = 1
    while receiver.deadline is not None:
        asked += len(receiver.tick(receiver.deadline))
    assert (receiver.outcome, asked) == (Silence(0), 6)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\3\0", b"\0\4\0\1", b"\0\1a\0octet\0", b"\0\x09", b"\0\6blk"])
def test_nonsense_from_the_server_does_no_harm_once_it_is_known(data: bytes):
    receiver = ask(Wanted(b"a"))
    receiver.receive(b"\0\3\0\1" + b"x" * 512, 1, 1)
    assert receiver.receive(data, 1, 2) == []
    assert receiver.outcome is None


# --- both, over a bad network in virtual time -------------------------------------------------------------------


@dataclass
class Network:
    """Datagrams with a delay; at random some are lost, some come twice, some late and so out of order."""

    seed: int
    loss: float
    double: float = 0.02
    late: float = 0.02
    delay: Ns = 2 * MS
    queue: list[tuple[Ns, int, str, bytes]] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def send(self, to: str, data: bytes, now: Ns) -> None:
        for _ in range(2 if self.random.random() < self.double else 1):
            self.sent += 1
            if self.random.random() >= self.loss:
                due = now + self.delay * (3 if self.random.random() < self.late else 1)
                heapq.heappush(self.queue, (due, self.sent, to, data))


@dataclass
class Played:
    sender: Sender | None
    receiver: Receiver
    body: bytes
    now: Ns
    sent: int


def play(body: bytes, wanted: Wanted, network: Network) -> Played:
    """The server of one file and a client of it, until both are through."""
    receiver, sender, agreed, now, got = Receiver(wanted), None, Agreed(), 0, bytearray()

    def to_client(count: int) -> None:
        assert sender is not None
        for block in range(sender.first, sender.first + count):
            if block == 0:
                data = wire.emit(wire.OptionAck(agreed.answer))
            else:
                at = (block - 1) * agreed.block_size
                data = wire.emit(wire.Data(block & 0xFFFF, body[at : at + agreed.block_size]))
            network.send("client", data, now)

    def to_server(packets: list[Packet]) -> None:
        for packet in packets:
            network.send("server", packet.data, now)

    to_server(receiver.start(0))
    for _ in range(1_000_000):
        times = [t for t in (receiver.deadline, sender and sender.deadline) if t is not None]
        if network.queue:
            times.append(network.queue[0][0])
        if not times:
            break
        now = max(now, min(times))
        if network.queue and network.queue[0][0] <= now:
            _, _, to, data = heapq.heappop(network.queue)
            if to == "client":
                to_server(receiver.receive(data, "server", now))
            else:
                match wire.parse(data):
                    case wire.ReadRequest(_, _, options):
                        if sender is None:
                            agreed = agree(options, size=len(body))
                            sender = Sender(len(body), agreed)
                            to_client(sender.start(now))
                        else:
                            to_client(sender.repeated(now))
                    case wire.Ack(block) if sender:
                        to_client(sender.acked(block, now))
                    case wire.Error(code, text) if sender:
                        sender.aborted(code, text)
                    case _:
                        pass
        if receiver.deadline is not None and receiver.deadline <= now:
            to_server(receiver.tick(now))
        if sender and sender.deadline is not None and sender.deadline <= now:
            to_client(sender.tick(now))
        got += b"".join(receiver.take())
    return Played(sender, receiver, bytes(got), now, network.sent)


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 5000, 40_000])
@pytest.mark.parametrize(
    "wanted",
    [Wanted(b"f", ask_size=False), Wanted(b"f"), Wanted(b"f", block_size=1468, window=4), Wanted(b"f", window=64)],
)
def test_a_good_network_carries_every_size(size: int, wanted: Wanted):
    played = play(blob(size), wanted, Network(seed=size, loss=0, double=0, late=0))
    assert played.body == blob(size)
    assert (played.receiver.outcome, played.sender and played.sender.outcome) == (Received(size), Finished(True))
    assert played.sender is not None
    assert played.sender.resent == 0


def test_a_file_of_more_than_65535_blocks():
    body = blob(8 * 66_000 + 3)
    played = play(body, Wanted(b"f", block_size=8, window=32), Network(seed=1, loss=0.001, double=0.001, late=0))
    assert played.body == body


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("window", [1, 4, 16])
def test_loss_doubling_and_reordering_never_change_an_octet(loss: float, window: int):
    body = blob(30_000)
    complete = 0
    for seed in range(12):
        played = play(body, Wanted(b"f", block_size=1024, window=window), Network(seed, loss))
        if isinstance(played.receiver.outcome, Received):
            complete += 1
            assert played.body == body
        else:  # a named failure, and nothing that was not in the file
            assert isinstance(played.receiver.outcome, Silence | Denied)
            assert body.startswith(played.body)
        assert played.sender is None or played.sender.outcome is not None
    assert complete == 12 if loss <= 0.2 else complete >= 10


def test_doubled_packets_do_not_double_the_transfer():
    body = blob(100_000)
    clean = play(body, Wanted(b"f", window=8), Network(seed=3, loss=0, double=0, late=0))
    doubled = play(body, Wanted(b"f", window=8), Network(seed=3, loss=0, double=1, late=0))
    assert doubled.body == body
    assert doubled.sent <= 2 * clean.sent + 16


@pytest.mark.parametrize(("window", "most"), [(1, 4.5), (16, 1.0)])
def test_loss_costs_time_in_proportion(window: int, most: float):
    """1 MB at 4 ms round trip and 1 % loss. With a fixed time-out of one second, 14 s would go to that in lock-step."""
    played = play(blob(1_000_000), Wanted(b"f", block_size=1468, window=window), Network(7, 0.01, double=0))
    assert isinstance(played.receiver.outcome, Received)
    assert played.now / S < most


class AnySender(RuleBasedStateMachine):
    """Whatever comes in whatever order: bounded sends, deadlines ahead, one outcome, nothing raised."""

    @initialize(
        size=st.integers(0, 200_000), block_size=st.integers(8, 2000), window=st.integers(1, 64), oack=st.booleans(),
        timeout=st.sampled_from([0, 1, 255]),
    )  # fmt: skip
    def start(self, size: int, block_size: int, window: int, oack: bool, timeout: int) -> None:
        answer = OACK if oack or window > 1 else ()
        self.sender = Sender(size, Agreed(block_size, window, timeout, answer))
        self.window, self.now, self.unproven_sends, self.requests = window, 0, self.sender.start(0), 1
        self.size, self.outcome = size, self.sender.outcome

    def sent(self, count: int) -> None:
        assert 0 <= count <= self.window
        if count:
            assert self.outcome is None
            assert 0 <= self.sender.first <= self.sender.first + count - 1 <= self.sender.last
            if not self.sender.proven:
                assert count == 1
                self.unproven_sends += 1

    @rule(block=st.integers(0, 0xFFFF))
    def any_ack(self, block: int) -> None:
        self.sent(self.sender.acked(block, self.now))

    @rule(ahead=st.integers(-2, 70))
    def near_ack(self, ahead: int) -> None:
        self.sent(self.sender.acked((self.sender.first + ahead) & 0xFFFF, self.now))

    @rule(after=st.integers(0, 40 * S))
    def time_passes(self, after: Ns) -> None:
        self.now += after
        self.sent(self.sender.tick(self.now))

    @rule()
    def deadline_comes(self) -> None:
        if self.sender.deadline is not None:
            self.now = max(self.now, self.sender.deadline)
            self.sent(self.sender.tick(self.now))

    @rule()
    def request_again(self) -> None:
        self.requests += 1
        self.sent(self.sender.repeated(self.now))

    @rule()
    def unreachable(self) -> None:
        self.sender.unreachable()

    @rule(code=st.integers(0, 9))
    def error(self, code: int) -> None:
        self.sender.aborted(code, b"")

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "sender"):
            return
        if self.outcome is not None:
            assert self.sender.outcome is self.outcome
        self.outcome = self.sender.outcome
        assert (self.sender.deadline is None) == (self.outcome is not None)
        assert 0 <= self.sender.acknowledged <= self.size
        assert self.unproven_sends <= 3 * self.requests


AnySender.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnySender = AnySender.TestCase
