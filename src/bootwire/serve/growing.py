"""An image on its way to this machine's disk, to be read by others while it comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import BinaryIO

from bootwire.serve.upstreams import UpstreamFailed


class Growing:
    """How much of an image is on disk. One asyncio loop.

    path            where its octets are now, "" where they are no more
    why             it is not whole, once it has ended
    whole           octets it will have, -1: not known
    etag, modified  what it can be known by, "" where nothing is
    """

    def __init__(self) -> None:
        self.path = self.etag = self.modified = ""
        self.whole = -1
        self.got = 0
        self.begun = self.ended = False
        self.why = ""
        self._news = asyncio.Event()

    @classmethod
    def complete(cls, path: str, size: int, etag: str, modified: str) -> Growing:
        """One that is here."""
        self = cls()
        self.begin(path, size, etag, modified)
        self.came(size)
        self.end()
        return self

    def begin(self, path: str, whole: int, etag: str, modified: str) -> None:
        self.path, self.whole, self.etag, self.modified, self.begun = path, whole, etag, modified, True
        self._tell()

    def came(self, got: int) -> None:
        self.got = got
        self._tell()

    def end(self, why: str = "") -> None:
        """No more will come. why: it is not whole."""
        self.ended, self.why = True, why
        if why:
            self.path = ""  # a descriptor's, perhaps, that is somebody else's soon
        self._tell()

    async def head(self) -> None:
        """Until something is known about it, or it has ended."""
        while not (self.begun or self.ended):
            await self._news.wait()

    async def past(self, at: int) -> int:
        """How many octets are here, once more than `at` are; `at` or fewer: that is all. Raises UpstreamFailed."""
        while self.got <= at and not self.ended:
            await self._news.wait()
        if self.got <= at and self.why:
            raise UpstreamFailed(self.why)
        return self.got

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


@dataclass(slots=True)
class Reader:
    """Somebody's own view of one that grows. Close it once."""

    growing: Growing
    file: BinaryIO

    @classmethod
    def of(cls, growing: Growing) -> Reader:
        """Raises OSError."""
        return cls(growing, open(growing.path, "rb"))

    def close(self) -> None:
        self.file.close()
