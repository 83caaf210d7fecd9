"""A read-only file system over HTTP: open, read, seek both ways, stat and list what lies below a URL.

Files are read in blocks, by ranges, ahead of who reads on; blocks are kept, up to a limit. A server without ranges is
asked once for the whole file, which is then kept in a temporary file while it is open. Where `x` is not there, `x.gz`
is opened in its place and inflated on the way, so compressed and plain kernels and modules work alike.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import posixpath
import tempfile
import urllib.parse
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Final

from bootwire.preboot.fetch import Fetcher, FetchError, Head, Sink, parse, shown
from bootwire.wire.listing import Entry, parse_listing
from bootwire.wire.reader import WireError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK: Final = 128 * 1024  # octets: ten round trips' worth of a first TCP window (RFC 6928)
READ_AHEAD: Final = 4 << 20  # octets asked for at once, once somebody reads on: 30 ms of a gigabit link
CACHE: Final = 64 << 20  # octets of blocks kept
INFLATED: Final = 4 << 30  # octets a .gz may become: an installer's image, and an end for a bomb
LISTING: Final = 8 << 20  # octets of a directory's page: MAX_ENTRIES of short names


@dataclass(frozen=True, slots=True)
class Stat:
    """url: after redirects; size: octets as stored, None where the server does not say; modified: Unix seconds."""

    url: str
    is_directory: bool
    size: int | None = None
    modified: int | None = None
    media_type: str = ""


class HttpFs:
    """What lies below `base`. Paths are relative to it, with "/" between names; "" is the directory itself.

    Errors are the operating system's: FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, and
    FetchError, an OSError, for what goes wrong on the way. Not for several threads at once.
    """

    def __init__(self, fetcher: Fetcher, base: str, *, cache: int = CACHE, inflated: int = INFLATED) -> None:
        """Raises FetchError: `base` is no http or https URL."""
        parsed = parse(base)
        if parsed.scheme not in ("http", "https"):
            raise FetchError(base, "url", "only http and https have directories")
        plain = base.partition("#")[0].partition("?")[0]
        self.base = plain if plain.endswith("/") else plain + "/"
        self.fetcher = fetcher
        self._inflated = inflated
        self._blocks = _Blocks(cache)

    def url(self, path: str, *, directory: bool = False) -> str:
        """The URL of a path. ".." stays below the base."""
        names = posixpath.normpath("/" + path).strip("/")
        quoted = urllib.parse.quote(names.encode("utf-8", "surrogateescape"), safe="/!$&'()*+,;=:@~")
        return self.base + quoted + ("/" if directory and quoted else "")

    def open(self, path: str, *, inflate: bool = True) -> io.BufferedReader:
        """A file for reading, which seeks. inflate: take `path`.gz where there is no `path`, and inflate it."""
        try:
            return self._open(path)
        except FileNotFoundError:
            if not inflate:
                raise
        try:
            stored = self._open(path + ".gz")
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "neither it nor its .gz is there", path) from None
        return io.BufferedReader(_Inflated(stored, self._inflated, path), BLOCK)

    def cat(self, path: str, *, inflate: bool = True) -> bytes:
        """All octets of a file."""
        with self.open(path, inflate=inflate) as file:
            return file.read()

    def stat(self, path: str) -> Stat:
        url = self.url(path)
        try:
            head = self.fetcher.head(url)
        except FetchError as error:
            if error.status not in (405, 501):
                raise _as_os_error(error, path) from None
            head = self._first_octet(url, path)
        is_directory = _is_directory(head.url)
        size = None if is_directory else head.size
        return Stat(head.url, is_directory, size, head.modified, head.media_type)

    def exists(self, path: str) -> bool:
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str = "") -> list[Entry]:
        """What is in a directory, by its server's own listing, in the server's order."""
        page, head = bytearray(), Head("")

        def begin(found: Head) -> Sink:
            nonlocal head
            head = found
            if found.media_type not in ("text/html", "application/xhtml+xml") or not _is_directory(found.url):
                raise NotADirectoryError(errno.ENOTDIR, "it has no listing", path)
            return take

        def take(data: bytes | memoryview) -> None:
            page.extend(data)
            if len(page) > LISTING:
                raise FetchError(head.url, "too big", f"a listing of more than {LISTING} octets")

        try:
            self.fetcher.stream(self.url(path, directory=True), begin)
            return parse_listing(bytes(page), head.url)
        except FetchError as error:
            raise _as_os_error(error, path) from None
        except WireError as error:
            raise FetchError(head.url, "malformed", str(error)) from None

    def walk(self, path: str = "", depth: int = 32) -> Iterator[tuple[str, list[Entry]]]:
        """Every directory at and below `path` with its entries, parents first; at most `depth` levels."""
        entries = self.ls(path)
        yield path, entries
        for entry in entries:
            if entry.is_directory and depth > 0:
                yield from self.walk(posixpath.join(path, entry.name), depth - 1)

    def _open(self, path: str) -> io.BufferedReader:
        try:
            return io.BufferedReader(HttpFile(self.fetcher, self.url(path), self._blocks), BLOCK)
        except FetchError as error:
            raise _as_os_error(error, path) from None

    def _first_octet(self, url: str, path: str) -> Head:
        """The head of a file at a server that knows no HEAD."""
        try:
            return self.fetcher.stream(url, lambda head: _nothing, (0, 1))
        except FetchError as error:
            raise _as_os_error(error, path) from None


class HttpFile(io.RawIOBase):
    """One file, without a buffer of its own. size: octets."""

    def __init__(self, fetcher: Fetcher, url: str, blocks: _Blocks | None = None) -> None:
        """Asks for the first block. Raises FetchError, IsADirectoryError."""
        self.url = url
        self._fetcher, self._blocks = fetcher, blocks or _Blocks(CACHE)
        self._at = 0
        self._expected = 0  # where a reader who reads on would read
        self._ahead = BLOCK
        self._whole: IO[bytes] | None = None
        self._head = Head(url)
        self._unknown = object()  # stands for a validator: what has none may be another file the next time
        self._load(0, BLOCK, first=True)
        size = self._head.size
        assert size is not None
        self.size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, "a position before the file")
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view, view.cast("B") as octets:
            count = max(0, min(len(octets), self.size - self._at))
            if not count:
                return 0
            if self._whole is not None:
                self._whole.seek(self._at)
                data = self._whole.read(count)
            else:
                number, offset = divmod(self._at, BLOCK)
                data = self._block(number)[offset : offset + count]
            octets[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()
        super().close()

    def _block(self, number: int) -> bytes:
        key = self._key(number)
        data = self._blocks.get(key)
        if data is None:
            start = number * BLOCK
            self._ahead = min(2 * self._ahead, READ_AHEAD) if start == self._expected else BLOCK
            self._load(start, min(start + self._ahead, self.size))
            data = self._blocks.get(key)
            if data is None:
                raise FetchError(self.url, "truncated", f"the block at {start} did not come")
        return data

    def _key(self, number: int) -> object:
        return self._head.url, self._head.validator or self._unknown, self._head.size, number

    def _load(self, start: int, stop: int, *, first: bool = False) -> None:
        """Ask for octets [start, stop) and keep their blocks; or all of it, from a server without ranges."""
        body = bytearray()
        spool: IO[bytes] | None = None

        def begin(head: Head) -> Sink:
            nonlocal spool
            if first:
                if _is_directory(head.url):
                    raise IsADirectoryError(errno.EISDIR, "it is a directory", shown(self.url))
                self._head = head
            elif (head.validator, head.size) != (self._head.validator, self._head.size):
                raise FetchError(self.url, "changed", "the file changed on the server meanwhile")
            if not head.partial and (head.size is None or head.size > stop):
                spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this file)
                return spool.write
            return body.extend

        try:
            self._fetcher.stream(self.url, begin, (start, stop))
        except FetchError as error:
            if not (first and error.status == 416):  # the first octet of an empty file
                raise
            self._fetcher.stream(self.url, begin)
        except BaseException:
            if spool is not None:
                spool.close()
            raise
        if spool is not None:
            self._whole = spool
            if self._head.size is None:
                self._head = replace(self._head, size=spool.seek(0, os.SEEK_END))
            return
        if self._head.size is None:
            self._head = replace(self._head, size=len(body))
        if not self._head.partial:  # short enough to come whole
            start = 0
        for at in range(0, len(body), BLOCK):
            self._blocks.put(self._key((start + at) // BLOCK), bytes(body[at : at + BLOCK]))
        self._expected = start + len(body)


class _Inflated(io.RawIOBase):
    """What a .gz holds. Seeking back begins again at its start."""

    def __init__(self, stored: io.BufferedReader, limit: int, path: str) -> None:
        self._stored, self._limit, self._path = stored, limit, path
        self._gzip = gzip.GzipFile(fileobj=stored)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._gzip.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            while self._read(BLOCK):
                pass
            offset, whence = offset + self._gzip.tell(), os.SEEK_SET
        elif whence == os.SEEK_CUR:
            offset, whence = offset + self._gzip.tell(), os.SEEK_SET
        if offset < 0:
            raise OSError(errno.EINVAL, "a position before the file")
        if offset < self._gzip.tell():
            return self._gzip.seek(offset)
        while self._gzip.tell() < offset and self._read(min(BLOCK, offset - self._gzip.tell())):
            pass
        return self._gzip.tell()

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view, view.cast("B") as octets:
            data = self._read(len(octets))
            octets[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._gzip.close()
        self._stored.close()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            data = self._gzip.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise OSError(errno.EIO, f"damaged: {error}", self._path + ".gz") from None
        if self._gzip.tell() > self._limit:
            raise OSError(errno.EFBIG, f"inflates to more than {self._limit} octets", self._path + ".gz")
        return data


class _Blocks:
    """Blocks of files, the ones not used for longest going first."""

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 2 * READ_AHEAD)
        self._octets = 0
        self._kept: OrderedDict[object, bytes] = OrderedDict()

    def get(self, key: object) -> bytes | None:
        data = self._kept.get(key)
        if data is not None:
            self._kept.move_to_end(key)
        return data

    def put(self, key: object, data: bytes) -> None:
        self._octets += len(data) - len(self._kept.pop(key, b""))
        self._kept[key] = data
        while self._octets > self._limit:
            self._octets -= len(self._kept.popitem(last=False)[1])


def _is_directory(url: str) -> bool:
    return url.partition("?")[0].endswith("/")


def _as_os_error(error: FetchError, path: str) -> OSError:
    match error.why:
        case "missing":
            return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path or shown(error.url))
        case "denied":
            return PermissionError(errno.EACCES, os.strerror(errno.EACCES), path or shown(error.url))
        case _:
            return error


def _nothing(data: bytes | memoryview) -> None:
    """A sink for what nobody wants."""
