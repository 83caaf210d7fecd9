"""A verified cache of images of other servers: fetched once however many machines ask, and never a wrong octet.

What is pinned, by a digest or a signature, is served only when it is whole and proven. What is not is served while it
comes (pull-through), looked after with its server's validators (ETag, Last-Modified), and the last good copy serves
while that server is away. A fetch that breaks goes on where it stopped. What is on disk is in serve/shelf.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from bootwire.facts import ImageFetched, ImageRefused, Warned
from bootwire.policy.target import Image
from bootwire.serve.content import Content, Missing, Record
from bootwire.serve.files import open_local
from bootwire.serve.growing import Growing, Reader
from bootwire.serve.proof import NotProven, prove
from bootwire.serve.shelf import Begun, Entry, Shelf
from bootwire.serve.upstreams import READ_SECONDS, UpstreamFailed, Upstreams, host_of
from bootwire.wire import http
from bootwire.wire.text import printable

if TYPE_CHECKING:
    import aiohttp

SIZE = 20 * 10**9  # octets kept unless the operator says otherwise: some twenty live images
FRESH_SECONDS = 60.0  # for how long what no digest pins is served without asking its server whether it has changed
FAILED_SECONDS = 3.0  # for how long a failed fetch is not tried again: as long as our own scripts pause
RESUMES = 5  # attempts in a row without one new octet
RESUME_SECONDS = 0.25  # before the first attempt; doubles with each
PIECE = 1 << 20  # octets digested and written at once, in a thread
PIECE_SECONDS = 0.2  # after which less is written, too: machines may wait for it
CLAIM_SECONDS = 0.5  # between two looks whether another process has fetched it

P = ParamSpec("P")
T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Told of a location: octets so far, and how many it has (-1: not known)."""


class NotFetched(Exception):
    """An image cannot be had; the text says why."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """at: wall-clock seconds; no_room: it may be had, but not kept."""

    at: float
    why: str
    no_room: bool = False


class Cache:
    """Images on disk by what was asked for. `lookup` may be called from any thread, the rest from one asyncio loop.

    folder   ours, or shared with other processes of ours; made when it is needed
    size     octets that are kept; what was not used for longest goes first
    offline  never ask another server: what is there is served, the rest is refused
    """

    def __init__(
        self,
        folder: Path,
        upstreams: Upstreams,
        *,
        record: Record = lambda fact: None,
        size: int = SIZE,
        offline: bool = False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.shelf = Shelf(folder, size)
        self.upstreams = upstreams
        self.record = record  # may be replaced before the first fetch
        self._offline = offline
        self.wall = wall
        self._failed: dict[str, _Failure] = {}
        self._fetching: dict[str, tuple[asyncio.Task[None], Growing]] = {}

    def lookup(self, image: Image, name: str) -> Content | Missing | None:
        """The image if it can be served now; Missing if that failed a moment ago; None: `ensure` or `follow` it."""
        key = _key(image)
        entry = self.shelf.get(key)
        if entry is not None and (image.sha256 or self._is_fresh(entry)):
            found = open_local(entry.path, name, "application/octet-stream")
            if isinstance(found, Content):
                if (good := self.shelf.good(key, found.fd)) is not None:
                    found.etag, found.modified = _tag(good), _date(good.modified) or found.modified
                    return found
                found.close()
        failed = self._failure(key)
        if failed is not None and (is_pinned(image) or not failed.no_room):
            return Missing(failed.why)
        return None

    def kept(self, image: Image) -> Entry | None:
        """What is on disk of it, fresh or not."""
        return self.shelf.get(_key(image))

    async def ensure(self, image: Image, *, trusted: bool = True, progress: Progress | None = None) -> None:
        """Have the image on disk, proven and fresh; or remember why not. Raises nothing.

        One fetch at a time for each image, however many wait for it; it goes on when they have gone away.
        """
        task, _ = self._start(image, trusted, progress)
        await asyncio.shield(task)

    async def fetch(self, image: Image, *, trusted: bool = True, progress: Progress | None = None) -> Entry:
        """As `ensure`, for somebody who wants to know. Raises NotFetched."""
        key = _key(image)
        self._failed.pop(key, None)
        await self.ensure(image, trusted=trusted, progress=progress)
        entry = self.shelf.get(key)
        if key in self._failed or entry is None:
            raise NotFetched(self._failed[key].why if key in self._failed else "it was thrown away again")
        return entry

    async def follow(self, image: Image, *, trusted: bool = True) -> Reader | None:
        """The image to be read while it comes; for what nothing pins. None: it cannot be kept, stream it.

        Raises UpstreamFailed, with a whole sentence.
        """
        key = _key(image)
        if (failed := self._failure(key)) is not None and failed.no_room:
            return None
        task, growing = self._start(image, trusted, None)
        await growing.head()
        if not growing.begun:
            await asyncio.shield(task)
            if (failed := self._failed.get(key)) is not None:
                if failed.no_room:
                    return None
                raise UpstreamFailed(failed.why)
            entry = self.shelf.get(key)
            if entry is None:
                return None
            growing = Growing.complete(entry.path, entry.size, _tag(entry), _date(entry.modified))
        if not growing.path:
            raise UpstreamFailed(growing.why)
        try:
            return Reader.of(growing)
        except OSError:
            return None  # thrown away in this very moment

    async def close(self) -> None:
        """End what is being fetched; of what is pinned, what has come so far is kept and gone on with."""
        tasks = [task for task, _ in self._fetching.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- having it ------------------------------------------------------------------------------------------------

    def _start(self, image: Image, trusted: bool, progress: Progress | None) -> tuple[asyncio.Task[None], Growing]:
        key = _key(image)
        under_way = self._fetching.get(key)
        if under_way is None or under_way[0].done():
            growing = Growing()
            task = asyncio.get_running_loop().create_task(self._ensure(key, image, trusted, growing, progress))
            under_way = self._fetching[key] = task, growing
            task.add_done_callback(lambda ended: self._ended(key, ended))
        return under_way

    def _ended(self, key: str, task: asyncio.Task[None]) -> None:
        if key in self._fetching and self._fetching[key][0] is task:
            del self._fetching[key]

    async def _ensure(self, key: str, image: Image, trusted: bool, growing: Growing, progress: Progress | None) -> None:
        why = "the server stops"
        try:
            await self._have(key, image, trusted, growing, progress)
            self._failed.pop(key, None)
            why = ""
        except NotFetched as error:
            why = str(error)
            self._fail(key, _Failure(self.wall(), why))
            self.record(ImageRefused("", printable(image.location), why))
        except OSError as error:
            why = f"it cannot be kept in {self.shelf.folder}: {error.strerror}"
            self._fail(key, _Failure(self.wall(), why, no_room=True))
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            fix = "make room, raise --cache-size, or point --cache-dir elsewhere" if full else "mend the folder"
            what = f"an image cannot be kept in {self.shelf.folder}: {error.strerror}"
            self.record(Warned("", what, fix))
            if is_pinned(image):  # others are streamed
                self.record(ImageRefused("", printable(image.location), why))
        finally:
            growing.end(why)

    async def _have(self, key: str, image: Image, trusted: bool, growing: Growing, progress: Progress | None) -> None:
        entry = await self._found(key, image)
        if entry is not None and (image.sha256 or self._is_fresh(entry)):
            return
        if self._offline:
            if entry is None:
                raise NotFetched("it is not in the cache, and --offline forbids to fetch it")
            self.keep(key, entry)
            return
        fd = self.shelf.claim(key)
        while fd is None:  # another process is at it
            await asyncio.sleep(CLAIM_SECONDS)
            fd = self.shelf.claim(key)
        try:
            entry = await self._found(key, image)
            if entry is not None and (image.sha256 or self._is_fresh(entry)):
                return
            part = Path(f"{self.shelf.folder / key}.part")
            try:
                fetch = _Fetch(self, key, image, trusted, growing, progress, fd, part)
                await fetch.run(entry)
            except UpstreamFailed as error:
                because = f"{host_of(image.location)} {error}"
                if entry is None:
                    raise NotFetched(because) from None
                self.record(Warned("", f"{printable(image.location)}: {because}; the last good copy is served"))
                self.keep(key, entry)
        finally:
            self.shelf.release(key, fd)

    async def _found(self, key: str, image: Image) -> Entry | None:
        """What is on disk, its digest looked at in this run."""
        if self.shelf.is_verified(key):
            return self.shelf.get(key)
        entry = self.shelf.on_disk(key)
        if entry is not None and await asyncio.to_thread(self.shelf.verify, key, entry):
            return entry
        if entry is not None:
            self.record(Warned("", f"the cached copy of {printable(image.location)} is damaged: it is fetched again"))
        self.shelf.drop(key)
        return None

    def keep(self, key: str, entry: Entry) -> None:
        """What we have is good for another while."""
        with contextlib.suppress(OSError):
            self.shelf.renew(key, replace(entry, checked=self.wall()))

    def _is_fresh(self, entry: Entry) -> bool:
        return 0 <= self.wall() - entry.checked < FRESH_SECONDS

    def _failure(self, key: str) -> _Failure | None:
        failed = self._failed.get(key)
        return failed if failed is not None and 0 <= self.wall() - failed.at < FAILED_SECONDS else None

    def _fail(self, key: str, failure: _Failure) -> None:
        if len(self._failed) > 1024:
            self._failed.clear()
        self._failed[key] = failure


class _Fetch:
    """One fetch of one image into its part."""

    def __init__(
        self,
        cache: Cache,
        key: str,
        image: Image,
        trusted: bool,
        growing: Growing,
        progress: Progress | None,
        fd: int,
        part: Path,
    ) -> None:
        self._cache = cache
        self._shelf = cache.shelf
        self._key = key
        self._image = image
        self._trusted = trusted
        self._growing = growing
        self._progress = progress
        self._fd = fd
        self._part = part
        self._resumed = 0
        self._tries = 0
        self._got = 0
        self._pieces = bytearray()
        self._wrote = time.monotonic()
        self._digest = hashlib.sha256()

    async def run(self, entry: Entry | None) -> None:
        """Raises UpstreamFailed, NotFetched (not what it should be), OSError (no room)."""
        began, pinned = time.monotonic(), is_pinned(self._image)
        begun = self._shelf.begun(self._key) if pinned else None
        got = os.fstat(self._fd).st_size if begun is not None and begun.location == self._image.location else 0
        response = await self._first(begun, got, entry)
        if response is None:
            assert entry is not None
            self._cache.keep(self._key, entry)
            return
        if begun is not None and response.status == 206:
            self._resumed, self._got = 1, got
            self._digest = await _in_thread(_digest_so_far, self._fd, got)
        else:
            begun = self._describe(response)
            os.ftruncate(self._fd, 0)
        fits = self._shelf.make_room(self._key, max(0, begun.whole), max(0, begun.whole - self._got))
        if not fits and not pinned:
            response.close()
            raise OSError(errno.EDQUOT, "it is larger than --cache-size")
        self._shelf.begin(self._key, begun if pinned and begun.validator else None)
        self._growing.whole = begun.whole
        if not pinned:
            tag = begun.etag if begun.etag.startswith('"') else ""
            self._growing.begin(f"/proc/self/fd/{self._fd}", begun.whole, tag, begun.modified)
        await self._download(response, begun)
        await self._finish(begun, began)

    async def _first(self, begun: Begun | None, got: int, entry: Entry | None) -> aiohttp.ClientResponse | None:
        """The first answer, 200 or a fitting 206; None: what we have is still what its server has."""
        headers = {name: value for name, value in _conditions(entry) if value} if entry is not None else {}
        if begun is not None and 0 < got < begun.whole:
            rest = {"Range": f"bytes={got}-", "If-Range": begun.validator}
            response = await self._ask(rest)
            if response.status == 200 or _continues(response, got, begun.whole):
                return response
            response.close()
        response = await self._ask(headers)
        if response.status == 304 and entry is not None:
            response.close()
            return None
        if response.status != 200:
            response.close()
            raise UpstreamFailed(f"answers {response.status} {printable(response.reason or '', 60)}")
        return response

    def _describe(self, response: aiohttp.ClientResponse) -> Begun:
        whole = -1 if response.content_length is None else response.content_length
        etag, modified = _header(response.headers.get("ETag", "")), _date(response.headers.get("Last-Modified", ""))
        return Begun(self._image.location, whole, etag, modified)

    async def _finish(self, begun: Begun, began: float) -> None:
        """Look whether it is what it should be, and give it its name."""
        cache, image, digest, size = self._cache, self._image, self._digest.hexdigest(), self._got
        try:
            signer = await prove(image, digest, self._part, cache.upstreams, trusted=self._trusted)
        except NotProven as error:
            self._shelf.begin(self._key, None)
            raise NotFetched(f"{error}: it is not served") from None
        path = self._shelf.folder / f"{self._key}.image"
        made = Entry(str(path), image.location, size, digest, begun.etag, begun.modified, cache.wall(), signer)
        await asyncio.to_thread(self._shelf.put, self._key, self._part, made)
        self._growing.path = str(path)
        seconds = round(time.monotonic() - began, 3)
        cache.record(ImageFetched("", printable(image.location), size, seconds, digest, self._resumed))
        with contextlib.suppress(OSError):
            self._shelf.make_room(self._key, size, 0)

    async def _download(self, response: aiohttp.ClientResponse, begun: Begun) -> None:
        """Write what is missing. Raises UpstreamFailed: it cannot be had."""
        import aiohttp

        whole = begun.whole
        while True:
            why = "ended too early"
            try:
                while piece := await self._read(response):
                    self._pieces += piece
                    if len(self._pieces) >= PIECE or time.monotonic() - self._wrote > PIECE_SECONDS:
                        await self._write()
            except TimeoutError:
                why = f"sent nothing for {READ_SECONDS:.0f} s"
            except aiohttp.ClientError:
                why = "broke the connection"
            finally:
                response.close()
            await self._write()
            if self._got == whole or (whole < 0 and why == "ended too early"):
                return
            if self._got > whole >= 0 or not begun.validator:
                raise UpstreamFailed(f"{why}, and cannot be asked for the rest")
            response = await self._rest(begun, why)
            self._resumed += 1

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The next octets, b"" at the end. While they are long in coming, what is here is written."""
        if self._pieces:
            soon = asyncio.timeout(PIECE_SECONDS)
            try:
                async with soon:
                    return await response.content.readany()
            except TimeoutError:
                if not soon.expired():
                    raise
            await self._write()
        return await response.content.readany()

    async def _write(self) -> None:
        """Put on disk what has come."""
        if self._pieces:
            await _in_thread(_write, self._fd, self._digest, bytes(self._pieces), self._got)
            self._got += len(self._pieces)
            self._pieces.clear()
            self._tries = 0
        self._wrote = time.monotonic()
        self._growing.came(self._got)
        if self._progress:
            self._progress(self._image.location, self._got, self._growing.whole)

    async def _rest(self, begun: Begun, why: str) -> aiohttp.ClientResponse:
        """The answer that begins where the last one stopped. Raises UpstreamFailed."""
        headers = {"Range": f"bytes={self._got}-", "If-Range": begun.validator}
        while self._tries < RESUMES:
            await asyncio.sleep(RESUME_SECONDS * 2**self._tries)
            self._tries += 1
            try:
                response = await self._ask(headers)
            except UpstreamFailed as error:
                why = str(error)
                continue
            if _continues(response, self._got, begun.whole):
                return response
            response.close()
            why = f"answers {response.status} when asked for the rest"
            if response.status < 500:
                break
        raise UpstreamFailed(why)

    async def _ask(self, headers: dict[str, str]) -> aiohttp.ClientResponse:
        return await self._cache.upstreams.ask("GET", self._image.location, headers, trusted=self._trusted)


def is_pinned(image: Image) -> bool:
    """Whether it says what its octets must be, so that none may be served before they are looked at."""
    return bool(image.sha256 or image.signature)


def _key(image: Image) -> str:
    what = [image.sha256, image.location, *((image.signature, image.keys) if image.signature else ())]
    return hashlib.sha256("\0".join(what).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _conditions(entry: Entry) -> tuple[tuple[str, str], ...]:
    return ("If-None-Match", entry.etag), ("If-Modified-Since", "" if entry.etag else entry.modified)


def _continues(response: aiohttp.ClientResponse, got: int, whole: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "") == f"bytes {got}-{whole - 1}/{whole}"


def _tag(entry: Entry) -> str:
    """What machines know it by: its server's tag, the same while it comes and afterwards, else one by its digest."""
    return entry.etag if entry.etag.startswith('"') else f'"{entry.sha256[:32]}"'


def _header(value: str) -> str:
    return value if value.isascii() and value.isprintable() and len(value) <= 256 else ""


def _date(value: str) -> str:
    """An HTTP date as we write them, "" for anything else."""
    seconds = http.parse_date(value)
    return "" if seconds is None else http.format_date(seconds)


async def _in_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """As asyncio.to_thread, but it ends only when the thread has: that uses a descriptor of ours."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _digest_so_far(fd: int, octets: int) -> hashlib._Hash:
    digest = hashlib.sha256()
    for at in range(0, octets, PIECE):
        digest.update(os.pread(fd, min(PIECE, octets - at), at))
    return digest


def _write(fd: int, digest: hashlib._Hash, octets: bytes, at: int) -> None:
    digest.update(octets)
    view = memoryview(octets)
    while view:
        wrote = os.pwrite(fd, view, at)
        view, at = view[wrote:], at + wrote
