"""Putting fragments together, within bounds (RFC 791 section 3.2, RFC 8200 section 4.5, RFC 5722)."""

from __future__ import annotations

from dataclasses import dataclass, field

from bootwire.engine import Ns, S

DATAGRAMS_MAX = 64  # being put together at a time; the oldest gives way
PIECES_MAX = 128  # of one datagram: 64 KiB come in 45 pieces on Ethernet, in 124 at IPv4's least MTU that is in use
LIFETIME: Ns = 30 * S  # RFC 1122 section 3.3.2 asks for 60 to 120 s, Linux uses 30; so do we, for less to fill up
_DATAGRAM_MAX = 65_535  # octets


@dataclass(slots=True)
class _Partial:
    due: Ns
    pieces: dict[int, bytes] = field(default_factory=dict)  # offset -> octets
    size: int = -1  # of the whole, once the last piece is here
    spoiled: bool = False


class Reassembly:
    """Datagrams that have come in part. A key is what tells them apart: addresses, protocol, identification."""

    def __init__(self) -> None:
        self._partial: dict[object, _Partial] = {}

    def __len__(self) -> int:
        return len(self._partial)

    @property
    def deadline(self) -> Ns | None:
        return next(iter(self._partial.values())).due if self._partial else None

    def put(self, key: object, offset: int, more: bool, data: bytes, now: Ns) -> bytes | str | None:
        """Octets when the datagram is whole, None while it is not; a reason (str) when the piece was refused.

        A piece that overlaps another spoils its datagram (RFC 5722 section 4); an exact repetition does not.
        """
        partial = self._partial.get(key)
        if partial is None:
            if len(self._partial) >= DATAGRAMS_MAX:
                del self._partial[next(iter(self._partial))]
            partial = self._partial[key] = _Partial(now + LIFETIME)
        if partial.spoiled:
            return "fragment of a spoiled datagram"
        end = offset + len(data)
        wrong = ""
        if end > _DATAGRAM_MAX:
            wrong = "fragment beyond 64 KiB"
        elif more and (len(data) % 8 or not data):
            wrong = "fragment not a multiple of 8 octets"
        elif partial.pieces.get(offset) == data:
            return None
        elif any(offset < at + len(piece) and at < end for at, piece in partial.pieces.items()):
            wrong = "overlapping fragment"
        elif len(partial.pieces) >= PIECES_MAX:
            wrong = "too many fragments"
        elif not more and partial.size not in (-1, end):
            wrong = "two last fragments"
        elif partial.size >= 0 and end > partial.size:
            wrong = "fragment behind the last one"
        if wrong:
            partial.spoiled, partial.pieces = True, {}
            return wrong
        partial.pieces[offset] = data
        if not more:
            partial.size = end
            if any(at + len(piece) > end for at, piece in partial.pieces.items()):
                partial.spoiled, partial.pieces = True, {}
                return "fragment behind the last one"
        if partial.size < 0 or sum(map(len, partial.pieces.values())) < partial.size:
            return None
        del self._partial[key]
        return b"".join(partial.pieces[at] for at in sorted(partial.pieces))

    def tick(self, now: Ns) -> int:
        """Forget what took too long; how many."""
        late = [key for key, partial in self._partial.items() if partial.due <= now]
        for key in late:
            del self._partial[key]
        return len(late)
