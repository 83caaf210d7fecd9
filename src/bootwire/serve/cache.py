"""A verified cache of images of other servers: fetched once however many machines ask, and whole or not at all.

What is pinned by a digest is never served before its octets have it. What is not is looked after with its server's
validators (ETag, Last-Modified), and the last good copy serves while that server is away. A fetch that breaks goes on
where it stopped; a file is there under its name only when it is whole (written beside, synced, renamed).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bootwire.facts import ImageFetched, ImageRefused, Warned
from bootwire.serve.content import Content, Missing, Record
from bootwire.serve.files import open_local
from bootwire.serve.upstreams import READ_SECONDS, UpstreamFailed, Upstreams, host_of
from bootwire.wire.text import printable

if TYPE_CHECKING:
    import aiohttp

SIZE = 20 * 10**9  # octets kept unless the operator says otherwise: some twenty live images
FRESH_SECONDS = 60.0  # for how long an unpinned image is served without asking its server whether it has changed
FAILED_SECONDS = 3.0  # for how long a failed fetch is not tried again: as long as our own scripts pause
RESUMES = 5  # attempts in a row without one new octet
RESUME_SECONDS = 0.25  # before the first attempt; doubles with each
PIECE = 1 << 20  # octets digested or written at once, in a thread

Progress = Callable[[str, int, int], None]
"""Told of a location: octets so far, and how many it has (-1: not known)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image on disk. checked: wall-clock seconds when its server last stood by it (or it was digested)."""

    path: str
    location: str
    size: int
    sha256: str
    etag: str = ""
    modified: str = ""
    checked: float = 0.0


class NotFetched(Exception):
    """An image cannot be had; the text says why."""


class Cache:
    """Images on disk by location and digest. `lookup` may be called from any thread, the rest from one asyncio loop.

    folder   ours alone; made when it is needed
    size     octets that are kept; the least recently used are thrown away first, never one that is pinned in flight
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
        self._folder = folder
        self._upstreams = upstreams
        self.record = record  # may be replaced before the first fetch
        self._size = size
        self._offline = offline
        self._wall = wall
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # oldest use first
        self._unverified: set[str] = set()  # from an earlier run: digested before the first use
        self._failed: dict[str, tuple[float, str]] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._load()

    def lookup(self, location: str, sha256: str, name: str) -> Content | Missing | None:
        """The image if it can be served now; Missing if that failed a moment ago; None: `ensure` it first."""
        key = _key(location, sha256)
        entry = self._entries.get(key)
        if entry is not None and key not in self._unverified and (sha256 or self._is_fresh(entry)):
            with contextlib.suppress(KeyError):  # another thread may throw it away meanwhile
                self._entries.move_to_end(key)
            found = open_local(entry.path, name, "application/octet-stream")
            if isinstance(found, Content):
                found.etag = f'"{entry.sha256[:32]}"'
                return found
        failed = self._failed.get(key)
        if failed is not None and self._wall() - failed[0] < FAILED_SECONDS:
            return Missing(failed[1])
        return None

    async def ensure(
        self, location: str, sha256: str, *, trusted: bool = True, progress: Progress | None = None
    ) -> None:
        """Have the image on disk, verified and fresh; or remember why not. Raises nothing.

        One fetch at a time for each image, however many wait for it; it goes on when they have gone away.
        """
        key = _key(location, sha256)
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ensure(key, location, sha256, trusted, progress))
            self._fetching[key] = task
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        await asyncio.shield(task)

    async def fetch(
        self, location: str, sha256: str, *, trusted: bool = True, progress: Progress | None = None
    ) -> Entry:
        """As `ensure`, for somebody who wants to know. Raises NotFetched."""
        key = _key(location, sha256)
        self._failed.pop(key, None)
        await self.ensure(location, sha256, trusted=trusted, progress=progress)
        if key in self._failed:
            raise NotFetched(self._failed[key][1])
        return self._entries[key]

    async def close(self) -> None:
        """End what is being fetched; what has come so far is kept, and gone on with."""
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    # --- having it ------------------------------------------------------------------------------------------------

    async def _ensure(self, key: str, location: str, sha256: str, trusted: bool, progress: Progress | None) -> None:
        try:
            await self._have(key, location, sha256, trusted, progress)
            self._failed.pop(key, None)
        except NotFetched as error:
            if len(self._failed) > 1024:
                self._failed.clear()
            self._failed[key] = self._wall(), str(error)
            self.record(ImageRefused("", printable(location), str(error)))
        except OSError as error:
            why = f"it cannot be kept in {self._folder}: {error.strerror}"
            self._failed[key] = self._wall(), why
            fix = "make room, or point --cache-dir elsewhere" if error.errno == errno.ENOSPC else "mend the folder"
            self.record(Warned("", f"an image cannot be kept in {self._folder}: {error.strerror}", fix))

    async def _have(self, key: str, location: str, sha256: str, trusted: bool, progress: Progress | None) -> None:
        entry = self._entries.get(key)
        if entry is not None and key in self._unverified:
            if await asyncio.to_thread(digest_of, entry.path) == entry.sha256:
                self._unverified.discard(key)
            else:
                self.record(Warned("", f"the cached copy of {printable(location)} is damaged: it is fetched again"))
                self._drop(key)
                entry = None
        if entry is not None and (sha256 or self._is_fresh(entry)):
            return
        if self._offline:
            if entry is None:
                raise NotFetched("it is not in the cache, and --offline forbids to fetch it")
            self._keep(key, entry)
            return
        try:
            await self._fetch(key, location, sha256, entry, trusted, progress)
        except UpstreamFailed as error:
            because = f"{host_of(location)} {error}"
            if entry is None:
                raise NotFetched(because) from None
            self.record(Warned("", f"{printable(location)}: {because}; the last good copy is served"))
            self._keep(key, entry)

    def _keep(self, key: str, entry: Entry) -> None:
        """What we have is good for another while."""
        self._put(key, replace(entry, checked=self._wall()))

    def _is_fresh(self, entry: Entry) -> bool:
        return 0 <= self._wall() - entry.checked < FRESH_SECONDS

    # --- fetching -------------------------------------------------------------------------------------------------

    async def _fetch(
        self, key: str, location: str, sha256: str, entry: Entry | None, trusted: bool, progress: Progress | None
    ) -> None:
        """Raises UpstreamFailed, NotFetched (a wrong digest), OSError (no room)."""
        began = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{key}.part"
        headers = {}
        if entry is not None:
            headers = {name: value for name, value in _conditions(entry) if value}
        response = await self._upstreams.ask("GET", location, headers, trusted=trusted)
        if response.status == 304 and entry is not None:
            response.close()
            self._keep(key, entry)
            return
        if response.status != 200:
            response.close()
            raise UpstreamFailed(f"answers {response.status} {printable(response.reason or '', 60)}")
        etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        digest, size, resumed = await self._download(part, location, response, trusted, progress)
        if sha256 and digest != sha256:
            part.unlink()
            raise NotFetched(f"its SHA-256 is {digest}, not {sha256} as it should be: it is not served")
        path = self._folder / f"{key}.image"
        made = Entry(str(path), location, size, digest, _header(etag), _header(modified), self._wall())
        await asyncio.to_thread(_install, part, path, self._folder / f"{key}.json", made)
        self._put(key, made)
        seconds = round(time.monotonic() - began, 3)
        self.record(ImageFetched("", printable(location), size, seconds, digest, resumed))
        self._make_room(key)

    async def _download(
        self, part: Path, location: str, response: aiohttp.ClientResponse, trusted: bool, progress: Progress | None
    ) -> tuple[str, int, int]:
        """Write the whole image to `part`. Returns its digest, its size, and how often it was gone on with."""
        import aiohttp

        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        whole = -1 if response.content_length is None else response.content_length
        digest, got, tries, resumed = hashlib.sha256(), 0, 0, 0
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if whole > 0:
                with contextlib.suppress(OSError):  # a file system that cannot reserve; a full one says so in time
                    os.posix_fallocate(fd, 0, whole)
            while True:
                why, pieces = "ended too early", bytearray()
                try:
                    async for piece in response.content.iter_any():
                        pieces += piece
                        if len(pieces) >= PIECE:
                            await asyncio.to_thread(_write, fd, digest, bytes(pieces))
                            got += len(pieces)
                            pieces.clear()
                            tries = 0
                            if progress:
                                progress(location, got, whole)
                except TimeoutError:
                    why = f"sent nothing for {READ_SECONDS:.0f} s"
                except aiohttp.ClientError:
                    why = "broke the connection"
                finally:
                    response.close()
                if pieces:
                    await asyncio.to_thread(_write, fd, digest, bytes(pieces))
                    got += len(pieces)
                    tries = 0
                if progress:
                    progress(location, got, whole)
                if got == whole or (whole < 0 and why == "ended too early"):
                    os.ftruncate(fd, got)
                    return digest.hexdigest(), got, resumed
                if got > whole >= 0 or not validator:
                    raise UpstreamFailed(f"{why}, and cannot be asked for the rest")
                response = await self._rest(location, got, whole, validator, trusted, tries, why)
                tries += 1
                resumed += 1
        finally:
            os.close(fd)

    async def _rest(
        self, location: str, got: int, whole: int, validator: str, trusted: bool, tries: int, why: str
    ) -> aiohttp.ClientResponse:
        """The answer that begins where the last one stopped. Raises UpstreamFailed."""
        headers = {"Range": f"bytes={got}-", "If-Range": validator}
        for attempt in range(tries, RESUMES):
            await asyncio.sleep(RESUME_SECONDS * 2**attempt)
            try:
                response = await self._upstreams.ask("GET", location, headers, trusted=trusted)
            except UpstreamFailed as error:
                why = str(error)
                continue
            said = response.headers.get("Content-Range", "")
            if response.status == 206 and said == f"bytes {got}-{whole - 1}/{whole}":
                return response
            response.close()
            why = f"answers {response.status} when asked for the rest"
            if response.status < 500:
                break
        raise UpstreamFailed(why)

    # --- what there is --------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Find what earlier runs left; sweep away what they did not finish."""
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return
        found: list[tuple[float, str, Entry]] = []
        for name in names:
            path = self._folder / name
            key, _, kind = name.partition(".")
            if kind == "json":
                try:
                    entry = Entry(**json.loads(path.read_bytes()))
                    status = os.stat(entry.path)
                except (OSError, ValueError, TypeError):
                    path.unlink(missing_ok=True)
                    continue
                if status.st_size == entry.size and entry.path == str(self._folder / f"{key}.image"):
                    found.append((status.st_atime, key, entry))
            elif kind == "image":
                if not (self._folder / f"{key}.json").exists():
                    path.unlink(missing_ok=True)
            elif kind in ("part", "fresh"):
                path.unlink(missing_ok=True)
        for _, key, entry in sorted(found, key=lambda one: one[0]):
            self._entries[key] = entry
            self._unverified.add(key)

    def _put(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        self._unverified.discard(key)

    def _drop(self, key: str) -> None:
        self._unverified.discard(key)
        entry = self._entries.pop(key, None)
        if entry is not None:
            for path in (self._folder / f"{key}.json", Path(entry.path)):
                path.unlink(missing_ok=True)

    def _make_room(self, newest: str) -> None:
        """Throw away what was not used for longest; who is being served from it goes on by descriptor."""
        total = sum(entry.size for entry in self._entries.values())
        for key in list(self._entries):
            if total <= self._size:
                return
            if key != newest:
                total -= self._entries[key].size
                self._drop(key)


def _key(location: str, sha256: str) -> str:
    return hashlib.sha256(f"{sha256}\0{location}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _conditions(entry: Entry) -> tuple[tuple[str, str], ...]:
    return ("If-None-Match", entry.etag), ("If-Modified-Since", "" if entry.etag else entry.modified)


def _header(value: str) -> str:
    return value if value.isascii() and value.isprintable() and len(value) <= 256 else ""


def _write(fd: int, digest: hashlib._Hash, octets: bytes) -> None:
    digest.update(octets)
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]


def digest_of(path: str) -> str:
    """SHA-256 of a file in lower-case hexadecimal, "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _install(part: Path, path: Path, about: Path, entry: Entry) -> None:
    """Give the finished file its name: its octets, then its description, each whole or not there."""
    fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    about.unlink(missing_ok=True)
    os.replace(part, path)
    fresh = about.with_suffix(".fresh")
    fields = {name: getattr(entry, name) for name in Entry.__slots__}
    fresh.write_text(json.dumps(fields))
    os.replace(fresh, about)
