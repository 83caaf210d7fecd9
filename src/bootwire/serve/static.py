"""Static mode: one kernel, its initrds and a command line for every machine that netboots."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bootwire.assets.catalog import Blob, RemoteFile
from bootwire.assets.kernels import Image as Recognised
from bootwire.assets.kernels import Refusal, check_initrd, check_kernel
from bootwire.assets.scripts import boot_url, check_text
from bootwire.policy.target import Image, Target, Traits
from bootwire.serve.cache import is_pinned
from bootwire.serve.content import Content, Later, Missing, Reply, Upstream
from bootwire.serve.files import for_machine, open_local
from bootwire.serve.images import ROOM, Images
from bootwire.serve.mode import Decider, House, Link, Plain, Room, StartError
from bootwire.serve.seals import Seals
from bootwire.serve.shelf import digest_of
from bootwire.serve.sources import Examined, SourceError, examine, is_url, pinned, split_list
from bootwire.serve.upstreams import Settings as UpstreamSettings
from bootwire.serve.upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class Static:
    """What every machine boots, as the operator gave it: files and URLs, each may end in "#sha256=HEX"."""

    kernel: str
    initrds: tuple[str, ...] = ()
    cmdline: str = ""
    message: str = ""

    @property
    def pinned(self) -> bool:
        """Whether any of it is to be looked at whole before it is served."""
        return any("#sha256=" in given for given in (self.kernel, *self.initrds))


class StaticMode:
    """Looks at the images before anything is served. Raises StartError (status 2).

    images   what URLs and pinned files are served through, so that they are kept and proven; None: they are streamed
    offline  look at the kept copies of images, not at their servers
    """

    def __init__(
        self,
        static: Static,
        upstream: UpstreamSettings | None = None,
        images: Images | None = None,
        *,
        offline: bool = False,
    ) -> None:
        self._images = images
        upstream = images.upstreams.settings if images is not None else upstream

        def examined(given: str) -> tuple[Examined, Image]:
            location, sha256 = pinned(given)
            image = Image(location if is_url(location) else os.path.abspath(location), sha256)
            if images is None or not offline or not is_url(location):
                found = examine(location, upstream)
                if sha256 and not is_url(location) and (digest := digest_of(image.location)) != sha256:
                    raise SourceError(f"{location} has other octets than it is pinned to: its SHA-256 is {digest}")
                return found, image
            if not (path := images.kept(image)):
                raise SourceError(
                    f"{given} is not in the cache, and --offline forbids to fetch it\n  run  bootwire prefetch {given}"
                )
            return replace(examine(path), given=location, source=RemoteFile(location)), image

        for text, what in ((static.cmdline, "the command line"), (static.message, "the message")):
            if wrong := check_text(text.replace("\n", " ") if what == "the message" else text, what):
                raise StartError(wrong, 2)
        try:
            kernel, kernel_image = examined(static.kernel)
            looked_at = [examined(name) for name in split_list(static.initrds)]
        except (SourceError, OSError) as error:
            raise StartError(str(error), 2) from None
        initrds, initrd_images = [one for one, _ in looked_at], [image for _, image in looked_at]
        known = recognised(kernel, check_kernel(kernel.head, kernel.size))
        named = {"kernel": (kernel, kernel_image)} | {f"initrd/{i}": one for i, one in enumerate(looked_at)}
        self.catalog: Mapping[str, Blob] = {
            name: _blob(name, one) for name, (one, image) in named.items() if not is_pinned(image)
        }
        lines = [f"Kernel    {kernel.given}: {known.text}{size_text(kernel)}"]
        found = [(kernel.given, known)]
        for initrd in initrds:
            seen = recognised(initrd, check_initrd(initrd.head, initrd.size, known))
            lines.append(f"Initrd    {initrd.given}: {seen.text}{size_text(initrd)}")
            found.append((initrd.given, seen))
        self.lines: Sequence[str] = lines
        self.warnings: Sequence[str] = [f"{given}: {image.warning}" for given, image in found if image.warning]
        self.upstreams = images.upstreams if images is not None else Upstreams(upstream)
        self.seals: Seals | None = None
        self.multicast = False
        self.rooms: Mapping[str, Room] = {ROOM: images.room} if images is not None else {}
        self.decider: Decider = Plain(
            Target(
                because="",
                kernel=kernel_image,
                initrds=tuple(initrd_images),
                cmdline=static.cmdline,
                message=static.message,
                suits=suits(known),
            )
        )

    def link(self, machine: str, base: str) -> Link:
        kept = self._images.link(machine, base) if self._images is not None else None

        def url(image: Image, name: str) -> str:
            if kept is not None and (is_url(image.location) or is_pinned(image)):
                return kept(image, name)
            return boot_url(base, machine, name)

        return Link(base, url)

    def give(self, image: Image, name: str, machine: str) -> Content | Missing | Reply | Upstream | Later:
        if self._images is not None and (is_url(image.location) or is_pinned(image)):
            return self._images.give(image, name, machine)
        if not image.location.startswith("/"):
            return Upstream(name, image.location, machine)
        return for_machine(open_local(image.location, name, "application/octet-stream"), machine)

    def named(self, profile: str, traits: Traits) -> Target | None:
        return None

    def installing(self) -> Sequence[str]:
        return ()

    def open(self, house: House) -> None:
        if self._images is not None:
            self._images.open(house)

    async def reload(self) -> None:
        pass

    async def close(self) -> None:
        if self._images is not None:
            await self._images.close()


def recognised(examined: Examined, seen: Recognised | Refusal) -> Recognised:
    """`seen`, unless it is a refusal: then StartError (status 2)."""
    if isinstance(seen, Refusal):
        raise StartError(f"{examined.given}: {seen.because}", 2)
    return seen


def suits(kernel: Recognised) -> frozenset[str]:
    """The loader directories whose machines this kernel runs on; empty if nobody knows."""
    runs_on = frozenset(kernel.architectures)
    return runs_on | {"bios"} if runs_on and kernel.bios else runs_on


def size_text(examined: Examined) -> str:
    """ ", 12.1 MB", for a line about a file."""
    return f", {examined.size / 1e6:.1f} MB" if examined.size >= 0 else ", size not told"


def _blob(name: str, examined: Examined) -> Blob:
    return Blob(name, examined.size, examined.source)
