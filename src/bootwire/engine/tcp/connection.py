"""One TCP connection (RFC 9293) as an engine: segments and time in, segments out, no I/O.

Longer than other modules because the state machine is one thing: segment arrival, the calls of the user and the timers
read and write the same dozen numbers. What could be taken out has been: `send` (what is in flight), `receive` (what
has arrived), `congestion` (how much may be in flight), `sequence` (numbers without wrap).

Kept to: RFC 9293 with RFC 5961 (blind attacks), 6298 (timer), 9438 (CUBIC), 5681 and 6582 (recovery with peers that
have no SACK), 2018, 2883 and 6675 (SACK), 8985 (RACK and tail loss probe), 7323 (scale, timestamps, PAWS), 1122 section
4.2.3.4 (silly windows, Nagle, delayed acknowledgement). Not here: urgent data (read as ordinary octets), ECN, fast
open, MPTCP.

A window probe carries no octet of data but the number before the first unacknowledged one, as Linux does; RFC 9293
section 3.8.6.1 would send one octet.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass

from bootwire.engine import MS, Ns, S
from bootwire.engine.tcp.congestion import INITIAL_RTO, MAX_RTO, MIN_RTO, Cubic, RoundTrip
from bootwire.engine.tcp.receive import Inbox
from bootwire.engine.tcp.send import DUPLICATES, Outbox, Piece, Scoreboard
from bootwire.engine.tcp.sequence import MASK, unwrap
from bootwire.wire.tcp import ACK, FIN, PSH, RST, SYN, Options, Segment

DEFAULT_MSS = 536  # octets, if the peer does not say (RFC 9293 section 3.7.1)
SCALE_MAX = 14  # RFC 7323 section 2.3
_TIMESTAMP_SIZE = 12  # octets of header that timestamps take in every segment
_PAWS_LIMIT: Ns = 24 * 24 * 3600 * S  # RFC 7323 section 5.5: after 24 days the peer's clock may have wrapped
_DELAYED_ACK: Ns = 40 * MS  # RFC 1122 section 4.2.3.2 allows 500; 40 is Linux's least
_CHALLENGES = 10  # a second and connection (RFC 5961 section 7 leaves the number open)
_LONELY: Ns = 60 * S  # FIN-WAIT-2 without a reader, as Linux's tcp_fin_timeout
_ANSWERS_MAX = 4  # resets waiting to go out


class State(enum.Enum):
    """RFC 9293 section 3.3.2. LISTEN is `Listener`'s."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


class Failure(enum.Enum):
    """Why a connection ended other than by both sides closing it."""

    REFUSED = "connection refused"
    RESET = "connection reset by peer"
    TIMED_OUT = "timed out"
    UNREACHABLE = "destination unreachable"
    ABORTED = "aborted here"


@dataclass(frozen=True, slots=True)
class Config:
    """What a connection may do.

    mss              octets of payload we can take in a segment, announced in the SYN
    mtu_payload      octets of TCP header and payload that the path takes, as far as we know
    burst            octets of payload in a segment that the link will cut for us (TSO); 0: it does not
    receive_buffer   octets, the largest window; send_buffer: octets written but not acknowledged
    nodelay          True: no Nagle
    user_timeout     without progress for so long the connection fails (RFC 9293 section 3.8.3: at least 100 s)
    connect_timeout  the same before it is established
    keepalive        idle time before the first probe, 0: never; then every keepalive_gap, keepalive_probes times
    time_wait        2 MSL; RFC 9293 says 4 minutes, Linux 60 s
    """

    mss: int = 1460
    mtu_payload: int = 1480
    burst: int = 0
    receive_buffer: int = 1 << 20
    send_buffer: int = 1 << 20
    window_scaling: bool = True
    sack: bool = True
    timestamps: bool = True
    nodelay: bool = False
    delayed_ack: Ns = _DELAYED_ACK
    initial_rto: Ns = INITIAL_RTO
    min_rto: Ns = MIN_RTO
    user_timeout: Ns = 120 * S
    connect_timeout: Ns = 60 * S
    keepalive: Ns = 0
    keepalive_gap: Ns = 15 * S
    keepalive_probes: int = 5
    time_wait: Ns = 60 * S


_SYNCHRONISED_OPEN = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)  # the peer may send data
_MAY_SEND = (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK)


class Connection:
    """One side of a connection, from the first SYN to CLOSED.

    In     receive(segment, now), tick(now); write, read, close, abandon, abort from the user
    Out    transmit(now) -> segments to send, in order. Call it after every input; `deadline` says when tick is due
    Size   a segment handed out may be longer than `mss` when Config.burst says so: the link cuts it every `mss` octets
    Peer   nothing the peer sends raises; `dropped` counts by reason what was not believed

    iss: initial sequence number, 0..2**32-1, unpredictable (RFC 6528); clock: offset of our timestamps, likewise.
    """

    def __init__(
        self,
        local: int,
        remote: int,
        iss: int,
        now: Ns,
        config: Config = Config(),
        clock: int = 0,
        *,
        syn: Segment | None = None,
    ) -> None:
        """syn: None opens actively; else the peer's SYN, and we answer it."""
        self.local, self.remote, self.config = local, remote, config
        self.state = State.SYN_SENT
        self.failure: Failure | None = None
        self.dropped: Counter[str] = Counter()
        self.soft_error = ""  # the last ICMP error that was not believed to be final
        self.retransmitted = 0  # octets
        self._passive = syn is not None
        # sending (RFC 9293 section 3.3.1), unwrapped
        self._iss = self._una = self._nxt = iss
        self._window = 1  # SND.WND; one octet lets the SYN go
        self._widest = 0
        self._wl1 = self._wl2 = 0
        self._outbox = Outbox(iss + 1)
        self._board = Scoreboard()
        self._fin: int | None = None  # the number of our FIN, once sent
        self._closing = False  # the user has closed: FIN goes after the data
        self._mss = DEFAULT_MSS
        self._control = Cubic(self._mss)
        self._rtt = RoundTrip(config.initial_rto, config.min_rto)
        self._limited = False  # the congestion window was what stopped the last transmit
        self._duplicates = 0  # acknowledgements in a row that say nothing new; for peers without SACK
        self._last_sent: Ns = now
        self._progress: Ns = now  # when the peer last acknowledged something, or we began to wait for that
        self._syn_due = True
        # receiving
        self._irs = 0
        self._inbox = Inbox(0)
        self._rcv_fin: int | None = None  # the number of the peer's FIN
        self._advertised = 0  # the right edge of the window as last announced
        self._deaf = False  # the user will not read any more
        self._ack_now = False
        self._unreported = 0  # octets received since our last acknowledgement
        self._heard: Ns = now
        # options agreed
        self._sack = self._timestamps = False
        self._peer_scale = self._our_scale = 0
        self._recent = 0  # TS.Recent
        self._recent_at: Ns = 0
        self._last_ack = 0  # Last.ACK.sent
        self._clock = clock
        # timers: each None or a moment
        self._rto_at: Ns | None = None
        self._probe_at: Ns | None = None  # tail loss probe
        self._reorder_at: Ns | None = None
        self._ack_at: Ns | None = None
        self._persist_at: Ns | None = None
        self._persist_count = 0
        self._force = False  # send into a small window, once (RFC 9293 section 3.8.6.2.1)
        self._keepalive_at: Ns | None = None
        self._keepalive_count = 0
        self._end_at: Ns | None = now + config.connect_timeout  # of the connect, of FIN-WAIT-2, of TIME-WAIT
        self._tlp_end: int | None = None
        self._probing = False  # the next retransmission is a probe, whatever the window says
        self._reorder_factor = 1  # of RFC 8985 section 6.2 step 4
        self._reorder_round = 0
        self._answers: list[Segment] = []
        self._challenge_window: Ns = 0
        self._challenges = 0
        if syn is not None:
            self.state = State.SYN_RECEIVED
            self._meet(syn, now)
            self._window = max(1, syn.window)

    # --- what the user sees ---------------------------------------------------------------------------------------

    @property
    def mss(self) -> int:
        """Octets of payload that fit in one segment on the path, options taken off."""
        return self._mss

    @property
    def established(self) -> bool:
        """Whether both sides have agreed (and may have begun to close since)."""
        return self.state not in (State.SYN_SENT, State.SYN_RECEIVED, State.CLOSED)

    @property
    def readable(self) -> int:
        """Octets that `read` would give."""
        return self._inbox.size

    @property
    def at_end(self) -> bool:
        """Nothing to read and nothing to come."""
        if self._inbox.size:
            return False
        return self.state is State.CLOSED or (self._rcv_fin is not None and self._inbox.next >= self._rcv_fin)

    @property
    def room(self) -> int:
        """Octets that `write` would take now; 0 when closed or closing."""
        if self._closing or self.state is State.CLOSED:
            return 0
        return max(0, self.config.send_buffer - len(self._outbox))

    @property
    def unsent(self) -> int:
        """Octets written that the peer has not acknowledged."""
        return len(self._outbox)

    @property
    def deadline(self) -> Ns | None:
        """When `tick` is next due; None: nothing is awaited."""
        return min(
            (
                at for at in (
                    self._rto_at, self._probe_at, self._reorder_at, self._ack_at,
                    self._persist_at, self._keepalive_at, self._end_at,
                ) if at is not None
            ),
            default=None,
        )  # fmt: skip

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take octets to be sent; how many were taken (see `room`). Before the connection is established, too."""
        room = self.room
        if room <= 0:
            return 0
        taken = data if len(data) <= room else memoryview(data)[:room]
        self._outbox.write(taken)
        return len(taken)

    def read(self, limit: int) -> bytes:
        """Octets in order, at most `limit`; b"" when there are none yet, or `at_end`."""
        data = self._inbox.read(limit)
        if data and self.state is not State.CLOSED:
            grown = self._right_edge() - self._advertised
            buffer = self._largest_window
            if grown >= min(buffer // 2, max(2 * self.config.mss, buffer // 8)):  # RFC 1122 section 4.2.3.3
                self._ack_now = True
        return data

    def close(self, now: Ns) -> None:
        """No more writing: FIN after what was written. Reading goes on. Closing twice is nothing."""
        if self._closing or self.state is State.CLOSED:
            return
        self._closing = True
        if self.state is State.SYN_SENT:
            self._end(None)
        elif self.state is State.ESTABLISHED:
            self.state = State.FIN_WAIT_1
        elif self.state is State.CLOSE_WAIT:
            self.state = State.LAST_ACK
        self._progress = now if not self._board else self._progress

    def abandon(self, now: Ns) -> None:
        """Nobody will read or write any more: close, or reset if data was thrown away (RFC 1122 section 4.2.2.13)."""
        if self.state is State.CLOSED:
            return
        if self._inbox.size:
            self.abort()
            return
        self._deaf = True
        self.close(now)
        if self.state is State.FIN_WAIT_2:
            self._end_at = now + _LONELY

    def abort(self) -> None:
        """End at once; the peer is told by RST if it knows of us."""
        if self.state in (State.CLOSED, State.SYN_SENT, State.TIME_WAIT):
            self._end(Failure.ABORTED if self.state is State.SYN_SENT else None)
            return
        reset = Segment(self.local, self.remote, self._nxt & MASK, self._rcv_nxt & MASK, RST | ACK, 0)
        self._end(Failure.ABORTED)
        self._answers = [reset]

    # --- segment arrival (RFC 9293 section 3.10.7) ----------------------------------------------------------------

    def receive(self, segment: Segment, now: Ns) -> None:
        """A segment of this connection with a right checksum arrived."""
        if self.state is State.CLOSED:
            return
        if self.state is State.SYN_SENT:
            self._receive_first(segment, now)
            return
        seq = unwrap(segment.seq, self._inbox.next)
        flags = segment.flags
        if self.state is State.SYN_RECEIVED and flags & SYN and seq == self._irs:
            if not flags & ACK:
                self._syn_due = True  # the peer's SYN again: our answer was lost
                return
            seq += 1  # the answer to a simultaneous open: its SYN has been counted
            flags &= ~SYN
        if not self._fresh(segment, seq, flags, now):
            return
        edge = self._advertised
        end = seq + segment.length
        expected = self._rcv_nxt
        acceptable = expected <= seq <= edge if end == seq else end > expected and seq < edge
        if not acceptable:
            if flags & RST:
                self._drop("reset outside the window")
                return
            self._drop("outside the window")
            if segment.payload or flags & (FIN | SYN):
                self._ack_now = True  # a retransmission, or a window probe
                if seq < expected and segment.payload:
                    self._inbox.duplicate = (seq, min(end, expected))
            else:
                self._challenge(now)
            if self.state is State.TIME_WAIT and flags & FIN:
                self._end_at = now + self.config.time_wait
            if seq != expected or flags & SYN:
                return
            segment_data = b""  # a full window must not keep acknowledgements out (RFC 9293 section 3.10.7.4)
            flags &= ~FIN
        else:
            segment_data = segment.payload
        if flags & RST:
            self._receive_reset(seq, now)
            return
        if flags & SYN:
            self._drop("SYN in a connection")  # RFC 5961 section 4.2
            self._challenge(now)
            return
        if not flags & ACK:
            self._drop("no acknowledgement")
            return
        self._heard = now
        self._keepalive_count = 0
        if self.config.keepalive:
            self._keepalive_at = now + self.config.keepalive
        stamps = segment.options.timestamps
        if stamps is not None and self._timestamps and seq <= self._last_ack:  # RFC 7323 section 4.3
            self._recent, self._recent_at = stamps[0], now
        if not self._receive_ack(segment, seq, now):
            return
        if segment_data:
            self._receive_text(segment_data, seq, now)
        if flags & FIN:
            self._rcv_fin = seq + len(segment.payload) if self._rcv_fin is None else self._rcv_fin
            self._ack_now = True
        self._notice_fin(now)

    def unreachable(self, because: str, hard: bool, quoted_seq: int) -> None:
        """An ICMP error quoted one of our segments. hard: port or protocol unreachable, prohibited.

        Only a connection that is not established yet believes it (RFC 5927 section 4, RFC 5461).
        """
        if not self._una <= unwrap(quoted_seq, self._una) <= self._nxt:
            self._drop("ICMP error about a segment not in flight")
            return
        self.soft_error = because
        if self.state in (State.SYN_SENT, State.SYN_RECEIVED) and hard:
            self._end(Failure.UNREACHABLE)

    def path_mtu(self, payload: int, quoted_seq: int) -> None:
        """The path takes only `payload` octets of TCP header and data; an ICMP error says so."""
        if not self._una <= unwrap(quoted_seq, self._una) <= self._nxt:
            self._drop("ICMP error about a segment not in flight")
            return
        mss = payload - 20 - (_TIMESTAMP_SIZE if self._timestamps else 0)
        if not 48 <= mss < self._mss:  # 88 octets of header at least, RFC 791's 68 for IPv4
            return
        self._mss = mss
        self._control.resize(mss)
        self._board.give_up_all()  # what was in flight was too big, too

    def supersedes(self, segment: Segment) -> bool:
        """Whether this SYN may open a new connection in place of ours in TIME-WAIT (RFC 6191 section 2)."""
        if self.state is not State.TIME_WAIT or segment.flags & (SYN | RST | ACK) != SYN:
            return False
        stamps = segment.options.timestamps
        if stamps is not None and self._timestamps and stamps[0] != self._recent:
            return unwrap(stamps[0], self._recent) > self._recent
        return unwrap(segment.seq, self._inbox.next) > self._rcv_nxt

    def _receive_first(self, segment: Segment, now: Ns) -> None:
        """SYN-SENT (RFC 9293 section 3.10.7.3)."""
        ack = unwrap(segment.ack, self._una)
        if segment.flags & ACK and not self._iss < ack <= self._nxt:
            self._drop("acknowledges what was never sent")
            if not segment.flags & RST:
                self._answer(Segment(self.local, self.remote, segment.ack, 0, RST, 0))
            return
        if segment.flags & RST:
            if segment.flags & ACK:
                self._end(Failure.REFUSED)
            else:
                self._drop("reset without acknowledgement")
            return
        if not segment.flags & SYN:
            self._drop("no SYN")
            return
        self._meet(segment, now)
        if not segment.flags & ACK:
            self.state = State.SYN_RECEIVED  # simultaneous open
            self._syn_due = True
            return
        self._establish(segment, segment.seq, ack, now)
        self._window = self._widest = segment.window  # a SYN's window is never scaled (RFC 7323 section 2.2)
        self._ack_now = True
        seq = self._irs + 1
        if segment.payload:
            self._receive_text(segment.payload, seq, now)
        if segment.flags & FIN:
            self._rcv_fin = seq + len(segment.payload)
        self._notice_fin(now)

    def _meet(self, syn: Segment, now: Ns) -> None:
        """Learn what the peer's SYN says."""
        options, config = syn.options, self.config
        self._irs = syn.seq
        self._inbox = Inbox(syn.seq + 1)
        self._last_ack = syn.seq + 1
        if config.window_scaling and options.scale is not None:
            self._peer_scale = min(options.scale, SCALE_MAX)
            self._our_scale = self._scale_wanted()
        self._sack = config.sack and options.sack_permitted
        if config.timestamps and options.timestamps is not None:
            self._timestamps = True
            self._recent, self._recent_at = options.timestamps[0], now
        mss = min(options.mss or DEFAULT_MSS, config.mtu_payload - 20)
        self._mss = max(mss - (_TIMESTAMP_SIZE if self._timestamps else 0), 48)
        self._control = Cubic(self._mss)
        self._advertised = self._inbox.next + min(config.receive_buffer, 0xFFFF)

    def _establish(self, segment: Segment, seq: int, ack: int, now: Ns) -> None:
        self.state = State.ESTABLISHED
        if self._closing:
            self.state = State.FIN_WAIT_1
        self._end_at = None
        self._wl1, self._wl2 = seq, ack
        self._window = segment.window << self._peer_scale
        self._widest = max(self._widest, self._window)
        self._advance(ack, segment, now)
        if self.config.keepalive:
            self._keepalive_at = now + self.config.keepalive

    def _fresh(self, segment: Segment, seq: int, flags: int, now: Ns) -> bool:
        """PAWS (RFC 7323 section 5.3)."""
        if not self._timestamps or flags & RST:
            return True
        stamps = segment.options.timestamps
        if stamps is None:
            self._drop("timestamp missing")  # RFC 7323 section 3.2
            return False
        if unwrap(stamps[0], self._recent) < self._recent and now - self._recent_at < _PAWS_LIMIT:
            self._drop("timestamp too old")
            if segment.payload or flags & (SYN | FIN):
                self._ack_now = True
            return False
        return True

    def _receive_reset(self, seq: int, now: Ns) -> None:
        """RFC 5961 section 3.2: only a reset at exactly the awaited number is believed at once."""
        if seq != self._rcv_nxt:
            self._drop("reset not at the awaited number")
            self._challenge(now)
        elif self.state is State.SYN_RECEIVED:
            self._end(Failure.REFUSED)
        elif self.state in (State.TIME_WAIT, State.CLOSING, State.LAST_ACK):
            self._end(None if self.state is State.TIME_WAIT else Failure.RESET)
        else:
            self._end(Failure.RESET)

    def _receive_ack(self, segment: Segment, seq: int, now: Ns) -> bool:
        """RFC 9293 section 3.10.7.4, "check the ACK field". False: the segment goes no further."""
        ack = unwrap(segment.ack, self._una)
        if self.state is State.SYN_RECEIVED:
            if not self._una < ack <= self._nxt:
                self._drop("acknowledges what was never sent")
                self._answer(Segment(self.local, self.remote, segment.ack, 0, RST, 0))
                return False
            self._establish(segment, seq, ack, now)
            return True
        if ack > self._nxt or ack < self._una - max(self._widest, 0xFFFF):  # RFC 5961 section 5.2
            self._drop("acknowledges what was never sent" if ack > self._nxt else "acknowledgement too old")
            self._challenge(now)
            return False
        if ack < self._una:
            return True
        window = segment.window << self._peer_scale
        same_window = window == self._window
        if self._wl1 < seq or (self._wl1 == seq and self._wl2 <= ack):
            if window > self._window:
                self._force = False
                if self._persist_at is not None:
                    self._persist_at, self._persist_count = None, 0
            self._window, self._wl1, self._wl2 = window, seq, ack
            self._widest = max(self._widest, window)
        if window == 0 and ack == self._una:
            self._progress = now  # it refuses, but it is there (RFC 9293 section 3.8.6.1)
        if self._tlp_end is not None and ack >= self._tlp_end and self._is_duplicate(segment):
            self._tlp_end = None  # the probe was not needed (RFC 8985 section 7.4.2)
        if ack > self._una:
            self._advance(ack, segment, now)
        elif self._board:
            if self._sack:
                if segment.options.sack:
                    self._learn(self._board.sack(self._blocks(segment), self._mss), segment, now)
                    self._look_for_loss(now)
            elif not segment.payload and same_window and not segment.flags & FIN:
                self._duplicate_ack(now)
        return True

    def _advance(self, ack: int, segment: Segment, now: Ns) -> None:
        """`ack` is news: everything below has arrived."""
        board, control = self._board, self._control
        flight = self._nxt - self._una
        octets = ack - self._una
        self._una = ack
        news = board.acknowledge(ack)
        if self._sack and segment.options.sack:
            news += board.sack(self._blocks(segment), self._mss)
        self._outbox.drop(min(ack, self._outbox.end))
        self._progress = now
        self._rtt.backoff = 0
        if self._limited or flight * 2 >= control.window:  # RFC 7661: an idle window proves nothing
            control.acknowledged(octets, now, self._rtt.smoothed)
        if control.recover is not None and not self._sack:
            self._duplicates = max(0, self._duplicates - octets // self._mss)
            if ack < control.recover and board.head is not None and board.head.sent_at < now:
                board.give_up(board.head)  # partial acknowledgement: RFC 6582 section 3.2 step 3
        else:
            self._duplicates = 0
        if control.reached(ack):
            self._be_patient()
        if control.recover is None and not self._sack:
            self._duplicates = 0
        if self._tlp_end is not None and ack > self._tlp_end:
            # the probe repaired a loss that nothing else told of (RFC 8985 section 7.4.2)
            self._tlp_end = None
            control.lost(flight, self._nxt)
        self._learn(news, segment, now)
        if self._sack:
            self._look_for_loss(now)
        self._rto_at = now + self._rtt.timeout if board else None
        self._probe_at = None
        if self._fin is not None and ack > self._fin:
            if self.state is State.FIN_WAIT_1:
                self.state = State.FIN_WAIT_2
                if self._deaf:
                    self._end_at = now + _LONELY
            elif self.state is State.CLOSING:
                self._wait(now)
            elif self.state is State.LAST_ACK:
                self._end(None)

    def _learn(self, news: list[Piece], segment: Segment, now: Ns) -> None:
        echo: Ns | None = None
        stamps = segment.options.timestamps
        if stamps is not None and self._timestamps and stamps[1]:
            age = ((now // MS + self._clock) - stamps[1]) & MASK  # milliseconds
            if age < 1 << 31:
                echo = now - age * MS
        sample = self._board.arrived(news, now, self._rtt.least, echo)
        if sample is not None:
            self._rtt.sample(sample)
        if self._is_duplicate(segment):
            self._control.came_twice()
            if self._una >= self._reorder_round:
                self._be_patient()

    def _be_patient(self) -> None:
        """Something was believed lost that was only late (RFC 8985 section 6.2 step 4)."""
        self._reorder_factor = min(self._reorder_factor + 1, 16)
        self._reorder_round = self._nxt

    def _is_duplicate(self, segment: Segment) -> bool:
        """Whether the first SACK block tells of octets received twice (RFC 2883 section 4)."""
        blocks = self._blocks(segment)
        if not blocks:
            return False
        left, right = blocks[0]
        ack = unwrap(segment.ack, self._una)
        return right <= ack or (len(blocks) > 1 and blocks[1][0] <= left and right <= blocks[1][1])

    def _blocks(self, segment: Segment) -> list[tuple[int, int]]:
        found = [(unwrap(left, self._una), unwrap(right, self._una)) for left, right in segment.options.sack]
        return [(left, right) for left, right in found if left < right <= self._nxt]

    def _look_for_loss(self, now: Ns) -> None:
        """RACK: mark what is late, and slow down for it once a round trip."""
        board = self._board
        window = self._rtt.least // 4 * self._reorder_factor
        if not board.reordered and (self._control.recover is not None or board.sacked >= DUPLICATES * self._mss):
            window = 0
        flight = self._nxt - self._una
        self._reorder_at = board.find_lost(now, min(window, self._rtt.smoothed)) if board else None
        if board.has_lost:
            self._control.lost(flight, self._nxt)

    def _duplicate_ack(self, now: Ns) -> None:
        """A peer without SACK repeats itself (RFC 5681 section 3.2)."""
        self._duplicates += 1
        head = self._board.head
        if self._duplicates == DUPLICATES and self._control.recover is None and head is not None:
            self._control.lost(self._nxt - self._una, self._nxt)
            self._board.give_up(head)

    def _receive_text(self, data: bytes, seq: int, now: Ns) -> None:
        if self.state not in _SYNCHRONISED_OPEN:
            self._drop("data after FIN")
            return
        if self._deaf and seq + len(data) > self._rcv_nxt:
            self.abort()  # RFC 1122 section 4.2.2.13: nobody will read it
            return
        limit = self._advertised if self._rcv_fin is None else self._rcv_fin
        if seq + len(data) > limit:
            data = data[: max(0, limit - seq)]
        if not data:
            return
        if self._inbox.put(seq, data):
            self._unreported += len(data)
            full = self.config.mss - (_TIMESTAMP_SIZE if self._timestamps else 0)
            if self._unreported > full:
                # RFC 9293 section 3.8.6.3: every second full segment. Not waiting for that one to be full is what
                # Linux does, and what its tail loss probe relies on.
                self._ack_now = True
            elif self._ack_at is None:
                self._ack_at = now + self.config.delayed_ack
        else:
            self._ack_now = True  # RFC 5681 section 4.2: at once for anything out of order, or filling a gap

    def _notice_fin(self, now: Ns) -> None:
        """The peer's FIN counts once everything before it is here."""
        if self._rcv_fin is None or self._inbox.next != self._rcv_fin:
            return
        if self.state is State.ESTABLISHED:
            self.state = State.CLOSE_WAIT
        elif self.state is State.FIN_WAIT_1:
            self.state = State.CLOSING
        elif self.state is State.FIN_WAIT_2:
            self._wait(now)
        else:
            return
        self._ack_now = True

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now: Ns) -> None:
        """Whatever is due at `now`; early or extra calls do nothing."""
        if self._end_at is not None and now >= self._end_at:
            waiting = self.state in (State.TIME_WAIT, State.FIN_WAIT_2)
            self._end(None if waiting else Failure.TIMED_OUT)
            return
        if self._ack_at is not None and now >= self._ack_at:
            self._ack_now = True
        if self._reorder_at is not None and now >= self._reorder_at:
            self._reorder_at = None
            self._look_for_loss(now)
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_tail(now)
        if self._rto_at is not None and now >= self._rto_at:
            self._time_out(now)
        if self._persist_at is not None and now >= self._persist_at:
            self._persist(now)
        if self._keepalive_at is not None and now >= self._keepalive_at:
            self._keep_alive(now)

    def _time_out(self, now: Ns) -> None:
        """The retransmission timer (RFC 6298 section 5)."""
        self._rto_at = self._probe_at = self._reorder_at = None
        if self.established and now - self._progress >= self.config.user_timeout:
            self._end(Failure.TIMED_OUT)
            return
        again = self._rtt.backoff > 0
        self._control.timed_out(self._nxt - self._una, self._nxt, again)
        self._rtt.backoff += 1
        self._board.give_up_all()
        self._duplicates = 0
        self._tlp_end = None

    def _probe_tail(self, now: Ns) -> None:
        """Nothing came back for two round trips: send the last piece again to learn why (RFC 8985 section 7.3)."""
        self._probe_at = None
        tail = self._board.tail
        if tail is None or tail.sacked or tail.lost or self._tlp_end is not None:
            return
        self._tlp_end, self._probing = self._nxt, True
        self._board.give_up(tail)

    def _persist(self, now: Ns) -> None:
        self._persist_at = None
        if self._board or not self._blocked():
            return
        if now - self._progress >= self.config.user_timeout:
            self._end(Failure.TIMED_OUT)
            return
        self._persist_count += 1
        if self._window > 0:
            self._force = True
        else:
            self._answer(self._bare(self._una - 1, now))

    def _keep_alive(self, now: Ns) -> None:
        config = self.config
        if self._board or self._persist_at is not None:  # these have timers of their own
            self._keepalive_at = now + config.keepalive
            return
        if self._keepalive_count >= config.keepalive_probes:
            self._end(Failure.TIMED_OUT)
            return
        self._keepalive_count += 1
        self._keepalive_at = now + config.keepalive_gap
        self._answer(self._bare(self._una - 1, now))

    # --- output ---------------------------------------------------------------------------------------------------

    def transmit(self, now: Ns) -> list[Segment]:
        """Everything that may go out at `now`, in order."""
        out, self._answers = self._answers, []
        if self.state is State.CLOSED:
            return out
        if self._syn_due:
            self._send_syn(out, now)
        if self.established and self.state not in (State.TIME_WAIT, State.FIN_WAIT_2):
            self._resend(out, now)
            self._send_new(out, now)
        elif self.state in (State.SYN_SENT, State.SYN_RECEIVED) and self._board.has_lost:
            self._send_syn(out, now)
        if self._ack_now and self.established:
            out.append(self._bare(self._nxt, now))
        self._arm(now)
        return out

    def _send_syn(self, out: list[Segment], now: Ns) -> None:
        self._syn_due = False
        config = self.config
        answer = self.state is State.SYN_RECEIVED
        scaled = config.window_scaling and (not answer or self._peer_said_scale())
        stamped = self._timestamps if answer else config.timestamps
        options = Options(
            mss=config.mss,
            scale=self._scale_wanted() if scaled else None,
            sack_permitted=self._sack if answer else config.sack,
            timestamps=(self._stamp(now), self._recent if answer else 0) if stamped else None,
        )
        window = min(config.receive_buffer, 0xFFFF)
        flags, ack = (SYN | ACK, self._inbox.next & MASK) if answer else (SYN, 0)
        out.append(Segment(self.local, self.remote, self._iss & MASK, ack, flags, window, options=options))
        head = self._board.head
        if head is None:
            self._board.send(self._iss, self._iss + 1, now)
            self._nxt = self._iss + 1
        else:
            self._board.resend(head, now, 1)
        self._last_sent = now
        self._rto_at = now + self._rtt.timeout

    def _peer_said_scale(self) -> bool:
        return self._peer_scale > 0 or self._our_scale > 0

    def _scale_wanted(self) -> int:
        """The least shift that shows the whole receive buffer in 16 bits; at least 1, so that 0 means "not agreed"."""
        return max(1, min(SCALE_MAX, (self.config.receive_buffer >> 16).bit_length()))

    def _resend(self, out: list[Segment], now: Ns) -> None:
        board = self._board
        while (piece := board.next_lost()) is not None:
            size = piece.end - piece.start
            limit = max(self._mss, self.config.burst // self._mss * self._mss)
            space = self._control.window - self._pipe()
            if not self._probing and space < min(size, self._mss) and board.pipe > 0:
                return
            self._probing = False
            if size > self._mss:
                limit = min(limit, max(self._mss, space // self._mss * self._mss))
            board.resend(piece, now, limit)
            self.retransmitted += piece.end - piece.start
            self._control.doubtful += 1
            out.append(self._data(piece.start, piece.end, now))
            self._last_sent = now

    def _send_new(self, out: list[Segment], now: Ns) -> None:
        """What has not been sent yet, as far as both windows, Nagle and the silly window rule allow."""
        config, board, control, mss, outbox = self.config, self._board, self._control, self._mss, self._outbox
        if not board and now - self._last_sent > self._rtt.timeout:
            control.idle()
        self._limited = False
        burst = max(mss, config.burst // mss * mss)
        while True:
            waiting = outbox.end - self._nxt if self._fin is None else 0
            finish = self._closing and self._fin is None
            if waiting <= 0:
                if finish and self.state in _MAY_SEND:
                    self._emit(out, self._nxt, self._nxt + 1, now)
                return
            usable = self._una + self._window - self._nxt
            room = control.window - self._pipe()
            whole = room // mss * mss if room >= mss else (0 if board.pipe else mss)
            size = min(waiting, usable, burst)
            if size <= 0:
                return
            if whole < min(size, mss):
                self._limited = True
                return
            if size > whole:
                size, self._limited = whole, True
            if size < waiting:
                cut = size // mss * mss
                if cut:
                    size = cut
                elif not (self._force or size * 2 >= self._widest):
                    return  # a silly window (RFC 9293 section 3.8.6.2.1)
            elif size % mss and not config.nodelay and not finish and board:
                cut = size // mss * mss
                if not cut:
                    return  # Nagle (RFC 9293 section 3.7.4)
                size = cut
            self._force = False
            last = finish and size == waiting
            self._emit(out, self._nxt, self._nxt + size + last, now)

    def _emit(self, out: list[Segment], start: int, end: int, now: Ns) -> None:
        if end > self._outbox.end:
            self._fin = end - 1
        if not self._board:
            self._progress = now
        self._board.send(start, end, now)
        self._nxt = end
        self._last_sent = now
        out.append(self._data(start, end, now))

    def _data(self, start: int, end: int, now: Ns) -> Segment:
        flags = ACK
        if self._fin is not None and end > self._fin:
            flags |= FIN
        payload = self._outbox.peek(start, end)
        if end >= self._outbox.end:
            flags |= PSH
        return self._with_ack(start, flags, payload, now)

    def _bare(self, seq: int, now: Ns) -> Segment:
        return self._with_ack(seq, ACK, b"", now)

    def _with_ack(self, seq: int, flags: int, payload: bytes, now: Ns) -> Segment:
        """A segment that acknowledges all we have and announces the window (RFC 7323 section 2.3)."""
        stamps = (self._stamp(now), self._recent) if self._timestamps else None
        blocks: tuple[tuple[int, int], ...] = ()
        if self._sack and (self._inbox.gaps or self._inbox.duplicate):
            blocks = tuple((a & MASK, b & MASK) for a, b in self._inbox.blocks(3 if stamps else 4))
        expected = self._rcv_nxt
        shift = self._our_scale
        window = max(0, self._right_edge() - expected)
        units = window >> shift
        if expected + (units << shift) < self._advertised:  # never take back what was promised
            units = -(-(self._advertised - expected) >> shift)
        units = min(units, 0xFFFF)
        self._advertised = max(self._advertised, expected + (units << shift))
        self._ack_now, self._ack_at, self._unreported = False, None, 0
        self._last_ack = expected
        return Segment(
            self.local, self.remote, seq & MASK, expected & MASK, flags, units, payload,
            Options(sack=blocks, timestamps=stamps),
        )  # fmt: skip

    def _arm(self, now: Ns) -> None:
        """Set the timers that what is now in flight, or held back, calls for."""
        if self._board:
            self._persist_at = None
            self._persist_count = 0
            if self._rto_at is None:
                self._rto_at = now + self._rtt.timeout
            if (
                self._sack and self._probe_at is None and self._tlp_end is None and self._rtt.smoothed
                and self._control.recover is None and self.established and not self._board.sacked
            ):  # fmt: skip
                wait = 2 * self._rtt.smoothed + 2 * MS  # RFC 8985 section 7.2
                if self._board.pipe < 2 * self._mss:
                    wait += 2 * _DELAYED_ACK  # the peer may be waiting for a second segment
                self._probe_at = self._last_sent + wait if self._last_sent + wait < self._rto_at else None
            return
        self._rto_at = self._probe_at = self._reorder_at = None
        if self._blocked() and self._persist_at is None:
            if self._persist_count == 0:
                self._progress = now
            self._persist_at = now + min(self._rtt.timeout << min(self._persist_count, 16), MAX_RTO)

    def _blocked(self) -> bool:
        """Something is to be sent, nothing is in flight, and the peer's window is why."""
        return self.established and self._fin is None and self._outbox.end > self._nxt

    # --- small things ---------------------------------------------------------------------------------------------

    @property
    def _rcv_nxt(self) -> int:
        """RCV.NXT: the peer's FIN counts one once it is in order."""
        upto = self._inbox.next
        return upto + 1 if upto == self._rcv_fin else upto

    @property
    def _largest_window(self) -> int:
        """Octets: the buffer, or less where the window field cannot say so much."""
        return min(self.config.receive_buffer, 0xFFFF << self._our_scale)

    def _right_edge(self) -> int:
        """Up to where we could take octets: what is read or waiting to be read counts against the buffer."""
        return self._inbox.next + max(0, self._largest_window - self._inbox.size)

    def _pipe(self) -> int:
        """Octets in the network; duplicates of a peer without SACK each tell of one segment that left it."""
        return max(0, self._board.pipe - self._duplicates * self._mss)

    def _stamp(self, now: Ns) -> int:
        """Our timestamp clock: milliseconds (RFC 7323 section 5.4)."""
        return (now // MS + self._clock) & MASK

    def _drop(self, because: str) -> None:
        self.dropped[because] += 1

    def _challenge(self, now: Ns) -> None:
        """Answer by an acknowledgement, at a limited rate (RFC 5961 section 7)."""
        if now - self._challenge_window >= S:
            self._challenge_window, self._challenges = now, 0
        if self._challenges < _CHALLENGES:
            self._challenges += 1
            if self.state is State.SYN_RECEIVED:
                self._answer(self._bare(self._nxt, now))
            self._ack_now = True

    def _answer(self, segment: Segment) -> None:
        if len(self._answers) < _ANSWERS_MAX:
            self._answers.append(segment)

    def _wait(self, now: Ns) -> None:
        self._stop_timers()
        self.state = State.TIME_WAIT
        self._end_at = now + self.config.time_wait

    def _end(self, failure: Failure | None) -> None:
        self._stop_timers()
        self.state = State.CLOSED
        if failure is not None and self.failure is None:
            self.failure = failure
        self._answers = []
        self._board = Scoreboard()
        self._outbox.drop(self._outbox.end)

    def _stop_timers(self) -> None:
        self._rto_at = self._probe_at = self._reorder_at = self._ack_at = None
        self._persist_at = self._keepalive_at = self._end_at = None
