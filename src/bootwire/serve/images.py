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
from bootwire.serve.cache import Cache, digest_of
from bootwire.serve.content import Content, Later, Missing, Peer, Reply, Upstream
from bootwire.serve.files import open_local
from bootwire.serve.mode import House, Link, StartError
from bootwire.serve.seals import Seals, load_key
from bootwire.serve.upstreams import Settings as UpstreamSettings
from bootwire.serve.upstreams import Upstreams
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
    """Images as the operator wants them. Raises StartError where the key cannot be kept."""
    try:
        seals = Seals(load_key(settings.state))
    except OSError as error:
        raise StartError(f"cannot keep the key of our URLs in {settings.state}: {error.strerror}") from None
    upstreams = Upstreams(settings.upstream)
    folder = settings.folder or settings.state / "cache"
    kept = Cache(folder, upstreams, size=settings.size, offline=settings.offline)
    return Images(seals, kept, upstreams, keep=settings.keep or settings.offline, trusted=trusted)


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
        self._digests: dict[str, tuple[object, str]] = {}  # of files of this machine: path -> (which octets, SHA-256)

    def link(self, machine: str, base: str) -> Link:
        def url(image: Image, name: str) -> str:
            what = (image.location, image.sha256, name, "" if self._trusted else "untrusted")
            token = self.seals.seal(ROOM, machine, what, self._wall(), LIFETIME)
            return f"{base}/{ROOM}/{token}/{quote(name)}"

        return Link(base, url)

    def room(self, rest: str, request: Request, peer: Peer) -> Content | Missing | Reply | Upstream | Later:
        here = self._machine_at(peer.address)
        sealed = self.seals.open(ROOM, rest.partition("/")[0], self._wall())
        if isinstance(sealed, str):
            return Missing(sealed, here, forbidden=True)
        machine = sealed.machine or here
        if here and sealed.machine and here != sealed.machine:
            return Missing(f"this URL was made for {sealed.machine}, not for {here}", here, forbidden=True)
        location, sha256, name, trust = sealed.what
        if location.startswith("/"):
            return self._local(machine, location, sha256, name)
        trusted = trust != "untrusted"
        cache = self._cache
        if not sha256 and not self._keep:
            return Upstream(name, location, machine, trusted=trusted)
        found = cache.lookup(location, sha256, name)
        if found is None:
            return Later(lambda: cache.ensure(location, sha256, trusted=trusted), machine)
        if isinstance(found, Missing):
            return Reply(502, f"{found.because}\n".encode(), machine=machine)
        return _for(machine, found)

    def _local(self, machine: str, path: str, sha256: str, name: str) -> Content | Missing | Later:
        """A file of this machine; one with a digest is digested first, and again when it has changed."""
        found = open_local(path, name, "application/octet-stream")
        if isinstance(found, Missing) or not sha256:
            return _for(machine, found)
        key, digest = self._digests.get(path, (None, ""))
        if key != found.key:
            found.close()
            return Later(lambda: self._digest(path), machine)
        if digest != sha256:
            found.close()
            because = f"the SHA-256 of {path} is {digest}, not {sha256} as it should be"
            return Missing(because, machine, forbidden=True)
        return _for(machine, found)

    async def _digest(self, path: str) -> None:
        found = open_local(path, path, "")
        if isinstance(found, Content):
            found.close()
            if len(self._digests) > 4096:
                self._digests.clear()
            self._digests[path] = found.key, await asyncio.to_thread(digest_of, path)

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
