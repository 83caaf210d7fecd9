"""Any order of calls, losses, repetitions and pauses keeps what a connection promises."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bootwire.engine import MS, S
from bootwire.engine.tcp import Config, Connection, State
from bootwire.wire import tcp


class TwoEnds(RuleBasedStateMachine):
    """What one end writes the other reads, in order and once; time stands still unless a rule moves it."""

    @initialize(
        iss=st.integers(0, 2**32 - 1),
        sack=st.booleans(),
        stamps=st.booleans(),
        buffer=st.integers(2000, 100_000),
        burst=st.sampled_from([0, 20_000]),
    )
    def open(self, iss, sack, stamps, buffer, burst):
        config = Config(
            sack=sack, timestamps=stamps, receive_buffer=buffer, send_buffer=50_000, user_timeout=300 * S, burst=burst
        )  # fmt: skip
        self.now = 0
        self.ends = [Connection(1, 2, iss, 0, config), None]
        self.config = config
        self.wires: list[list[bytes]] = [[], []]  # towards end 0, towards end 1
        self.written = [bytearray(), bytearray()]
        self.read_back = [bytearray(), bytearray()]
        self.over = [False, False]

    def flush(self):
        for i, end in enumerate(self.ends):
            if end:
                self.wires[1 - i] += [tcp.emit(s, 0) for s in end.transmit(self.now)]

    def hand_over(self, i, octets):
        segment = tcp.parse(octets)
        if self.ends[i] is None:
            if segment.flags & tcp.SYN:
                self.ends[i] = Connection(2, 1, 77, self.now, self.config, syn=segment)
        else:
            self.ends[i].receive(segment, self.now)
        self.flush()

    @rule(i=st.integers(0, 1), at=st.integers(0, 50), again=st.booleans())
    def deliver(self, i, at, again):
        self.flush()
        wire = self.wires[i]
        if wire:
            at %= len(wire)
            self.hand_over(i, wire[at] if again and len(wire) < 200 else wire.pop(at))

    @rule(i=st.integers(0, 1))
    def deliver_all(self, i):
        self.flush()
        batch, self.wires[i] = self.wires[i], []
        for octets in batch:
            self.hand_over(i, octets)

    @rule(i=st.integers(0, 1))
    def lose_all(self, i):
        self.flush()
        self.wires[i].clear()

    @rule(i=st.integers(0, 1), size=st.integers(1, 30_000))
    def write(self, i, size):
        if self.ends[i]:
            data = bytes((len(self.written[i]) + k) * 7 % 251 for k in range(size))
            taken = self.ends[i].write(data)
            self.written[i] += data[:taken]

    @rule(i=st.integers(0, 1), size=st.integers(1, 50_000))
    def read(self, i, size):
        if self.ends[i]:
            self.read_back[1 - i] += self.ends[i].read(size)

    @rule(i=st.integers(0, 1))
    def close(self, i):
        if self.ends[i]:
            self.ends[i].close(self.now)

    @rule(step=st.sampled_from([1, MS, 50 * MS, S, 10 * S]))
    def wait(self, step):
        self.now += step
        for end in self.ends:
            if end:
                end.tick(self.now)
        self.flush()

    @invariant()
    def promises(self):
        for i, end in enumerate(getattr(self, "ends", [])):
            if end is None:
                continue
            assert bytes(self.written[i]).startswith(bytes(self.read_back[i]))
            assert end.readable <= self.config.receive_buffer + 2  # the window is announced in units of its scale
            assert end._board.pipe >= 0
            assert end._board.pipe == sum(p.end - p.start for p in end._board._flight)
            assert end._board.sacked == sum(p.end - p.start for p in end._board._pieces if p.sacked)
            assert end._una <= end._nxt
            if end.state is State.CLOSED:
                assert end.deadline is None
            elif end.established and end._board:
                assert end.deadline is not None  # nothing in flight without a timer

    def teardown(self):
        """From any point a good network finishes the job, unless the machine already gave up."""
        if not hasattr(self, "ends"):
            return
        for _ in range(4000):
            self.deliver_all(0)
            self.deliver_all(1)
            for i, end in enumerate(self.ends):
                if end:
                    self.read_back[1 - i] += end.read(1 << 20)
            if not any(self.wires):
                times = [e.deadline for e in self.ends if e and e.deadline is not None]
                if not times:
                    break
                self.now = max(self.now, min(times))
                self.wait(0)
            self.promises()
        if all(e and e.failure is None for e in self.ends):
            ends = [(e.state, e.deadline, e.unsent, e._window, e.dropped) for e in self.ends]
            assert self.read_back == self.written, (self.now, ends)


TwoEnds.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTwoEnds = TwoEnds.TestCase
