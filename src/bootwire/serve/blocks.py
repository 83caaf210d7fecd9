"""Where the DATA datagrams of a TFTP transfer come from, and what keeps their memory bounded.

A source's `take(first, count)` gives `count` whole datagrams from block `first` on, one after the other, each
`stride` octets but for the last: what one send with UDP_SEGMENT wants. Blocks count from 1 without wrapping.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import TYPE_CHECKING, Final, Protocol

from bootwire.engine.tftp import FLIGHT_LIMIT, WINDOW_LIMIT
from bootwire.wire.tftp import HEADER

if TYPE_CHECKING:
    from bootwire.serve.content import Content

FILL: Final = 262_144  # octets of datagrams made ready at a time: a tenth of a millisecond
PIECES: Final = 1024  # that one read may be scattered to (Linux UIO_MAXIOV)
IMAGES_LIMIT: Final = 64 << 20  # octets of all images together
IMAGE_LIMIT: Final = 48 << 20  # octets of one: loaders, kernels, most initrds; longer files are read as they go
DATA: Final = 3  # the opcode
ASKED_LIMIT: Final = 256  # keys of files that were asked for once
NETASCII_LIMIT: Final = 64 << 20  # octets of a file: it has to be read through once to know how long it gets

_pack_header: Final = struct.Struct("!HH").pack_into


class Changed(Exception):
    """The file was written to or cut since the transfer began: going on would mix two files."""


class Source(Protocol):
    """Datagrams of one transfer."""

    def take(self, first: int, count: int) -> bytes | memoryview:
        """Raises Changed, or OSError where reading fails."""
        ...


class Plain:
    """Blocks straight from the content, nothing kept."""

    def __init__(self, octets: Octets, block_size: int) -> None:
        self._octets, self._block_size = octets, block_size
        self._last = octets.size // block_size + 1

    def take(self, first: int, count: int) -> bytes:
        size = self._block_size
        octets = self._octets.read((first - 1) * size, count * size)
        if first + count > self._last:
            self._octets.check()
        return frame(octets, first, count, size)


class Netascii:
    """Blocks of the content as netascii (RFC 764: LF is CR LF, CR is CR NUL), translated as they are asked for.

    `first` never goes back by more than what was taken last. size: octets after translation.
    """

    def __init__(self, octets: Octets, size: int, block_size: int) -> None:
        self._octets, self._block_size = octets, block_size
        self._last = size // block_size + 1
        self._read = 0  # octets of the content that were translated
        self._ready = b""  # translated octets from _ready_at on
        self._ready_at = 0

    def take(self, first: int, count: int) -> bytes:
        begin, want = (first - 1) * self._block_size, count * self._block_size
        self._ready = self._ready[begin - self._ready_at :]
        self._ready_at = begin
        while len(self._ready) < want and self._read < self._octets.size:
            octets = self._octets.read(self._read, want)
            self._read += len(octets)
            self._ready += to_netascii(octets)
        if first + count > self._last:
            self._octets.check()
        return frame(self._ready[:want], first, count, self._block_size)


class Image:
    """All datagrams of one file at one block size, shared by transfers, made as far as anyone came."""

    __slots__ = ("_block_size", "_last", "ahead", "cost", "key", "made", "ready", "stride", "users", "view")

    def __init__(self, key: object, size: int, block_size: int) -> None:
        self._block_size = block_size
        self._last = size // block_size + 1
        self.ahead = min(WINDOW_LIMIT, FLIGHT_LIMIT // block_size + 1)  # blocks: the next window, which `fill` may make
        self.key = key
        self.stride = block_size + HEADER
        self.cost = size + self._last * HEADER
        # Anonymous memory of its own: committed as it is filled, and given back at once.
        memory = mmap.mmap(-1, self.cost, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(memory)
        self.made = 0  # blocks that can be sent
        self.ready = 0  # octets that can be sent without a call of `fill` soon
        self.users = 0

    def fill(self, octets: Octets, upto: int) -> None:
        """Make the blocks up to `upto` ready, and some more. Raises Changed, OSError."""
        size, stride, view, pack_header = self._block_size, self.stride, self.view, _pack_header
        while self.made < min(upto, self._last):
            first = self.made + 1
            count = min(max(1, FILL // stride), PIECES, self._last - self.made)
            begin, end = (first - 1) * stride, (first - 1 + count) * stride
            for at, block in zip(range(begin, end, stride), range(first, first + count), strict=True):
                pack_header(view, at, DATA, block & 0xFFFF)
            octets.read_into([view[at + HEADER : at + stride] for at in range(begin, end, stride)], (first - 1) * size)
            octets.check()
            self.made += count
            self.ready = (self.made if self.made == self._last else self.made - self.ahead) * stride


class Images:
    """Images by content and block size: at most `limit` octets in all, the least recently borrowed go first."""

    def __init__(self, limit: int = IMAGES_LIMIT, each: int = IMAGE_LIMIT) -> None:
        self._limit, self._each = limit, each
        self._images: dict[object, Image] = {}
        self._asked: dict[object, None] = {}  # what was borrowed once lately
        self.octets = 0

    def borrow(self, octets: Octets, block_size: int) -> Image | None:
        """An image to be given back, or None where one would not pay or there is no room: use Plain then.

        It pays from the second transfer on: memory touched for the first time costs more than cutting a file up.
        """
        if octets.key is None or octets.size > self._each or octets.size < 4 * block_size:
            return None
        key = (octets.key, octets.state, block_size)
        image = self._images.pop(key, None)
        if image is None:
            if key not in self._asked:
                self._asked[key] = None
                if len(self._asked) > ASKED_LIMIT:
                    del self._asked[next(iter(self._asked))]
                return None
            cost = octets.size + (octets.size // block_size + 1) * HEADER
            if not self._make_room(cost):
                return None
            image = Image(key, octets.size, block_size)
            self.octets += cost
            del self._asked[key]
        self._images[key] = image
        image.users += 1
        return image

    def join(self, octets: Octets, block_size: int) -> Image | None:
        """The image that somebody else has had made meanwhile, to be given back, or None."""
        image = self._images.get((octets.key, octets.state, block_size)) if octets.key is not None else None
        if image is not None:
            image.users += 1
        return image

    def give_back(self, image: Image) -> None:
        image.users -= 1

    def forget(self, image: Image) -> None:
        """Its file has changed: nobody new shall have it."""
        if self._images.get(image.key) is image:
            del self._images[image.key]
            self.octets -= image.cost

    def _make_room(self, cost: int) -> bool:
        if self.octets + cost > self._limit:
            for image in [image for image in self._images.values() if not image.users]:
                self.forget(image)
                if self.octets + cost <= self._limit:
                    break
        return self.octets + cost <= self._limit


class Octets:
    """Reads a content that may be a file under somebody's editor. Raises Changed if it already is another."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size = content.size
        self.key = content.key
        self.state = self._look()
        if content.data is None and self.state[1] != content.size:
            raise Changed

    def read(self, at: int, count: int) -> bytes:
        """`count` octets from `at` on, less only at the end of the content. Raises Changed, OSError."""
        content = self._content
        count = max(0, min(count, content.size - at))
        if content.data is not None:
            return content.data[at : at + count]
        octets = os.pread(content.fd, count, at) if count else b""
        if len(octets) < count:
            raise Changed
        return octets

    def read_into(self, pieces: list[memoryview], at: int) -> None:
        """Fill one after the other with what comes from `at` on. Raises Changed, OSError."""
        content = self._content
        if content.data is None:
            if os.preadv(content.fd, pieces, at) < sum(map(len, pieces)):
                raise Changed
            return
        for piece in pieces:
            piece[:] = content.data[at : at + len(piece)]
            at += len(piece)

    def check(self) -> None:
        """Raises Changed if what was read until now may be of two versions: a write moves the file's mtime first."""
        if self._look() != self.state:
            raise Changed

    def _look(self) -> tuple[int, int]:
        """Modification time in ns, size in octets."""
        if self._content.data is not None:
            return (0, self._content.size)
        state = os.fstat(self._content.fd)
        return (state.st_mtime_ns, state.st_size)


def frame(octets: bytes, first: int, count: int, block_size: int) -> bytes:
    """`octets` cut into `count` DATA datagrams, the first one numbered `first`."""
    parts: list[bytes] = []
    for index in range(count):
        parts.append((0x30000 | (first + index) & 0xFFFF).to_bytes(HEADER, "big"))
        parts.append(octets[index * block_size : (index + 1) * block_size])
    return b"".join(parts)


def to_netascii(octets: bytes) -> bytes:
    """RFC 764's end of line and carriage return."""
    return octets.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


def netascii_size(octets: Octets) -> int:
    """How long the content is as netascii. Reads all of it; raises Changed, OSError."""
    size = octets.size
    for at in range(0, octets.size, FILL):
        piece = octets.read(at, FILL)
        size += piece.count(b"\n") + piece.count(b"\r")
    octets.check()
    return size
