"""Two connections and a bad wire between them, in virtual time."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise

import pytest

from bootwire.engine import MS, S
from bootwire.engine.tcp import Config, Connection, Failure, State
from bootwire.wire import tcp


@dataclass
class Wire:
    """A link with faults. Rates are 0..1, `delay` one way in ns, `rate` in octets a second (0: endless)."""

    seed: int = 1
    loss: float = 0
    duplicate: float = 0
    reorder: float = 0
    delay: int = 10 * MS
    rate: int = 0
    mtu: int = 0


CLEAN, DEFAULT = Wire(), Config()


class Pair:
    """A client and a server; `run` moves segments and time until both are done or time is up."""

    def __init__(self, wire: Wire = CLEAN, client: Config = DEFAULT, server: Config | None = None, iss=(1, 2)) -> None:
        self.wire, self.random, self.now, self.count = wire, random.Random(wire.seed), 0, 0
        self.queue: list[tuple[int, int, bool, bytes]] = []
        self.free = [0, 0]
        self.client = Connection(40000, 80, iss[0], 0, client, clock=77)
        self.server: Connection | None = None
        self.server_config, self.server_iss = server or client, iss[1]
        self.log: list[tuple[int, bool, tcp.Segment]] = []
        self.cut = False

    def send(self, to_server: bool, segments: list[tcp.Segment]) -> None:
        for segment in segments:
            self.log.append((self.now, to_server, segment))
            draw = self.random.random
            if self.cut or draw() < self.wire.loss or (self.wire.mtu and len(segment.payload) > self.wire.mtu):
                continue
            at = max(self.now, self.free[to_server])
            if self.wire.rate:
                at += (len(segment.payload) + 40) * S // self.wire.rate
            self.free[to_server] = at
            at += self.wire.delay
            if draw() < self.wire.reorder:
                at += self.random.randrange(1, 3) * self.wire.delay // 2
            for _ in range(1 + (draw() < self.wire.duplicate)):
                self.count += 1
                heappush(self.queue, (at, self.count, to_server, tcp.emit(segment, 0)))

    def flush(self) -> None:
        self.send(True, self.client.transmit(self.now))
        if self.server:
            self.send(False, self.server.transmit(self.now))

    def step(self) -> bool:
        """One event; False when nothing will ever happen again."""
        self.flush()
        times = [c.deadline for c in (self.client, self.server) if c and c.deadline is not None]
        times += [self.queue[0][0]] if self.queue else []
        if not times:
            return False
        self.now = max(self.now, min(times))
        while self.queue and self.queue[0][0] <= self.now:
            _, _, to_server, octets = heappop(self.queue)
            segment = tcp.parse(octets)
            if not to_server:
                self.client.receive(segment, self.now)
            elif self.server is None:
                if segment.flags & tcp.SYN:
                    self.server = Connection(80, 40000, self.server_iss, self.now, self.server_config, syn=segment)
            else:
                self.server.receive(segment, self.now)
        for c in (self.client, self.server):
            if c and c.deadline is not None and c.deadline <= self.now:
                c.tick(self.now)
        return True

    def until(self, condition) -> None:
        """Step until `condition()`; a test that waits for ever fails instead."""
        for _ in range(20_000):
            if condition():
                return
            assert self.step(), "nothing will ever happen again"
        raise AssertionError("it never happened")

    def transfer(self, up: bytes = b"", down: bytes = b"", limit: int = 1000 * S) -> tuple[bytes, bytes]:
        """Send both ways, close both ways, until everything is closed, or `limit`."""
        got = [bytearray(), bytearray()]
        sent = [0, 0]
        while self.now < limit:
            for i, (c, data) in enumerate(((self.client, up), (self.server, down))):
                if c is None:
                    continue
                sent[i] += c.write(data[sent[i] : sent[i] + c.room])
                got[i] += c.read(1 << 20)
                if sent[i] == len(data) and c.established:
                    c.close(self.now)
            if not self.step():
                break
        for i, c in enumerate((self.client, self.server)):
            got[i] += c.read(1 << 30) if c else b""
        return bytes(got[1]), bytes(got[0])


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def established(**kw) -> Pair:
    pair = Pair(**kw)
    pair.until(lambda: pair.server and pair.server.state is State.ESTABLISHED)
    pair.until(lambda: not pair.queue)
    return pair


def test_a_clean_transfer_arrives_and_both_sides_close():
    pair = Pair()
    up, down = noise(100_000), noise(300_000, 1)
    assert pair.transfer(up, down) == (up, down)
    assert pair.client.state is pair.server.state is State.CLOSED
    assert pair.client.failure is pair.server.failure is None
    assert pair.client.retransmitted == pair.server.retransmitted == 0


@pytest.mark.parametrize("iss", [0, 2**31 - 1000, 2**32 - 1, 2**32 - 70_000])
def test_sequence_numbers_wrap(iss):
    pair = Pair(iss=(iss, (iss + 7) % 2**32))
    data = noise(200_000)
    assert pair.transfer(data, data) == (data, data)


BARE = Config(sack=False, timestamps=False, window_scaling=False)


@pytest.mark.parametrize(
    "config",
    [Config(), BARE, Config(sack=False), Config(timestamps=False)],
    ids=["full", "bare", "no sack", "no stamps"],
)
@pytest.mark.parametrize("loss", [0.01, 0.05, 0.1, 0.2, 0.3])
def test_every_transfer_under_loss_ends_byte_exact_or_in_a_named_failure(loss, config):
    for seed in range(3):
        pair = Pair(Wire(seed=seed, loss=loss, duplicate=0.02, reorder=0.05), config)
        data = noise(60_000, seed)
        up, down = pair.transfer(data, data)
        failed = pair.client.failure or pair.server is None or pair.server.failure
        assert failed or (up, down) == (data, data)
        assert data.startswith(up)
        assert data.startswith(down)
        assert failed or pair.client.state is pair.server.state is State.CLOSED


def test_reordering_alone_causes_hardly_any_retransmission_once_it_is_known():
    pair = Pair(Wire(reorder=0.1, delay=10 * MS, rate=2_000_000))
    data = noise(2_000_000)
    assert pair.transfer(data)[0] == data
    assert pair.client.retransmitted < len(data) // 20


def test_one_loss_in_a_window_is_repaired_within_a_round_trip_of_being_noticed():
    pair = established(wire=Wire(delay=50 * MS))
    data = noise(8 * 1448)
    pair.client.write(data)
    segments = pair.client.transmit(pair.now)
    assert len(segments) == 8
    start = pair.now
    pair.send(True, segments[:2] + segments[3:])
    pair.until(lambda: pair.server.readable >= len(data))
    assert pair.now - start <= 175 * MS  # there, back, there again, and a quarter of a round trip for reordering
    assert pair.client.retransmitted == 1448


def test_a_lost_last_segment_is_repaired_by_a_probe_long_before_the_timer():
    pair = established(wire=Wire(delay=20 * MS))
    pair.client.write(noise(5 * 1448))
    start = pair.now
    pair.send(True, pair.client.transmit(pair.now)[:4])
    pair.until(lambda: pair.server.readable >= 5 * 1448)
    assert pair.now - start < 200 * MS


def test_the_timer_doubles_and_a_silent_peer_is_given_up():
    pair = established(client=Config(user_timeout=30 * S))
    pair.cut = True
    pair.client.write(b"anybody there?")
    pair.log.clear()
    pair.until(lambda: pair.client.state is State.CLOSED)
    times = [t for t, up, s in pair.log if up and s.payload]
    gaps = [b - a for a, b in pairwise(times[2:])]
    assert len(gaps) >= 4
    assert all(b == 2 * a for a, b in pairwise(gaps))
    assert pair.client.failure is Failure.TIMED_OUT
    assert 30 * S <= pair.now < 60 * S


def test_a_connect_that_nobody_answers_fails_by_name():
    pair = Pair(Wire(loss=1))
    assert pair.transfer() == (b"", b"")
    assert (pair.client.state, pair.client.failure) == (State.CLOSED, Failure.TIMED_OUT)
    assert [t // S for t, _, _ in pair.log] == [0, 1, 3, 7, 15, 31]


def test_a_refused_connect_fails_by_name():
    client = Connection(1000, 80, 5, 0)
    (syn,) = client.transmit(0)
    client.receive(tcp.Segment(80, 1000, 0, syn.seq + 1, tcp.RST | tcp.ACK, 0), 1)
    assert client.failure is Failure.REFUSED


def test_simultaneous_open():
    a, b = Connection(1, 2, 100, 0), Connection(2, 1, 2**32 - 1, 0)
    now = 0
    to_b, to_a = a.transmit(0), b.transmit(0)
    for _ in range(6):
        now += MS
        for s in to_b:
            b.receive(s, now)
        for s in to_a:
            a.receive(s, now)
        to_b, to_a = a.transmit(now), b.transmit(now)
    assert a.state is b.state is State.ESTABLISHED
    assert (to_a, to_b) == ([], [])


def test_half_close_the_other_direction_goes_on():
    pair = established()
    pair.client.close(pair.now)
    for _ in range(6):
        pair.step()
    assert (pair.client.state, pair.server.state) == (State.FIN_WAIT_2, State.CLOSE_WAIT)
    assert pair.server.at_end
    data = noise(50_000)
    pair.server.write(data)
    pair.until(lambda: pair.client.readable >= len(data))
    assert pair.client.read(1 << 20) == data
    pair.server.close(pair.now)
    pair.until(lambda: pair.server.state is State.CLOSED)
    assert pair.client.state is State.TIME_WAIT


def test_simultaneous_close_passes_through_closing():
    pair = established()
    pair.client.close(pair.now)
    pair.server.close(pair.now)
    pair.step()
    assert pair.client.state is pair.server.state is State.CLOSING
    pair.step()
    assert pair.client.state is pair.server.state is State.TIME_WAIT
    assert pair.client.deadline == pair.now + 60 * S


def test_time_wait_answers_a_repeated_fin_and_starts_over():
    pair = established()
    pair.client.close(pair.now)
    pair.until(lambda: pair.client.state is State.FIN_WAIT_2)
    pair.server.close(pair.now)
    (fin,) = pair.server.transmit(pair.now)
    pair.client.receive(fin, pair.now)
    pair.client.transmit(pair.now)
    assert pair.client.state is State.TIME_WAIT
    again = pair.now + S
    pair.client.receive(replace(fin, options=tcp.Options(timestamps=fin.options.timestamps)), again)
    assert len(pair.client.transmit(again)) == 1
    assert pair.client.deadline == again + 60 * S


def test_a_zero_window_is_probed_and_opens_again():
    pair = established(client=Config(receive_buffer=20_000))
    data = noise(100_000)
    sent = pair.client.write(data)
    start = pair.now
    pair.until(lambda: pair.now >= start + 10 * S)
    assert pair.server.readable == 20_000
    probes = [t for t, up, s in pair.log if up and not s.payload and t > start + S]
    assert 3 <= len(probes) <= 8
    got = bytearray()
    while len(got) < len(data):
        got += pair.server.read(5000)
        sent += pair.client.write(data[sent:])
        pair.step()
    assert got == data


@pytest.mark.parametrize(("scaling", "waiting"), [(True, 200_000), (False, 60_000)])
def test_a_reader_that_catches_up_says_so_at_once(scaling, waiting):
    """Without scaling the window is 64 KiB at most, however large the buffer."""
    pair = Pair(client=Config(), server=Config(window_scaling=scaling))
    pair.until(lambda: pair.server and pair.server.established)
    pair.server.write(bytes(1 << 21))
    pair.until(lambda: pair.client.readable >= waiting)
    pair.flush()  # what was to be acknowledged is
    before = len(pair.log)
    assert pair.client.read(1 << 21)
    pair.flush()
    (update,) = [segment for _, to_server, segment in pair.log[before:] if to_server]
    assert update.window << (pair.client._our_scale if scaling else 0) > waiting


def test_a_lost_window_update_is_found_by_the_probe():
    pair = established(client=Config(receive_buffer=8000))
    pair.client.write(noise(16_000))
    pair.until(lambda: pair.server.readable >= 8000)
    pair.cut = True
    pair.server.read(8000)
    pair.flush()
    pair.cut = False
    pair.until(lambda: pair.server.readable >= 8000)
    assert pair.now < 5 * S


def test_the_right_edge_of_the_window_never_moves_left():
    pair = Pair(client=Config(receive_buffer=70_000), wire=Wire(loss=0.05, seed=4))
    data = noise(400_000)
    assert pair.transfer(data)[0] == data
    edge = 0
    for _, up, segment in pair.log:
        if not up and segment.flags == tcp.ACK and segment.flags & tcp.ACK:
            here = (segment.ack - 1) % 2**32 + (segment.window << 2)
            assert here >= edge
            edge = max(edge, here)


def test_small_writes_wait_for_the_acknowledgement_unless_nodelay():
    pair = established()
    for _ in range(10):
        pair.client.write(b"x" * 10)
        pair.flush()
    assert [len(s.payload) for _, up, s in pair.log if s.payload] == [10]
    pair = established(client=Config(nodelay=True))
    for _ in range(10):
        pair.client.write(b"x" * 10)
        pair.flush()
    assert [len(s.payload) for _, up, s in pair.log if s.payload] == [10] * 10


def test_a_single_segment_is_acknowledged_late_and_the_second_at_once():
    pair = established(wire=Wire(delay=MS), client=Config(nodelay=True))
    pair.client.write(noise(1448))
    start = pair.now
    pair.log.clear()
    pair.until(lambda: any(not up for _, up, _ in pair.log))
    assert pair.log[-1][0] == start + MS + 40 * MS
    pair.client.write(noise(1448 + 10))
    start = pair.now
    pair.log.clear()
    pair.until(lambda: any(not up for _, up, _ in pair.log))
    assert pair.log[-1][0] == start + MS


def test_a_super_segment_is_offered_to_a_link_that_cuts_it():
    pair = established(client=Config(burst=65_000, send_buffer=1 << 20))
    pair.client.write(noise(100_000))
    pair.flush()
    sizes = [len(s.payload) for _, up, s in pair.log if s.payload]
    assert sizes == [10 * 1448]  # the initial window, in one go
    pair.until(lambda: pair.server.readable >= 100_000)
    sizes = [len(s.payload) for _, up, s in pair.log if s.payload]
    assert max(sizes) > 20_000
    assert all(size % 1448 == 0 for size in sizes[:-1])
    assert pair.server.read(1 << 20) == noise(100_000)


def test_a_blind_reset_is_challenged_and_only_the_exact_number_believed():
    pair = established()
    here = pair.server
    expected = 2  # the client's ISS is 1
    reset = tcp.Segment(40000, 80, expected + 100, 0, tcp.RST, 0)
    here.receive(reset, pair.now)
    assert here.state is State.ESTABLISHED
    assert [s.flags for s in here.transmit(pair.now)] == [tcp.ACK]
    here.receive(replace(reset, seq=expected - 1), pair.now)
    assert here.state is State.ESTABLISHED
    here.receive(replace(reset, seq=expected), pair.now)
    assert here.failure is Failure.RESET


def test_a_syn_in_a_connection_is_challenged_at_a_limited_rate():
    pair = established(client=Config(timestamps=False))
    syn = tcp.Segment(40000, 80, 500, 0, tcp.SYN, 100)
    answers = 0
    for _ in range(100):
        pair.server.receive(syn, pair.now)
        answers += len(pair.server.transmit(pair.now))
    assert answers == 10
    assert pair.server.state is State.ESTABLISHED


def test_an_old_timestamp_is_not_believed():
    pair = established()
    data = tcp.Segment(40000, 80, 2, 3, tcp.ACK, 100, b"evil", tcp.Options(timestamps=(1, 0)))
    pair.server.receive(data, pair.now)
    assert pair.server.readable == 0
    assert pair.server.dropped["timestamp too old"] == 1


def test_an_acknowledgement_of_what_was_never_sent_is_not_believed():
    pair = established(client=Config(timestamps=False))
    pair.server.receive(tcp.Segment(40000, 80, 2, 50_000, tcp.ACK, 100, b"evil"), pair.now)
    assert pair.server.readable == 0
    assert [s.flags for s in pair.server.transmit(pair.now)] == [tcp.ACK]


def test_data_for_a_user_who_left_is_answered_by_reset():
    pair = established()
    pair.server.abandon(pair.now)
    pair.client.write(b"more")
    pair.until(lambda: pair.client.state is State.CLOSED)
    assert pair.client.failure is Failure.RESET


def test_closing_with_unread_data_resets():
    pair = established()
    pair.client.write(b"unread")
    pair.until(lambda: pair.server.readable)
    pair.server.abandon(pair.now)
    pair.until(lambda: pair.client.state is State.CLOSED)
    assert pair.client.failure is Failure.RESET


def test_keepalive_finds_a_dead_peer_and_keeps_a_living_one():
    config = Config(keepalive=10 * S, keepalive_gap=S, keepalive_probes=3)
    pair = established(client=config, server=Config())
    pair.until(lambda: pair.now >= 100 * S)
    assert pair.client.state is State.ESTABLISHED
    pair.cut = True
    pair.until(lambda: pair.client.state is State.CLOSED)
    assert pair.client.failure is Failure.TIMED_OUT
    assert pair.now < 125 * S


def test_a_smaller_path_mtu_is_learned_from_icmp_and_everything_is_sent_again():
    pair = established(wire=Wire(mtu=1000))
    data = noise(30_000)
    pair.client.write(data)
    pair.flush()
    first = next(s for _, up, s in pair.log if up and s.payload)
    pair.client.path_mtu(1000, first.seq)
    pair.until(lambda: pair.server.readable >= len(data))
    assert pair.server.read(1 << 20) == data
    assert pair.client.mss == 1000 - 32
    assert pair.now < S


def test_icmp_about_numbers_not_in_flight_is_ignored():
    pair = established()
    pair.client.path_mtu(500, 99_999)
    pair.client.unreachable("host unreachable", True, 99_999)
    assert (pair.client.mss, pair.client.state) == (1448, State.ESTABLISHED)


def test_a_peer_that_reports_single_octets_by_sack_costs_no_memory():
    pair = established(client=Config(burst=65_000))
    pair.client.write(noise(14_480))
    pair.flush()
    una = 2
    for i in range(0, 14_000, 8):
        blocks = tuple((una + 1 + i + j, una + 2 + i + j) for j in (0, 2, 4))
        stamps = (pair.server._stamp(pair.now), 0)
        pair.client.receive(
            tcp.Segment(80, 40000, 3, una, tcp.ACK, 5000, options=tcp.Options(sack=blocks, timestamps=stamps)), pair.now
        )
    assert len(pair.client._board._pieces) <= 11


def test_the_same_seed_gives_the_same_segments():
    def run():
        pair = Pair(Wire(seed=9, loss=0.1, reorder=0.1, duplicate=0.1))
        pair.transfer(noise(50_000), noise(20_000))
        return pair.log

    assert run() == run()
