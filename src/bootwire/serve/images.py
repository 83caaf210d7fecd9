"""Images that were decided for machines, under URLs that only this server can make.

A URL holds, sealed: which image, its digest, for which machine, until when. So the server is no open proxy, a machine
gets what was decided for it and nothing else, and a restart in the middle of a boot breaks no URL.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from bootwire.policy.target import Image
from bootwire.serve import cache as disk
from bootwire.serve.cache import Cache, is_pinned
from bootwire.serve.content import Content, Later, Missing, Peer, Record, Reply, Upstream
from bootwire.serve.files import open_local
from bootwire.serve.mode import House, Link, StartError
from bootwire.serve.proof import NotProven, prove
from bootwire.serve.seals import Seals, load_key
from bootwire.serve.shelf import digest_of
from bootwire.serve.upstreams import Settings as UpstreamSettings
from bootwire.serve.upstreams import Upstreams, check
from bootwire.wire.http import Request

ROOM = "image"  # first part of the path
LIFETIME = 24 * 3600.0  # seconds: a boot takes minutes, an installer that comes back for its image hours


@dataclass(frozen=True, slots=True)
class Settings:
    """state: the state directory. folder: of the cache, None for "cache" in there. size: octets it may hold.

    keep: put unpinned images into the cache, too; pinned ones always go there. offline: never ask another server
    """

    state: Path
    folder: Path | None = None
    size: int = disk.SIZE
    keep: bool = False
    offline: bool = False
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)


def open_images(settings: Settings, *, trusted: bool) -> Images:
    """Images as the operator wants them. Raises StartError: the key cannot be kept, a setting is none."""
    try:
        seals = Seals(load_key(settings.state))
    except OSError as error:
        raise StartError(f"cannot keep the key of our URLs in {settings.state}: {error.strerror}") from None
    kept, upstreams = open_cache(settings)
    return Images(seals, kept, upstreams, keep=settings.keep or settings.offline, trusted=trusted)


def open_cache(settings: Settings, record: Record = lambda fact: None) -> tuple[Cache, Upstreams]:
    """The cache as the operator wants it, and what it asks other servers through. Raises StartError."""
    if wrong := check(settings.upstream):
        raise StartError(wrong, 2)
    upstreams = Upstreams(settings.upstream)
    folder = settings.folder or settings.state / "cache"
    return Cache(folder, upstreams, record=record, size=settings.size, offline=settings.offline), upstreams


class Images:
    """Makes links and answers them. `link` and `room` may be called from any thread.

    cache    where images of other servers are kept
    keep     put unpinned images into the cache, too; pinned ones always go there
    trusted  what is linked is the operator's own word; else a boot service named it
    """

    def __init__(
        self,
        seals: Seals,
        cache: Cache,
        upstreams: Upstreams,
        *,
        keep: bool = False,
        trusted: bool = True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.seals = seals
        self._cache = cache
        self._keep = keep
        self._trusted = trusted
        self._wall = wall
        self.upstreams = upstreams
        self._machine_at: Callable[[str], str] = lambda _: ""
        self._proven: dict[Image, tuple[object, str]] = {}  # of files of this machine: which octets, what is wrong

    def link(self, machine: str, base: str) -> Link:
        def url(image: Image, name: str) -> str:
            signed = (image.signature, image.keys) if image.signature else ()
            what = (image.location, image.sha256, name, "" if self._trusted else "untrusted", *signed)
            token = self.seals.seal(ROOM, machine, what, self._wall(), LIFETIME)
            return f"{base}/{ROOM}/{token}/{quote(name)}"

        return Link(base, url)

    def kept(self, image: Image) -> str:
        """Where a copy of an image is on disk, "" where there is none."""
        entry = self._cache.kept(image)
        return "" if entry is None else entry.path

    def room(self, rest: str, request: Request, peer: Peer) -> Content | Missing | Reply | Upstream | Later:
        here = self._machine_at(peer.address)
        sealed = self.seals.open(ROOM, rest.partition("/")[0], self._wall())
        if isinstance(sealed, str):
            return Missing(sealed, here, forbidden=True)
        machine = sealed.machine or here
        if here and sealed.machine and here != sealed.machine:
            return Missing(f"this URL was made for {sealed.machine}, not for {here}", here, forbidden=True)
        location, sha256, name, trust, *signed = sealed.what
        return self._given(Image(location, sha256, *signed), name, machine, trust != "untrusted")

    def give(self, image: Image, name: str, machine: str) -> Content | Missing | Reply | Upstream | Later:
        """The octets of an image for whoever knows already whose it is; like a room, in the transfer loop."""
        return self._given(image, name, machine, self._trusted)

    def _given(
        self, image: Image, name: str, machine: str, trusted: bool
    ) -> Content | Missing | Reply | Upstream | Later:
        if image.location.startswith("/"):
            return self._local(machine, image, name)
        return self._remote(machine, image, name, trusted=trusted)

    def _remote(self, machine: str, image: Image, name: str, *, trusted: bool) -> Content | Reply | Upstream | Later:
        """What is pinned waits until it is here and proven; the rest goes out while it comes."""
        cache, pinned = self._cache, is_pinned(image)
        if not pinned and not self._keep:
            return Upstream(name, image.location, machine, trusted=trusted)
        found = cache.lookup(image, name)
        if isinstance(found, Content):
            found.machine = machine
            return found
        if found is not None:
            return Reply(502, f"{found.because}\n".encode(), machine=machine)
        if pinned:
            return Later(lambda: cache.ensure(image, trusted=trusted), machine)
        return Upstream(
            name, image.location, machine, trusted=trusted, kept=lambda: cache.follow(image, trusted=trusted)
        )

    def _local(self, machine: str, image: Image, name: str) -> Content | Missing | Later:
        """A file of this machine; one that is pinned is looked at first, and again when it has changed."""
        found = open_local(image.location, name, "application/octet-stream")
        if isinstance(found, Missing) or not is_pinned(image):
            return _for(machine, found)
        version, wrong = self._proven.get(image, (None, ""))
        if version != (found.size, found.etag):
            found.close()
            return Later(lambda: self._prove(image), machine)
        if wrong:
            found.close()
            return Missing(f"{image.location}: {wrong}", machine, forbidden=True)
        return _for(machine, found)

    async def _prove(self, image: Image) -> None:
        found = open_local(image.location, image.location, "")
        if not isinstance(found, Content):
            return
        found.close()
        wrong = ""
        try:
            digest = await asyncio.to_thread(digest_of, image.location)
            await prove(image, digest, Path(image.location), self.upstreams, trusted=True)
        except NotProven as error:
            wrong = str(error)
        if len(self._proven) > 4096:
            self._proven.clear()
        self._proven[image] = (found.size, found.etag), wrong

    def open(self, house: House) -> None:
        self._machine_at = house.boot_server.machine_at
        self._cache.record = house.record

    async def close(self) -> None:
        await self._cache.close()
        await self.upstreams.close()


def _for(machine: str, found: Content | Missing) -> Content | Missing:
    if isinstance(found, Missing):
        return replace(found, machine=machine)
    found.machine = machine
    return found
