"""The sending half of a connection: octets until they are acknowledged, and what is known of each transmission.

Loss is found by time (RACK, RFC 8985 section 6.2): something sent earlier than what has just arrived is lost once the
reordering window has passed. That covers RFC 6675's three duplicate acknowledgements and lost retransmissions, too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from heapq import heappop, heappush

from bootwire.engine import MS, Ns

DUPLICATES = 3  # segments above a gap that prove a loss where no reordering has been seen (RFC 5681 section 3.2)


class Outbox:
    """The stream from the first octet that is not acknowledged, `start`, to the last one written, `end`."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._data = bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._data += data

    def peek(self, start: int, end: int) -> bytes:
        with memoryview(self._data) as view:
            return view[max(0, start - self.start) : max(0, end - self.start)].tobytes()

    def drop(self, until: int) -> None:
        """Forget what lies below `until`."""
        if until > self.start:
            del self._data[: until - self.start]
            self.start = until


class Piece:
    """One run of sequence numbers that was sent in one go, once or several times.

    It is in flight, or `sacked`, or `lost` (believed so, and waiting to be sent again).
    """

    __slots__ = ("end", "lost", "sacked", "sent_at", "start", "tries")

    def __init__(self, start: int, end: int, sent_at: Ns) -> None:
        self.start, self.end, self.sent_at = start, end, sent_at
        self.tries = 1
        self.sacked = self.lost = False


class Scoreboard:
    """Every transmission that is not yet acknowledged.

    pipe    octets believed to be in the network (RFC 6675 section 4)
    sacked  octets that arrived above a gap
    """

    def __init__(self) -> None:
        self.pipe = self.sacked = 0
        self._pieces: list[Piece] = []  # by sequence number
        self._flight: dict[Piece, None] = {}  # in the order of (re)transmission
        self._lost: list[tuple[int, int, Piece]] = []  # heap by sequence number; stale entries are skipped
        self._count = 0
        self._seen: dict[int, int] = {}  # left edge -> right edge of the blocks of the last SACK option
        # RACK's state (RFC 8985 section 5.2)
        self._newest: tuple[Ns, int] = (-1, -1)  # (sent at, end) of the most recently sent piece that has arrived
        self._rtt: Ns = 0
        self._highest = 0  # end of the highest piece that has arrived
        self.reordered = False

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def head(self) -> Piece | None:
        return self._pieces[0] if self._pieces else None

    @property
    def tail(self) -> Piece | None:
        return self._pieces[-1] if self._pieces else None

    @property
    def has_lost(self) -> bool:
        return self.next_lost() is not None

    def send(self, start: int, end: int, now: Ns) -> Piece:
        piece = Piece(start, end, now)
        self._pieces.append(piece)
        self._flight[piece] = None
        self.pipe += end - start
        return piece

    def resend(self, piece: Piece, now: Ns, limit: int) -> None:
        """`piece` goes out again, cut to `limit` octets; the rest of it stays lost."""
        if piece.end - piece.start > limit:
            self._split(piece, piece.start + limit)
        if piece.lost:
            piece.lost = False
            self.pipe += piece.end - piece.start
        self._flight.pop(piece, None)
        self._flight[piece] = None
        piece.sent_at = now
        piece.tries += 1

    def next_lost(self) -> Piece | None:
        """The first piece that has to be sent again."""
        lost = self._lost
        while lost and not lost[0][2].lost:
            heappop(lost)
        return lost[0][2] if lost else None

    def acknowledge(self, una: int) -> list[Piece]:
        """Everything below `una` has arrived. Returns the pieces of which that is news, in order."""
        pieces = self._pieces
        done = bisect_right(pieces, una, key=lambda p: p.end)
        news: list[Piece] = []
        for piece in pieces[:done]:
            size = piece.end - piece.start
            if piece.sacked:
                self.sacked -= size
            else:
                if not piece.lost:
                    self.pipe -= size
                    del self._flight[piece]
                piece.lost = False
                news.append(piece)
        del pieces[:done]
        if pieces and pieces[0].start < una:
            first = pieces[0]
            gone = una - first.start
            if first.sacked:
                self.sacked -= gone
            elif not first.lost:
                self.pipe -= gone
            first.start = una
        return news

    def sack(self, blocks: Iterable[tuple[int, int]], mss: int) -> list[Piece]:
        """The peer holds `blocks` (unwrapped). Returns the pieces of which that is news.

        A piece longer than `mss` is cut at multiples of it, which is where the link cut it, too; so a peer that
        reports single octets cannot make us keep books on single octets.
        """
        news: list[Piece] = []
        seen: dict[int, int] = {}
        for left, right in blocks:
            known = self._seen.get(left, left)
            seen[left] = max(right, known)
            if right > known:
                self._sack_one(known if known > left else left, right, mss, news)
        self._seen = seen
        return news

    def arrived(self, news: list[Piece], now: Ns, shortest: Ns, echo: Ns | None) -> Ns | None:
        """Learn from pieces that have just arrived; returns a round-trip sample, None without an unambiguous one.

        shortest  the least round-trip time ever seen, 0 before the first: an answer to a retransmission that comes
                  faster answers the original (RFC 8985 section 6.2 step 2)
        echo      when the segment that the peer's timestamp echoes was sent, in whole milliseconds; None without

        An echo older than the retransmission proves nothing: the original may be late, but as well may its first
        acknowledgement have been lost (then the echo is as old as that, and the sample would be far too long).
        """
        sample: Ns | None = None
        for piece in news:
            rtt = now - piece.sent_at
            if piece.tries == 1:
                if piece.end < self._highest:
                    self.reordered = True
                sample = rtt if sample is None else min(sample, rtt)
            elif rtt < shortest or (echo is not None and echo + MS < piece.sent_at):
                self._highest = max(self._highest, piece.end)
                if sample is None and echo is not None and (rtt < shortest or not shortest):
                    sample = now - echo
                continue
            elif sample is None and echo is not None:
                sample = rtt
            self._highest = max(self._highest, piece.end)
            if (piece.sent_at, piece.end) > self._newest:
                self._newest = (piece.sent_at, piece.end)
                self._rtt = rtt
        return sample

    def find_lost(self, now: Ns, window: Ns) -> Ns | None:
        """Mark what was sent before the newest arrival and is late by more than `window`.

        Returns when to look again, None if nothing is on the edge (RFC 8985 section 6.2 step 5).
        """
        newest_at, newest_end = self._newest
        again: Ns | None = None
        late: list[Piece] = []
        for piece in self._flight:
            if piece.sent_at > newest_at:
                break
            if piece.sent_at == newest_at and piece.end > newest_end:
                continue
            due = piece.sent_at + self._rtt + window
            if due <= now:
                late.append(piece)
            else:
                again = due if again is None else max(again, due)
        for piece in late:
            self.give_up(piece)
        return again

    def give_up(self, piece: Piece) -> None:
        """Believe that `piece` is lost."""
        if not piece.sacked and not piece.lost:
            piece.lost = True
            self.pipe -= piece.end - piece.start
            del self._flight[piece]
            self._push(piece)

    def give_up_all(self) -> None:
        """A time-out: nothing is in flight any more. A peer that broke a SACK promise is not believed again.

        The promise is broken when the first piece is reported and yet not acknowledged (RFC 2018 section 8).
        """
        broken = bool(self._pieces) and self._pieces[0].sacked
        for piece in self._pieces:
            if piece.sacked and broken:
                piece.sacked = False
                piece.lost = True
                self._push(piece)
            else:
                self.give_up(piece)
        if broken:
            self.sacked = 0
        self._seen = {}

    def _sack_one(self, left: int, right: int, mss: int, news: list[Piece]) -> None:
        pieces = self._pieces
        at = bisect_right(pieces, left, key=lambda p: p.end)
        while at < len(pieces) and pieces[at].start < right:
            piece = pieces[at]
            if not piece.sacked:
                if left > piece.start:
                    cut = piece.start + -(-(left - piece.start) // mss) * mss
                    if cut >= min(right, piece.end):
                        at += 1
                        continue
                    self._split(piece, cut)
                    at += 1
                    piece = pieces[at]
                if right < piece.end:
                    cut = piece.start + (right - piece.start) // mss * mss
                    if cut <= piece.start:
                        return
                    self._split(piece, cut)
                size = piece.end - piece.start
                if piece.lost:
                    piece.lost = False
                else:
                    self.pipe -= size
                    del self._flight[piece]
                piece.sacked = True
                self.sacked += size
                news.append(piece)
            at += 1

    def _split(self, piece: Piece, at: int) -> None:
        """Cut `piece` in two at sequence number `at`; both halves keep its history."""
        rest = Piece(at, piece.end, piece.sent_at)
        rest.tries, rest.lost, rest.sacked = piece.tries, piece.lost, piece.sacked
        piece.end = at
        self._pieces.insert(bisect_left(self._pieces, at, key=lambda p: p.start), rest)
        if rest.lost:
            self._push(rest)
        elif not rest.sacked:
            # transmission order: right behind its other half. Rebuilding the order is linear, but rare: only pieces
            # that the link segmented for us are ever cut.
            order: dict[Piece, None] = {}
            for other in self._flight:
                order[other] = None
                if other is piece:
                    order[rest] = None
            self._flight = order

    def _push(self, piece: Piece) -> None:
        self._count += 1
        heappush(self._lost, (piece.start, self._count, piece))
