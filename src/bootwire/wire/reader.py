"""A bounded cursor over one message, and the one error every codec raises."""

from __future__ import annotations


class WireError(ValueError):
    """Bytes that are not a valid message of the format being read.

    what  the field or rule, as a noun phrase: "truncated block", "option 53 of length 2"
    at    octet offset into the buffer given to `parse`
    """

    def __init__(self, what: str, at: int) -> None:
        super().__init__(f"{what} (octet {at})")
        self.what = what
        self.at = at


class Reader:
    """Take big-endian fields from `data` in order; raise WireError rather than run past the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int, what: str) -> bytes:
        if size > self.left():
            raise WireError(f"truncated {what}", self.at)
        start, self.at = self.at, self.at + size
        return self.data[start : self.at]

    def u8(self, what: str) -> int:
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        return int.from_bytes(self.take(2, what), "big")

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "big")

    def text(self, what: str) -> bytes:
        """Octets up to a NUL, which is consumed. No decoding: these are the peer's bytes."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise WireError(f"unterminated {what}", self.at)
        value, self.at = self.data[self.at : end], end + 1
        return value

    def rest(self) -> bytes:
        return self.take(self.left(), "rest")
